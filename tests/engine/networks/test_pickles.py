"""Checkpoints of PyTorch are read as torch reads them, and nothing in them is ever executed."""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine.networks.torch_files import LEGACY_START, read_checkpoint
from enlarger.errors import WeightsCorrupt

FLOATS = np.arange(6, dtype="<f4").tobytes()
"""The storage "0" of the hand-made checkpoints."""


def zipped(program: bytes, *, storage: bytes = FLOATS, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint around the pickle `program`, put together without torch."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def several(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def storage(
    count: bytes = number(6), key: bytes = text("0"), kind: bytes = b"ctorch\nFloatStorage\n"
) -> bytes:
    return several(text("storage"), kind, key, text("cpu"), count) + b"Q"


def tensor(*arguments: bytes) -> bytes:
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + several(*arguments) + b"R"


def state(value: bytes, key: bytes = text("w")) -> bytes:
    """The program of a dictionary of one entry."""
    return b"\x80\x02}" + key + value + b"s."


ROW = (several(number(6)), several(number(1)))
"""Shape and strides of all six numbers in a row."""

GOOD = tensor(storage(), number(0), *ROW)


def test_a_checkpoint_put_together_by_hand_is_read() -> None:
    view = tensor(storage(), number(1), several(number(2), number(2)), several(number(1), number(2)))
    (found,) = read_checkpoint(zipped(state(view))).values()
    assert found.tolist() == [[1, 3], [2, 4]]


# --- what torch writes -------------------------------------------------------------------------------------


def saved(value: Any, *, is_legacy: bool = False) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not is_legacy)
    return file.getvalue()


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def save(request: pytest.FixtureRequest) -> Callable[[Any], bytes]:
    return lambda value: saved(value, is_legacy=request.param)


@pytest.mark.torch
def test_tensors_of_every_kind_equal_those_of_torch(save: Callable[[Any], bytes]) -> None:
    import torch

    torch.manual_seed(1)
    whole = torch.randn(4, 5, 6)
    tensors = {
        "plain": whole.clone(),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "transposed": torch.randn(4, 3).t(),
        "view with offset": whole[1:3, 2:, ::2],
        "other view": whole[0],
        "scalar": torch.tensor(2.5),
        **{str(kind): torch.randn(7).to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64)},
        "counter": torch.tensor(12345),
    }
    found = read_checkpoint(save(tensors))
    assert found.keys() == tensors.keys()
    for name, expected in tensors.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], expected.detach().float().numpy(), err_msg=name)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("wrap", "state_key"),
    [
        (lambda weights: weights, ""),
        (lambda weights: {"params": weights}, ""),
        (lambda weights: {"params": {"w": None}, "params_ema": weights}, ""),
        (lambda weights: {"params": weights, "params_ema": {"w": None}}, "params"),
        (lambda weights: {"epoch": 3, "loss": 0.5, "state_dict": weights}, ""),
        (lambda weights: {f"module.{name}": tensor for name, tensor in weights.items()}, ""),
    ],
)
def test_weights_are_found_where_training_programs_put_them(
    save: Callable[[Any], bytes], wrap: Callable[[Any], Any], state_key: str
) -> None:
    import torch

    weights = torch.nn.Conv2d(3, 2, 1).state_dict()  # an OrderedDict with attributes
    found = read_checkpoint(save(wrap(weights)), state_key)
    assert {name: array.shape for name, array in found.items()} == {"weight": (2, 3, 1, 1), "bias": (2,)}


@pytest.mark.torch
def test_a_whole_module_is_refused_by_the_name_of_its_class(save: Callable[[Any], bytes]) -> None:
    import torch

    with pytest.raises(WeightsCorrupt, match=r"torch\.nn\.modules\.conv\.Conv2d"):
        read_checkpoint(save(torch.nn.Conv2d(3, 2, 1)))


@pytest.mark.torch
@pytest.mark.parametrize("wrong", [{"params": 1}, {}, {"w": [1]}, [1, 2], None])
def test_a_checkpoint_without_tensors_by_name_is_refused(save: Callable[[Any], bytes], wrong: Any) -> None:
    with pytest.raises(WeightsCorrupt):
        read_checkpoint(save(wrong))


# --- what an attacker writes -------------------------------------------------------------------------------


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_live_payload_is_refused_and_never_runs(tmp_path: Path, protocol: int) -> None:
    proof = tmp_path / "ran"
    program = pickle.dumps({"w": Calls(os.mkdir, str(proof))}, protocol=protocol)
    for data in (zipped(program), legacy(program)):
        with pytest.raises(WeightsCorrupt, match=r"posix\.mkdir|nt\.mkdir" if protocol else "PUT"):
            read_checkpoint(data)
    assert not proof.exists()
    pickle.loads(program)
    assert proof.exists(), "the payload was not live, so that the test showed nothing"


