"""safetensors: eight bytes with the length of a header, a JSON header, then the numbers of all tensors.

Written here rather than taken from the package of that name: it is short, bfloat16 needs care in NumPy anyway,
and every size is checked before memory is touched.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from enlarger.engine.networks.checkpoints import ITEM_BYTES, as_floats
from enlarger.engine.networks.ops import Array, Weights
from enlarger.errors import WeightsCorrupt

MAX_HEADER_BYTES = 16_000_000
_METADATA = "__metadata__"


def read_safetensors(data: bytes) -> dict[str, Array]:
    """Every tensor as float32. Raises WeightsCorrupt when the header and the bytes do not fit each other."""
    header, body = _split(data)
    entries = {name: _entry(name, entry) for name, entry in header.items() if name != _METADATA}
    tensors: dict[str, Array] = {}
    end = 0
    for name, (dtype, shape, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != end or stop > len(body):
            raise WeightsCorrupt(
                f"tensor {name} lies at bytes {start} to {stop}, where {end} is next and {len(body)} the end"
            )
        if stop - start != math.prod(shape) * ITEM_BYTES[dtype]:
            raise WeightsCorrupt(f"tensor {name} of shape {shape} in {dtype} has {stop - start} bytes")
        tensors[name] = as_floats(body[start:stop], dtype).reshape(shape)
        end = stop
    if end != len(body):
        raise WeightsCorrupt(f"{len(body) - end} bytes of the file belong to no tensor")
    return {name: tensors[name] for name in entries}


def write_safetensors(tensors: Weights) -> bytes:
    """The bytes of a file with `tensors` in float32."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + 4 * tensor.size
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of eight
    body = (np.ascontiguousarray(tensor, "<f4").tobytes() for tensor in tensors.values())
    return b"".join([struct.pack("<Q", len(text)), text, *body])


def _split(data: bytes) -> tuple[Mapping[str, object], memoryview]:
    if len(data) < 8:
        raise WeightsCorrupt("the safetensors file ends before its header")
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise WeightsCorrupt(
            f"the safetensors header claims {length} bytes; the file has {len(data)}, "
            f"and a header at most {MAX_HEADER_BYTES}"
        )
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise WeightsCorrupt(f"the safetensors header cannot be read: {error}") from error
    if not isinstance(header, dict):
        raise WeightsCorrupt("the safetensors header is no table of tensors")
    return cast("dict[str, object]", header), memoryview(data)[8 + length :]


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _entry(name: str, value: object) -> tuple[str, tuple[int, ...], int, int]:
    """dtype, shape, first byte, byte after the last."""
    entry = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    dtype, shape, offsets = (
        entry.get("dtype"),
        _counts(entry.get("shape")),
        _counts(entry.get("data_offsets")),
    )
    if shape is None or offsets is None or len(offsets) != 2 or len(shape) > 8:
        raise WeightsCorrupt(f"tensor {name} has no proper shape or place")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise WeightsCorrupt(f"tensor {name} has the type {dtype!r}; known are {', '.join(ITEM_BYTES)}")
    return dtype, shape, offsets[0], offsets[1]


def _counts(value: object) -> tuple[int, ...] | None:
    values = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(type(item) is int and 0 <= item < 2**48 for item in values):
        return None
    return tuple(cast("list[int]", values))
