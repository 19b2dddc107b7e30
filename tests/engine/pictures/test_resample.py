"""The resize, against Pillow's Lanczos in floats and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import open_canvas
from enlarger.engine.pictures.resample import resample


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    size = Size(pixels.shape[1], pixels.shape[0])
    canvas = open_canvas(Size(width, height), pixels.shape[2], 8 * pixels.itemsize)
    resample(lambda top, bottom: pixels[top:bottom], size, canvas)
    return canvas.array


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((64, 48), (32, 24)),
        ((64, 48), (160, 120)),
        ((61, 47), (37, 97)),
        ((301, 533), (120, 213)),
        ((700, 40), (7, 399)),
        ((50, 900), (49, 901)),
        ((100, 100), (1, 1)),
        ((1, 1), (9, 5)),
        ((2, 3), (1, 40)),
    ],
)
def test_it_is_the_lanczos_of_pillow(before: tuple[int, int], after: tuple[int, int]) -> None:
    # Levels from the middle half: where Lanczos overshoots the range, Pillow's floats would not be clamped.
    pixels = np.random.default_rng(3).integers(20_000, 45_000, (before[1], before[0], 2)).astype(np.uint16)
    got = resized(pixels, *after).astype(float) / 65_535
    for channel in range(2):
        plane = Image.fromarray(pixels[:, :, channel].astype(np.float32) / 65_535, "F")
        wanted = np.asarray(plane.resize(after, Image.Resampling.LANCZOS))
        np.testing.assert_allclose(got[:, :, channel], wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1])
def test_halving_removes_a_sine_that_would_alias(axis: int) -> None:
    amplitude = 20_000
    wave = 32_768 + amplitude * np.sin(2 * np.pi * 0.40 * np.arange(1024) + 0.3)
    pixels = np.repeat(wave[None, :], 8, axis=0) if axis == 1 else np.repeat(wave[:, None], 8, axis=1)
    got = resized(
        np.rint(pixels).astype(np.uint16)[:, :, None], *(max(side // 2, 1) for side in pixels.shape[::-1])
    )
    inner = got[:, 20:-20] if axis == 1 else got[20:-20]  # the edges see a cut kernel
    assert np.abs(inner.astype(float) - 32_768).max() < 0.02 * amplitude


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90),
    st.sampled_from([np.uint8, np.uint16]), st.floats(0, 1),
)  # fmt: skip
def test_a_constant_stays_constant(
    width: int, height: int, wide: int, high: int, dtype: type, share: float
) -> None:
    level = round(share * int(np.iinfo(dtype).max))
    got = resized(np.full((height, width, 1), level, dtype), wide, high)
    assert got.shape == (high, wide, 1)
    assert set(np.unique(got).tolist()) == {level}


def test_the_same_size_is_the_same_picture() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (70, 300, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resized(pixels, 300, 70), pixels)


def test_a_mirrored_picture_gives_the_mirrored_result() -> None:
    pixels = np.random.default_rng(5).integers(0, 65_536, (90, 70, 1)).astype(np.uint16)
    for wide, high in ((33, 41), (140, 225)):
        straight, mirrored = resized(pixels, wide, high), resized(pixels[::-1, ::-1], wide, high)
        np.testing.assert_allclose(mirrored[::-1, ::-1].astype(int), straight.astype(int), atol=1)
