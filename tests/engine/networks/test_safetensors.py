"""safetensors files, against the package that defines the format."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as official
from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine.networks.safetensors import read_safetensors, write_safetensors
from enlarger.errors import WeightsCorrupt

TENSORS = {
    "w": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.array([0.5, -2], np.float16),
    "double": np.array(1.25),
    "counter": np.array([7], np.int64),
}


def file(header: Any, body: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(start: int, end: int, shape: Any = (1,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_file_of_the_package_is_read() -> None:
    found = read_safetensors(official.save(TENSORS, metadata={"made": "by hand"}))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor.astype(np.float32))


def test_the_package_reads_what_is_written() -> None:
    tensors = {"b": np.zeros((2, 3), np.float32), "a": np.arange(24, dtype=np.float32).reshape(2, 3, 4).T}
    found = official.load(write_safetensors(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    data = file({"w": entry(0, 4, [2], "BF16")}, struct.pack("<HH", 0x3F80, 0xC000))
    assert read_safetensors(data)["w"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        file({"w": entry(0, 4)}, bytes(4), length=10**15),
        file(b"[1]"),
        file(b"{"),
        file(b"\xff\xff"),
        file(b"[" * 100_000),
        file(b'{"w":1,"w":' + json.dumps(entry(0, 4)).encode() + b"}", bytes(4)),
        file({"w": 1}),
        file({"w": {"dtype": "F32", "shape": [1]}}),
        file({"w": entry(0, 4, dtype="F4")}, bytes(4)),
        file({"w": entry(0, 4, dtype=["F32"])}, bytes(4)),
        file({"w": entry(0, 4, [2])}, bytes(4)),
        file({"w": entry(0, 4, [-1])}, bytes(4)),
        file({"w": entry(0, 4, [True])}, bytes(4)),
        file({"w": entry(0, 4, [1] * 9)}, bytes(4)),
        file({"w": entry(0, 2**40, [2**38])}, bytes(4)),
        file({"w": entry(0, 8, [2])}, bytes(4)),
        file({"w": entry(4, 8)}, bytes(8)),
        file({"w": entry(0, 4)}, bytes(8)),
        file({"w": entry(0, 4), "v": entry(0, 4)}, bytes(4)),
        file({"w": entry(0, 4), "v": entry(2, 6)}, bytes(6)),
        file({"w": entry(4, 0)}, bytes(4)),
        file({"w": entry(0, 4), "v": entry(8, 12)}, bytes(12)),
    ],
)
def test_a_header_that_does_not_fit_its_bytes_is_refused(data: bytes) -> None:
    with pytest.raises(WeightsCorrupt):
        read_safetensors(data)


DATA = official.save({"w": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float16)})


@given(at=st.integers(0, len(DATA) - 1), byte=st.integers(0, 255), cut=st.booleans())
def test_any_change_of_a_file_gives_arrays_or_the_error(at: int, byte: int, cut: bool) -> None:
    changed = bytearray(DATA)
    changed[at : None if cut else at + 1] = bytes([byte])
    try:
        found = read_safetensors(bytes(changed))
    except WeightsCorrupt:
        return
    assert sum(array.size for array in found.values()) <= len(DATA)
