from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.faces.alignment import applied, inverse, scaling
from enlarger.engine.faces.sampling import cubic, grid, linear, view
from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import Picture


def turned(degrees: float, scale: float, left: float, top: float) -> np.ndarray:
    c, s = scale * np.cos(np.radians(degrees)), scale * np.sin(np.radians(degrees))
    return np.array([[c, -s, left], [s, c, top]])


def test_values_at_pixel_centres_are_the_pixels() -> None:
    planes = np.random.default_rng(0).random((2, 9, 7), np.float32)
    x, y = grid(turned(0, 1, 0, 0), 0, 0, Size(7, 9))
    np.testing.assert_array_equal(cubic(planes, x, y), planes)
    np.testing.assert_array_equal(linear(planes, x, y), planes)


@pytest.mark.parametrize("factor", [2, 3, 7])
@pytest.mark.parametrize(
    ("sampled", "kind"), [(cubic, Image.Resampling.BICUBIC), (linear, Image.Resampling.BILINEAR)]
)
def test_between_pixels_the_values_are_those_of_pillow(sampled, kind, factor: int) -> None:  # type: ignore[no-untyped-def]
    plane = np.random.default_rng(1).random((20, 30), np.float32)
    wanted = np.asarray(Image.fromarray(plane).resize((30 * factor, 20 * factor), kind))
    found = sampled(
        plane[None], *grid(scaling(1 / factor, 1 / factor), 0, 0, Size(30 * factor, 20 * factor))
    )[0]
    inside = np.s_[3 * factor : -3 * factor, 3 * factor : -3 * factor]  # at the border Pillow weighs anew
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-5)


@pytest.mark.parametrize("scale", [0.23, 0.5, 0.99, 1.0, 1.7, 6.0])
@pytest.mark.parametrize("degrees", [0, 31, 90, -160])
def test_a_slope_keeps_its_value_at_every_scale_and_turn(scale: float, degrees: float) -> None:
    y, x = np.mgrid[0:300, 0:300] + 0.5
    slope = np.rint((x + 2 * y) * 65535 / 1000).astype(np.uint16)
    matrix = turned(degrees, scale, 0, 0)
    middle = applied(matrix, [(150.0, 150.0)])[0]
    matrix[:, 2] = 20 - middle  # the middle of the picture in the middle of the view
    seen = view(Picture.from_array(slope), matrix, Size(40, 40))[0]
    u, v = grid(inverse(matrix), 0, 0, Size(40, 40))
    assert np.abs(seen - (u + 2 * v) / 1000).max() < 1e-4


def test_a_view_of_a_large_face_is_averaged_and_not_picked_out() -> None:
    checks = ((np.indices((400, 400)).sum(axis=0) % 2) * 255).astype(np.uint8)
    seen = view(Picture.from_array(checks), turned(10, 0.25, 10, -10), Size(50, 50))
    assert np.abs(seen - 0.5).max() < 0.01


def test_beyond_the_border_the_outermost_pixels_go_on() -> None:
    picture = Picture.from_array(np.full((3, 2, 3), 77, np.uint8))
    for left in (-1e6, -20, 0, 20, 1e6):
        np.testing.assert_allclose(
            view(picture, turned(45, 8, left, left), Size(16, 16)), 77 / 255, atol=1e-6
        )


def test_a_view_of_sixteen_bits_and_of_eight_is_the_same() -> None:
    eight = np.random.default_rng(2).integers(0, 256, (40, 40, 3), np.uint8)
    matrix = turned(12, 1.5, 3, 2)
    views = [
        view(Picture.from_array(pixels), matrix, Size(30, 30))
        for pixels in (eight, eight.astype(np.uint16) * 257)
    ]
    np.testing.assert_allclose(*views, atol=1e-6)


def test_only_the_rows_that_are_seen_are_read() -> None:
    read: list[tuple[int, int]] = []
    pixels = np.zeros((1000, 100, 1), np.uint8)

    def rows(top: int, bottom: int) -> np.ndarray:
        read.append((top, bottom))
        return pixels[top:bottom]

    picture = Picture(size=Size(100, 1000), colours=1, has_alpha=False, depth=8, rows=rows)
    view(picture, np.array([[1.0, 0, 0], [0, 1.0, -500]]), Size(64, 64))
    assert min(top for top, _ in read) > 480
    assert max(bottom for _, bottom in read) < 590
