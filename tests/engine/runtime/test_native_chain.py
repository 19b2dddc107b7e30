"""Compact networks in the native kernel, on portable tiles and on vectors where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.geometry import Size
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.ops import Array, Weights
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.runtime import Session, native, open_runtime
from enlarger.engine.runtime.native.library import AMX, AVX512, PORTABLE, Library
from enlarger.engine.runtime.native.session import NativeSession
from enlarger.errors import RuntimeUnavailable

from . import oracles
from .oracles import decibels, printed, rounded, seeded

NET = ARCHITECTURES["compact"]
SMALL = {"features": 32, "convs": 3, "scale": 4}
WIDE = {"features": 64, "convs": 2, "scale": 4}

every_form = pytest.mark.parametrize("hyper", [SMALL, WIDE], ids=["small", "wide"])


def random_weights(hyper: dict[str, int]) -> dict[str, Array]:
    """Seeded; slopes from −0.5 to 1.5, so that none is like another and some turn the sign."""
    random = np.random.default_rng(7)
    return {
        name: (
            random.uniform(-0.5, 1.5, shape)
            if name.endswith("weight") and len(shape) == 1
            else random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 100)
        ).astype(np.float32)
        for name, shape in NET.shapes(hyper).items()
    }


def opened(
    library: Library,
    hyper: dict[str, int],
    tiles: int,
    weights: Weights | None = None,
    threads: int = 2,
) -> NativeSession:
    return native.open_session(
        library, NET, hyper, weights or random_weights(hyper), threads=threads, tiles=tiles
    )


def exact(hyper: dict[str, int], weights: Weights | None = None) -> Session:
    return oracles.exact(NET, hyper, weights or random_weights(hyper))


def emulated(hyper: dict[str, int], weights: Weights, values: Array) -> Array:
    """What the kernel promises, in torch's f64: maps in bf16, and all weights but the first convolution's."""
    import torch

    tensors = {name: torch.from_numpy(tensor).double() for name, tensor in weights.items()}
    x = torch.from_numpy(values).double()
    out = x
    for index in range(hyper["convs"] + 2):
        weight = tensors[f"body.{2 * index}.weight"]
        out = torch.nn.functional.conv2d(
            out, printed(weight) if index else weight, tensors[f"body.{2 * index}.bias"], padding=1
        )
        if index <= hyper["convs"]:
            out = torch.nn.functional.prelu(out, tensors[f"body.{2 * index + 1}.weight"])
            out = rounded(out)
    shuffled = torch.nn.functional.pixel_shuffle(out, 4)
    return (shuffled + torch.nn.functional.interpolate(x, scale_factor=4)).float().numpy()


@pytest.mark.torch
@every_form
def test_the_net_is_what_its_roundings_make_of_it(
    hyper: dict[str, int], library: Library, tiles: int
) -> None:
    found = opened(library, hyper, tiles).run("net", seeded(33, 41))
    assert decibels(found, emulated(hyper, random_weights(hyper), seeded(33, 41))) > 66


@every_form
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 19), (17, 2), (9, 33)])
def test_any_size_stays_close_to_f32(
    height: int, width: int, hyper: dict[str, int], library: Library, tiles: int
) -> None:
    values = seeded(height, width)
    found = opened(library, hyper, tiles).run("net", values)
    expected = exact(hyper).run("net", values)
    assert found.shape == expected.shape == (1, 3, 4 * height, 4 * width)
    assert decibels(found, expected) > 45


@pytest.mark.shared
def test_real_weights_give_the_picture_of_f32(
    library: Library, tiles: int, samples: Path, psnr: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    spec = MODELS["realesr-animevideov3"]
    weights = load_weights(spec).tensors
    with Image.open(samples / "OST_009.png") as photo:
        pixels = np.asarray(photo.convert("RGB").crop((100, 100, 164, 148)))
    values = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255
    found, expected = (
        np.rint(np.clip(session.run("net", values), 0, 1) * 255).astype(np.uint8)
        for session in (opened(library, spec.hyper, tiles, weights), exact(spec.hyper, weights))
    )
    assert psnr(found, expected) >= 52


def test_threads_do_not_show_in_the_result(library: Library, tiles: int) -> None:
    one, many = (opened(library, SMALL, tiles, threads=threads) for threads in (1, 5))
    assert one.grid(Size(61, 40)) != many.grid(Size(61, 40))
    np.testing.assert_array_equal(many.run("net", seeded(40, 61)), one.run("net", seeded(40, 61)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_of_a_window_is_written_in_place(dtype: type, channels: int, library: Library) -> None:
    session, values = opened(library, SMALL, PORTABLE), seeded(23, 37)
    top = np.iinfo(dtype).max
    floats = np.clip(session.run("net", values)[0].transpose(1, 2, 0), 0, 1)
    if channels == 1:
        floats = floats @ np.array([[0.299], [0.587], [0.114]], np.float32)
    # A rectangle that begins and ends in the middle of a source pixel's sixteen.
    into = np.full((70, 90, channels), 7, dtype)
    assert session.run_window(values, (6, 13), into, lambda share: None)
    expected = np.rint(floats[6 : 6 + 70, 13 : 13 + 90] * np.float32(top))
    assert np.abs(into.astype(int) - expected.astype(int)).max() <= (0 if channels == 3 else 1)


def test_values_that_are_no_numbers_are_told(library: Library, tiles: int) -> None:
    weights = random_weights(SMALL)
    broken = weights | {"body.8.bias": np.full_like(weights["body.8.bias"], np.nan)}
    into = np.empty((32, 32, 3), np.uint8)
    assert opened(library, SMALL, tiles).run_window(seeded(8, 8), (0, 0), into, lambda share: None)
    session = opened(library, SMALL, tiles, broken)
    assert not session.run_window(seeded(8, 8), (0, 0), into, lambda share: None)


def test_it_is_computed_with_vectors_and_left_to_openvino_with_amx() -> None:
    assert native.computes(NET, WIDE, "bf16", AVX512)
    assert not native.computes(NET, WIDE, "bf16", AMX)
    assert not native.computes(NET, WIDE, "f32", AVX512)
    assert not native.computes(NET, WIDE | {"features": 48}, "bf16", AVX512)
    assert not native.computes(NET, WIDE | {"scale": 2}, "bf16", AVX512)
    choice = native.chosen()
    if choice.tiles is not None:
        with pytest.raises(RuntimeUnavailable, match="not compact of this form"):
            open_runtime("native").open_session(
                NET, WIDE | {"scale": 2}, random_weights(WIDE), precision="bf16", threads=1
            )
