"""Reading weight files into named float32 arrays. Nothing in a file can execute code.

ncnn: the text of a `.param` file lists layers; the `.bin` file holds their numbers in that order. Of the layers
only convolutions and PReLUs carry any. Names are not stored; as the order is that of the official modules, the
shapes of the network give the names.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

import numpy as np

from enlarger.engine.networks.ops import Array
from enlarger.errors import WeightsCorrupt

_NCNN_MAGIC = "7767517"
_NCNN_FLOAT16 = 0x01306B47  # the tag that precedes weights stored as 16-bit floats; 0 precedes 32-bit ones


def read_ncnn(param: str, data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Tensors of an ncnn model under the names of `shapes`, which lists them in module order.

    Raises WeightsCorrupt when the layers are not those of the network, or the data is cut or too long.
    """
    reader = _NcnnData(data)
    layers = _ncnn_layers(param)
    try:
        tensors = [tensor for kind, fields in layers for tensor in _ncnn_tensors(reader, kind, fields)]
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise WeightsCorrupt(f"the ncnn layer list cannot be read: {error!r}") from error
    reader.expect_end()
    return _named(tensors, shapes)


def check_shapes(weights: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises WeightsCorrupt, naming the first tensor that is missing, extra or of another shape."""
    for name, shape in shapes.items():
        if name not in weights:
            raise WeightsCorrupt(f"tensor {name} of shape {shape} is missing")
        if weights[name].shape != shape:
            raise WeightsCorrupt(f"tensor {name} has shape {weights[name].shape}, the network needs {shape}")
    if extra := sorted(set(weights) - set(shapes)):
        raise WeightsCorrupt(f"tensor {extra[0]} does not belong to the network")


def _ncnn_layers(param: str) -> list[tuple[str, dict[int, int]]]:
    lines = param.split("\n")
    if lines[0].strip() != _NCNN_MAGIC:
        raise WeightsCorrupt("the layer list does not start like an ncnn param file")
    try:
        return [_ncnn_layer(line.split()) for line in lines[2:] if line.strip()]
    except (ValueError, IndexError) as error:
        raise WeightsCorrupt(f"the ncnn layer list cannot be read: {error}") from error


def _ncnn_layer(words: list[str]) -> tuple[str, dict[int, int]]:
    """`kind name inputs outputs <blob names> key=value…` → kind and its whole-number fields."""
    blobs = int(words[2]) + int(words[3])
    pairs = (word.split("=", 1) for word in words[4 + blobs :])
    return words[0], {int(key): int(value) for key, value in pairs if value.lstrip("-").isdigit()}


def _ncnn_tensors(reader: _NcnnData, kind: str, fields: dict[int, int]) -> list[Array]:
    if kind == "Convolution":
        outputs, kernel, count = fields[0], fields[1], fields[6]
        inputs = count // (outputs * kernel * kernel)
        weight = reader.tagged(count).reshape(outputs, inputs, kernel, kernel)
        return [weight, reader.floats(outputs)]
    return [reader.floats(fields[0])] if kind == "PReLU" else []


def _named(tensors: list[Array], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    if len(tensors) != len(shapes):
        raise WeightsCorrupt(f"the file holds {len(tensors)} tensors, the network has {len(shapes)}")
    weights = dict(zip(shapes, tensors, strict=True))
    check_shapes(weights, shapes)
    return weights


class _NcnnData:
    """A cursor over the bytes of a `.bin` file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def tagged(self, count: int) -> Array:
        """`count` weights behind a tag that tells their width; 16-bit ones are padded to four bytes."""
        (tag,) = struct.unpack("<I", self._take(4))
        if tag == _NCNN_FLOAT16:
            halves = np.frombuffer(self._take(2 * count), dtype="<f2").astype(np.float32)
            self._take(-2 * count % 4)
            return halves
        if tag == 0:
            return self.floats(count)
        raise WeightsCorrupt(f"the ncnn file stores weights in an unknown form (tag {tag:#010x})")

    def floats(self, count: int) -> Array:
        return np.frombuffer(self._take(4 * count), dtype="<f4").astype(np.float32)

    def expect_end(self) -> None:
        if left := len(self._data) - self._at:
            raise WeightsCorrupt(f"the ncnn file has {left} bytes more than its layers need")

    def _take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise WeightsCorrupt(f"the ncnn file ends {count - len(taken)} bytes early")
        self._at += count
        return taken


def parameter_count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers the tensors hold together."""
    return sum(math.prod(shape) for shape in shapes.values())
