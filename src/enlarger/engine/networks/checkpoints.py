"""Named float32 arrays: what every reader of weights shares, and the reader of ncnn files.

ncnn: the text of a `.param` file lists layers; the `.bin` file holds their numbers in that order. Of the layers
only convolutions and PReLUs carry any. Names are not stored; as the order is that of the official modules, the
shapes of the network give the names.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from enlarger.engine.networks.ops import Array
from enlarger.errors import WeightsCorrupt

ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4}
"""Size of a number by the name safetensors gives its type."""

_NUMPY_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4"}
_NCNN_MAGIC = "7767517"
_NCNN_FLOAT16 = 0x01306B47  # the tag that precedes weights stored as 16-bit floats; 0 precedes 32-bit ones


@dataclass(frozen=True, slots=True, kw_only=True)
class NcnnLayer:
    """A line of a `.param` file: `fields` are its parameters by number, as text."""

    kind: str
    fields: Mapping[int, str]

    def number(self, key: int, default: int | None = None) -> int:
        """A whole number that is not negative. Raises WeightsCorrupt, also where it is missing without default."""
        text = self.fields.get(key, "" if default is None else str(default))
        if not text.isascii() or not text.isdigit() or len(text) > 12:
            raise WeightsCorrupt(
                f"the ncnn layer list cannot be read: a {self.kind} has {key}={text[:40]}, not a whole number"
            )
        return int(text)


def read_ncnn(param: str, data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Tensors of an ncnn model under the names of `shapes`, which lists them in module order.

    Raises WeightsCorrupt when the layers are not those of the network, or the data is cut or too long.
    """
    return _named(ncnn_tensors(ncnn_layers(param), data), shapes)


def ncnn_layers(param: str) -> list[NcnnLayer]:
    """The layers of a `.param` file in order. Raises WeightsCorrupt."""
    lines = param.split("\n")
    if lines[0].strip() != _NCNN_MAGIC:
        raise WeightsCorrupt("the layer list does not start like an ncnn param file")
    try:
        return [_ncnn_layer(line.split()) for line in lines[2:] if line.strip()]
    except (ValueError, IndexError) as error:
        raise WeightsCorrupt(f"the ncnn layer list cannot be read: {error}") from error


def ncnn_tensors(layers: Sequence[NcnnLayer], data: bytes) -> list[Array]:
    """Weight and bias of every convolution, slopes of every PReLU, in order. Raises WeightsCorrupt."""
    reader = _NcnnData(data)
    tensors: list[Array] = []
    for layer in layers:
        if layer.kind == "Convolution":
            outputs, kernel, count = layer.number(0), layer.number(1), layer.number(6)
            inputs = count // max(outputs * kernel * kernel, 1)
            if inputs * outputs * kernel * kernel != count or count == 0:
                raise WeightsCorrupt(
                    f"the ncnn layer list cannot be read: a Convolution of {outputs}×{kernel}×{kernel} "
                    f"has {count} weights"
                )
            tensors.append(reader.tagged(count).reshape(outputs, inputs, kernel, kernel))
            tensors.append(reader.floats(outputs))
        elif layer.kind == "PReLU":
            tensors.append(reader.floats(layer.number(0)))
    reader.expect_end()
    return tensors


def as_floats(raw: bytes | memoryview, dtype: str) -> Array:
    """Little-endian numbers of a type in ITEM_BYTES as a flat float32 array, each rounded to the nearest."""
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # infinities are found by check_finite, with the name of the tensor
        return np.frombuffer(raw, _NUMPY_TYPES[dtype]).astype(np.float32, copy=False)


def check_finite(weights: Mapping[str, Array]) -> None:
    """Raises WeightsCorrupt, naming the first tensor that holds NaN or an infinity."""
    for name, tensor in weights.items():
        if not np.isfinite(tensor).all():
            raise WeightsCorrupt(f"tensor {name} holds values that are not finite numbers")


def check_shapes(weights: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises WeightsCorrupt, naming the first tensor that is missing, extra or of another shape."""
    for name, shape in shapes.items():
        if name not in weights:
            raise WeightsCorrupt(f"tensor {name} of shape {shape} is missing")
        if weights[name].shape != shape:
            raise WeightsCorrupt(f"tensor {name} has shape {weights[name].shape}, the network needs {shape}")
    if extra := sorted(set(weights) - set(shapes)):
        raise WeightsCorrupt(f"tensor {extra[0]} does not belong to the network")


def _ncnn_layer(words: list[str]) -> NcnnLayer:
    """From `kind name inputs outputs <blob names> key=value…`."""
    blobs = int(words[2]) + int(words[3])
    pairs = (word.partition("=") for word in words[4 + blobs :])
    return NcnnLayer(kind=words[0], fields={int(key): value for key, _, value in pairs})


def _named(tensors: list[Array], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    if len(tensors) != len(shapes):
        raise WeightsCorrupt(f"the file holds {len(tensors)} tensors, the network has {len(shapes)}")
    weights = dict(zip(shapes, tensors, strict=True))
    check_shapes(weights, shapes)
    return weights


class _NcnnData:
    """A cursor over the bytes of a `.bin` file."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
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

    def _take(self, count: int) -> memoryview:
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise WeightsCorrupt(f"the ncnn file ends {count - len(taken)} bytes early")
        self._at += count
        return taken


def parameter_count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """How many numbers the tensors hold together."""
    return sum(math.prod(shape) for shape in shapes.values())