def legacy(program: bytes) -> bytes:
    parts = (1001, {"little_endian": True, "protocol_version": 1001})
    return LEGACY_START + b"".join(pickle.dumps(part, protocol=2) for part in parts) + program


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (pickle.dumps(Calls(eval, "1")), r"builtins\.eval"),
        (pickle.dumps(Calls(exec, "1")), r"builtins\.exec"),
        (pickle.dumps(Calls(getattr, "a", "b")), r"builtins\.getattr"),
        (pickle.dumps(Calls(__import__, "os")), r"builtins\.__import__"),
        (pickle.dumps(Calls(subprocess.Popen, ["true"])), r"subprocess\.Popen"),
        (pickle.dumps(Calls(pickle.loads, b"")), r"_pickle\.loads"),
        (pickle.dumps(collections.Counter("a")), r"collections\.Counter"),
        (b"ctorch.storage\n_load_from_bytes\n(tR.", r"torch\.storage\._load_from_bytes"),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", r"numpy\.core\.multiarray\._reconstruct"),
        # A dotted name reaches attributes of what is allowed in Python's own reader.
        (
            b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
            r"collections\.OrderedDict\.__init__",
        ),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n.", r"__globals__"),
        (b"(ios\nsystem\n.", "INST"),
        (b"(cos\nsystem\no.", r"os\.system"),
        (b"(ccollections\nOrderedDict\no.", "OBJ"),
        (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"\x80\x04ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"),
        (b"\x82\x01.", "EXT1"),
        (b"\x80\x05\x96" + b"\xff" * 7 + b"\x00.", "BYTEARRAY8"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"P0\n.", "PERSID"),
    ],
)
def test_what_is_not_needed_for_weights_is_refused_by_name(program: bytes, named: str) -> None:
    with pytest.raises(WeightsCorrupt, match=named):
        read_checkpoint(zipped(program))


@pytest.mark.parametrize(
    "program",
    [
        # Calls of what is allowed, and of what is not a function.
        b"ctorch\nFloatStorage\n)R.",
        b"X\x01\x00\x00\x00a)R.",
        b"ccollections\nOrderedDict\n]R.",
        b"ccollections\nOrderedDict\n" + several(text("abc")) + b"R.",
        b"ccollections\nOrderedDict\n" + several(b"](" + text("abc") + b"e") + b"R.",
        b"ctorch._utils\n_rebuild_parameter\n" + several(text("a")) + b"R.",
        tensor() + b".",
        tensor(text("0"), number(0), *ROW) + b".",
        # Insides of things that have none.
        b"ccollections\nOrderedDict\n}b.",
        state(tensor(storage(), number(0), *ROW) + b"}b"),
        b"}]b.",
        # Persistent ids.
        b"NQ.",
        several(text("module"), text("a"), text("b"), text("c"), number(1)) + b"Q.",
        storage(kind=text("torch FloatStorage")) + b".",
        storage(kind=b"ccollections\nOrderedDict\n") + b".",
        storage(count=b"\x88") + b".",
        storage(count=number(-1)) + b".",
        storage(key=b"]") + b".",
        storage() + storage(count=number(5)) + b".",
        # Stack, marks and memo.
        b".",
        b"0.",
        b"}(s.",
        b"t.",
        b"h\x07.",
        b"q\x07.",
        b"\x86.",
        b"\x80\x02}",
        b"}" + text("a") + b"(u.",
        b"}(" + text("a") + b"u.",
        b"Na.",
        b"NNNs.",
        b"}" + text("w") + GOOD + b"s(.",
        # Keys that are expensive or impossible to hash, and numbers that are expensive to print.
        b"}" + b")" + b"2\x86" * 64 + b"Ns.",
        b"}]Ns.",
        b"I" + b"9" * 5000 + b"\n.",
        b"S'\\o'\n.",
        b"\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000 + b".",
        b"N2" * 300_000 + b".",
        b"\xff.",
    ],
)
def test_a_damaged_or_hostile_program_is_refused(program: bytes) -> None:
    with pytest.raises(WeightsCorrupt):
        read_checkpoint(zipped(program))


