from __future__ import annotations

import struct

import numpy as np
import pytest

from enlarger.engine.networks.checkpoints import check_shapes, read_ncnn
from enlarger.errors import WeightsCorrupt

# Three convolutions with 27, 9 and 9 weights: odd counts, so 16-bit weights need two bytes of padding.
PARAM = """7767517
6 6
Input        picture 0 1 in
Convolution  first   1 1 in a 0=3 1=3 4=1 5=1 6=27
PReLU        slopes  1 1 a b 0=3
Split        twice   1 2 b c d
Convolution  second  1 1 c e 0=1 1=3 4=1 5=1 6=27 -23310=1,2.0e-01
Interp       up      1 1 d f 0=1 1=4.0e+00 2=4.0e+00
"""
SHAPES = {
    "a.weight": (3, 1, 3, 3),
    "a.bias": (3,),
    "b.weight": (3,),
    "c.weight": (1, 3, 3, 3),
    "c.bias": (1,),
}
FLOAT16 = struct.pack("<I", 0x01306B47)
FLOAT32 = struct.pack("<I", 0)


def tensors() -> dict[str, np.ndarray]:
    """Values that 16-bit floats hold exactly, each different."""
    values = iter(np.arange(1, 1000) / 8)
    return {
        name: np.array([next(values) for _ in range(np.prod(shape))], np.float32).reshape(shape)
        for name, shape in SHAPES.items()
    }


def ncnn_bytes(*, first_tag: bytes = FLOAT16, second_tag: bytes = FLOAT32) -> bytes:
    """A .bin file written by hand, the first convolution in 16 bits and the second in 32."""
    held = tensors()
    return b"".join(
        [
            first_tag + held["a.weight"].astype("<f2").tobytes() + b"\0\0",
            held["a.bias"].astype("<f4").tobytes(),
            held["b.weight"].astype("<f4").tobytes(),
            second_tag + held["c.weight"].astype("<f4").tobytes(),
            held["c.bias"].astype("<f4").tobytes(),
        ]
    )


def test_ncnn_tensors_come_back_under_the_names_of_the_network() -> None:
    read = read_ncnn(PARAM, ncnn_bytes(), SHAPES)
    assert list(read) == list(SHAPES)
    for name, tensor in tensors().items():
        assert read[name].dtype == np.float32
        np.testing.assert_array_equal(read[name], tensor)


@pytest.mark.parametrize("length", range(len(ncnn_bytes())))
def test_a_file_cut_anywhere_is_corrupt(length: int) -> None:
    with pytest.raises(WeightsCorrupt, match="bytes early"):
        read_ncnn(PARAM, ncnn_bytes()[:length], SHAPES)


@pytest.mark.parametrize(
    ("param", "data", "said"),
    [
        (PARAM, ncnn_bytes() + b"\0", "1 bytes more"),
        (PARAM, ncnn_bytes(second_tag=b"\x38\x34\x0d\x00"), "unknown form .*0x000d3438"),
        (PARAM.replace("7767517", "7767518"), ncnn_bytes(), "does not start like"),
        ("", ncnn_bytes(), "does not start like"),
        ("\x00\xff" * 40, ncnn_bytes(), "does not start like"),
        (PARAM.replace("1 1 in a", "one 1 in a"), ncnn_bytes(), "cannot be read"),
        (PARAM + "Convolution\n", ncnn_bytes(), "cannot be read"),
        (PARAM.replace(" 6=27\n", "\n"), ncnn_bytes(), "cannot be read"),
        (PARAM.replace(" 0=1 1=3", " 0=0 1=3"), ncnn_bytes(), "cannot be read"),
        (PARAM.replace(" 0=1 1=3", " 0=2 1=3"), ncnn_bytes(), "cannot be read"),
        (PARAM.replace("0=3\nSplit", "\nSplit"), ncnn_bytes(), "cannot be read"),
    ],
    ids=[
        "trailing byte", "unknown tag", "magic", "empty", "binary", "no number", "short line",
        "count missing", "no outputs", "uneven count", "slopes missing",
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_corrupt(param: str, data: bytes, said: str) -> None:
    with pytest.raises(WeightsCorrupt, match=said):
        read_ncnn(param, data, SHAPES)


def test_the_layers_must_be_those_of_the_network() -> None:
    with pytest.raises(WeightsCorrupt, match="holds 5 tensors, the network has 4"):
        read_ncnn(PARAM, ncnn_bytes(), dict(list(SHAPES.items())[:4]))
    with pytest.raises(WeightsCorrupt, match=r"b\.weight has shape"):
        read_ncnn(PARAM, ncnn_bytes(), SHAPES | {"b.weight": (4,)})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"b.weight": None}, r"tensor b\.weight of shape \(3,\) is missing"),
        ({"z.bias": np.zeros(1, np.float32)}, r"tensor z\.bias does not belong"),
        (
            {"c.bias": np.zeros((1, 1), np.float32)},
            r"tensor c\.bias has shape \(1, 1\), the network needs \(1,\)",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: dict[str, np.ndarray | None], said: str) -> None:
    check_shapes(tensors(), SHAPES)
    changed = {name: tensor for name, tensor in (tensors() | change).items() if tensor is not None}
    with pytest.raises(WeightsCorrupt, match=said):
        check_shapes(changed, SHAPES)
