"""Linear light against its closed form, bleed against a brute-force search for the nearest opaque pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enlarger.engine.pictures import colour, vips


def test_linear_light_follows_the_standard() -> None:
    encoded = np.linspace(0, 1, 4097)
    linear = np.array([e / 12.92 if e <= 0.04045 else ((e + 0.055) / 1.055) ** 2.4 for e in encoded])
    assert np.abs(colour.srgb_to_linear(encoded.astype(np.float32)) - linear).max() < 1e-6
    assert np.abs(colour.linear_to_srgb(linear.astype(np.float32)) - encoded).max() < 1e-6
    assert colour.srgb_to_linear(encoded.astype(np.float32)).dtype == np.float32


def test_values_outside_of_the_range_stay_finite() -> None:
    wild = np.array([-0.5, -1e-3, 1.5, 4.0], np.float32)
    assert np.abs(colour.linear_to_srgb(colour.srgb_to_linear(wild)) - wild).max() < 1e-5


@st.composite
def pictures_with_holes(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    channels, dtype = draw(st.sampled_from([2, 4])), draw(st.sampled_from([np.uint8, np.uint16]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = random.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)
    pixels[:, :, -1] *= random.random((height, width)) < draw(st.sampled_from([0.0, 0.003, 0.1, 0.9, 1.0]))
    return pixels


@given(pictures_with_holes())
def test_bleed_is_exact_where_anything_is_seen_and_invents_no_new_extremes(pixels: np.ndarray) -> None:
    before, bled = pixels.copy(), colour.bleed(pixels)
    seen = pixels[:, :, -1] > 0
    assert np.array_equal(pixels, before)
    assert bled.dtype == pixels.dtype
    assert np.array_equal(bled[seen], pixels[seen][:, :-1])
    if seen.any():
        assert (bled >= pixels[seen][:, :-1].min(axis=0)).all()
        assert (bled <= pixels[seen][:, :-1].max(axis=0)).all()
    else:
        assert np.array_equal(bled, pixels[:, :, :-1])


def test_hidden_colour_becomes_that_of_the_nearest_edge() -> None:
    pixels = np.zeros((120, 120, 4), np.uint8)
    pixels[:, :10] = (250, 10, 10, 255)
    pixels[:, -10:] = (10, 10, 250, 255)
    pixels[:, 10:-10, 1] = 200  # a colour nobody sees
    bled = colour.bleed(pixels)
    assert (bled[:, :18] == (250, 10, 10)).all()
    assert (bled[:, -18:] == (10, 10, 250)).all()
    assert (bled[:, :, 1] == 10).all()


@pytest.mark.parametrize("depth", [8, 16])
def test_flatten_rounds_to_the_nearest_level(depth: int) -> None:
    top_value = 2**depth - 1
    dtype = np.uint8 if depth == 8 else np.uint16
    pixels = np.random.default_rng(2).integers(0, top_value, (64, 64, 4), dtype, endpoint=True)
    exact = pixels[:, :, :3].astype(float)
    alpha = pixels[:, :, 3:] / top_value
    behind = np.array([0x12, 0x80, 0xFE]) * (top_value // 255)
    flat = vips.to_pixels(colour.flatten(vips.from_pixels(pixels), "#1280fe", depth))
    assert np.abs(flat - (exact * alpha + behind * (1 - alpha))).max() <= 0.5 + 1e-6
    assert flat.dtype == dtype


def test_a_profile_is_known_by_what_it_is_for(profiles: dict[str, bytes]) -> None:
    found = {name: colour.channels_of(icc) for name, icc in profiles.items()}
    assert found == {"none": 0, "srgb": 3, "wide": 3, "gray": 1, "cmyk": 4}
    for name in ("wide", "gray", "cmyk"):
        assert colour.channels_of(profiles[name][:150]) == 0
        assert colour.channels_of(profiles[name][:132] + b"\xff" * 400) == 0


@pytest.mark.parametrize("name", ["wide", "gray"])
@pytest.mark.parametrize("alpha", [False, True])
def test_conversion_to_srgb_agrees_with_another_library_and_keeps_alpha(
    name: str, alpha: bool, profiles: dict[str, bytes], to_srgb
) -> None:
    channels = (1 if name == "gray" else 3) + alpha
    pixels = np.random.default_rng(4).integers(0, 256, (16, 16, channels), np.uint8)
    opaque = pixels[:, :, : channels - alpha]
    image = vips.with_blob(vips.from_pixels(pixels), "icc-profile-data", profiles[name])
    converted = vips.to_pixels(colour.to_srgb(image, 8))
    expected = to_srgb(Image.fromarray(opaque.squeeze()), profiles[name])
    assert np.abs(converted[:, :, :3].astype(int) - expected).max() <= 2
    if alpha:
        assert np.array_equal(converted[:, :, 3], pixels[:, :, -1])