@pytest.mark.parametrize(
    "view",
    [
        tensor(storage(), number(1), *ROW),
        tensor(storage(), number(-1), several(number(2)), several(number(1))),
        tensor(storage(), number(5), several(number(2)), several(number(-1))),
        tensor(storage(), number(0), several(number(2), number(2)), several(number(1))),
        tensor(storage(), number(0), several(number(10**9), number(10**9)), several(number(0), number(0))),
        tensor(storage(), number(0), several(number(0)), several(number(1))),
        tensor(storage(), number(0), several(number(7)), several(number(0))),
        tensor(storage(), number(0), several(text("6")), several(number(1))),
        tensor(storage(), number(0), *(several(*[number(1)] * 9),) * 2),
        tensor(storage(), b"G" + struct.pack(">d", 0.0), *ROW),
        tensor(storage(), b"\x88", several(number(5)), several(number(1))),
        tensor(storage(count=number(7)), number(0), several(number(7)), several(number(1))),
        tensor(storage(count=number(5)), number(0), several(number(5)), several(number(1))),
        tensor(storage(count=number(10**12)), number(0), *ROW),
        tensor(storage(key=text("../data/0")), number(0), *ROW),
        tensor(storage(kind=b"ctorch\nDoubleStorage\n"), number(0), *ROW),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(view: bytes) -> None:
    with pytest.raises(WeightsCorrupt):
        read_checkpoint(zipped(state(view)))


def test_many_tensors_over_the_same_numbers_are_refused_before_they_take_memory() -> None:
    big = np.zeros(100_000, "<f4").tobytes()
    view = tensor(storage(count=number(100_000)), number(0), several(number(100_000)), several(number(1)))
    program = b"}(" + b"".join(text(f"w{index}") + view for index in range(1000)) + b"u."
    with pytest.raises(WeightsCorrupt, match="400000000 bytes of a file"):
        read_checkpoint(zipped(program, storage=big))


def test_deep_nesting_ends_in_an_answer() -> None:
    with pytest.raises(WeightsCorrupt):
        read_checkpoint(zipped(b"N" + b"\x85" * 400_000 + b"."))


def test_a_compressed_member_is_refused_unread() -> None:
    with pytest.raises(WeightsCorrupt, match="compressed"):
        read_checkpoint(zipped(state(b"N"), compression=zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
def test_a_member_that_only_says_it_is_compressed_is_refused_too(method: int) -> None:
    data = zipped(state(GOOD))
    stored = b"PK\x01\x02\x14\x03\x14\x00\x00\x00\x00\x00"
    assert stored in data
    with pytest.raises(WeightsCorrupt, match="compressed"):
        read_checkpoint(data.replace(stored, stored[:10] + struct.pack("<H", method)))


def test_members_that_lie_inside_each_other_do_not_multiply() -> None:
    """Each member of such an archive is as long as it says, but together they are longer than the file."""
    payload = bytes(40_000)
    inner = zipfile.ZipInfo("archive/data/01")
    inner.CRC, inner.file_size, inner.compress_size = zlib.crc32(payload), len(payload), len(payload)
    outer = inner.FileHeader() + bytes(-len(inner.FileHeader()) % 4) + payload
    views = (
        text(f"w{key}") + tensor(storage(number(size), text(key)), number(0), several(number(size)), ROW[1])
        for key, size in (("0", len(outer) // 4), ("01", 10_000))
    )
    file = io.BytesIO(zipped(b"}(" + b"".join(views) + b"u.", storage=outer))
    with zipfile.ZipFile(file, "a") as archive:
        around = archive.getinfo("archive/data/0")
        inner.header_offset = around.header_offset + len(around.FileHeader())
        archive.writestr("archive/last", b"")  # so that the directory is written anew, with one entry more
        archive.filelist.append(inner)
    with pytest.raises(WeightsCorrupt, match="80048 bytes of a file of 4"):
        read_checkpoint(file.getvalue())


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"<!DOCTYPE html>", LEGACY_START]
)
def test_a_file_that_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(WeightsCorrupt):
        read_checkpoint(data)


@given(at=st.integers(0, len(GOOD) + 6), byte=st.integers(0, 255), cut=st.booleans())
def test_any_change_of_a_program_gives_arrays_or_the_error(at: int, byte: int, cut: bool) -> None:
    program = bytearray(state(GOOD))
    program[at : None if cut else at + 1] = bytes([byte])
    only_arrays_or_the_error(zipped(bytes(program)))


@pytest.mark.torch
@pytest.mark.parametrize("is_legacy", [False, True])
def test_any_change_of_a_file_gives_arrays_or_the_error(is_legacy: bool) -> None:
    import torch

    data = saved({"params": {"w": torch.zeros(2, 3).half(), "b": torch.zeros(3)}}, is_legacy=is_legacy)

    @given(at=st.integers(0, len(data) - 1), byte=st.integers(0, 255), cut=st.booleans())
    def holds(at: int, byte: int, cut: bool) -> None:
        changed = bytearray(data)
        changed[at : None if cut else at + 1] = bytes([byte])
        only_arrays_or_the_error(bytes(changed))

    holds()


def only_arrays_or_the_error(data: bytes) -> None:
    try:
        found = read_checkpoint(data)
    except WeightsCorrupt:
        return
    assert all(array.dtype == np.float32 and array.size <= 9 for array in found.values())
