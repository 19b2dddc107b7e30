"""A patch lands where it belongs. The face is redrawn as waves, whose value at each pixel of the result is known."""

from __future__ import annotations

import numpy as np
import pytest

from enlarger.engine.faces.alignment import Affine, alignment, chained, factor, inverse, scaling
from enlarger.engine.faces.face import Face
from enlarger.engine.faces.mask import ellipse
from enlarger.engine.faces.paste import Rival, covered, paste
from enlarger.engine.faces.patch import Patch, gray, matched, patched, shown_box
from enlarger.engine.faces.sampling import grid, linear
from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import Canvas, Picture, open_canvas
from enlarger.engine.pictures.resample import resample
from enlarger.engine.tiles import Watch
from enlarger.errors import Cancelled

from .stand_ins import face_at, wave_at, waves

SIZE = Size(200, 160)
BLANK = np.full((3, 512, 512), 0.05, np.float32)
MASK = ellipse()


def canvas_of(scale: float, depth: int = 8, colours: int = 3) -> Canvas:
    canvas = open_canvas(Size(round(SIZE.width * scale), round(SIZE.height * scale)), colours, depth)
    canvas.array[:] = canvas.top_value // 20
    return canvas


def to_crop(face: Face, canvas: Canvas) -> Affine:
    enlargement = scaling(canvas.size.width / SIZE.width, canvas.size.height / SIZE.height)
    return chained(inverse(enlargement), alignment(face))


def redrawn(matrix: Affine, period: float = 64.0, network: object = None) -> Patch:
    return patched(BLANK, waves(period).transpose(2, 0, 1), MASK, matrix, network)  # type: ignore[arg-type]


def off(canvas: Canvas, matrix: Affine, period: float = 64.0, strength: float = 1.0) -> float:
    """Root mean square distance from what the canvas should show, in levels of 255, where the mask is full."""
    u, v = grid(matrix, 0, 0, canvas.size)
    inside = linear(MASK[None], u, v)[0] == 1
    assert inside.sum() > 100
    before = canvas.top_value // 20 / canvas.top_value
    wanted = before + strength * (wave_at(u, v, period) - before)
    found = canvas.array.astype(float) / canvas.top_value
    return float(np.sqrt(np.square(found - wanted[:, :, None])[inside].mean()) * 255)


@pytest.mark.parametrize("tilt", [0, 33, 90, -170])
@pytest.mark.parametrize("scale", [0.5, 1, 2, 2.5, 4, 7.3])
@pytest.mark.parametrize("width", [40, 90])
def test_every_scale_and_tilt_puts_the_face_where_it_was(width: float, scale: float, tilt: float) -> None:
    canvas = canvas_of(scale)
    matrix = to_crop(face_at(103.3, 77.7, width, tilt), canvas)
    # Waves of 16 output pixels at least: half a pixel of shift would be off by 5 levels and more.
    period = max(64.0, 16 * factor(matrix))
    paste(redrawn(matrix, period), canvas, 1.0, (), Watch())
    assert off(canvas, matrix, period) < 1.0


def test_sixteen_bits_are_drawn_as_finely_as_they_are_kept() -> None:
    canvas = canvas_of(4, depth=16)
    matrix = to_crop(face_at(100, 80, 69.25), canvas)  # one pixel of the crop a pixel of the canvas
    paste(redrawn(matrix), canvas, 1.0, (), Watch())
    assert off(canvas, matrix) < 0.05


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_strength_is_a_share_of_the_face(strength: float) -> None:
    canvas = canvas_of(2.5)
    matrix = to_crop(face_at(100, 80, 80), canvas)
    paste(redrawn(matrix), canvas, strength, (), Watch())
    assert off(canvas, matrix, strength=strength) < 1.0


def test_outside_the_mask_nothing_changes() -> None:
    canvas = canvas_of(2)
    matrix = to_crop(face_at(60, 80, 80, tilt=20), canvas)
    paste(redrawn(matrix), canvas, 1.0, (), Watch())
    outside = linear(MASK[None], *grid(matrix, 0, 0, canvas.size))[0] == 0
    assert outside.mean() > 0.5
    assert (canvas.array[outside] == 255 // 20).all()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (199, 80), (100, 165), (-30, 60)])
def test_a_face_at_the_border_is_drawn_as_far_as_the_picture_goes(x: float, y: float) -> None:
    canvas = canvas_of(2.5)
    matrix = to_crop(face_at(x, y, 80), canvas)
    paste(redrawn(matrix), canvas, 1.0, (), Watch())
    assert off(canvas, matrix) < 1.0


@pytest.mark.parametrize("x", [-500, 700])
def test_a_face_outside_the_picture_changes_nothing(x: float) -> None:
    canvas = canvas_of(2)
    patch = redrawn(to_crop(face_at(x, 80, 60), canvas))
    paste(patch, canvas, 1.0, (), Watch())
    left, top, right, bottom = covered(patch, canvas.size)
    assert (right - left) * (bottom - top) == 0
    assert (canvas.array == 255 // 20).all()


def test_a_face_shown_larger_goes_through_the_network_and_comes_out_in_place() -> None:
    asked: list[Size] = []

    def network(picture: Picture) -> Canvas:
        asked.append(picture.size)
        larger = open_canvas(Size(picture.size.width * 4, picture.size.height * 4), 3, 16)
        resample(picture.rows, picture.size, larger)
        return larger

    canvas = canvas_of(10)
    for width, tilt in ((60, 0), (150, 27)):
        matrix = to_crop(face_at(100, 80, width, tilt), canvas)
        paste(redrawn(matrix, network=network), canvas, 1.0, (), Watch())
        assert off(canvas, matrix) < 1.0
    left, top, right, bottom = shown_box(MASK, 16)
    assert asked == [Size(right - left, bottom - top)] * 2  # only what the mask shows
    assert right - left < 400


def test_where_nothing_changed_the_picture_stays_to_the_bit() -> None:
    noise = np.random.default_rng(0).random((3, 512, 512), np.float32)
    canvas = canvas_of(2.5)
    canvas.array[:] = np.random.default_rng(1).integers(0, 256, canvas.array.shape)
    before = canvas.array.copy()
    paste(patched(noise, noise, MASK, to_crop(face_at(90, 80, 80), canvas), None), canvas, 1.0, (), Watch())
    np.testing.assert_array_equal(canvas.array, before)


def test_a_small_change_is_added_and_a_large_one_replaces() -> None:
    crop = np.random.default_rng(0).random((3, 512, 512), np.float32) * 0.5 + 0.2
    canvas = canvas_of(2)
    matrix = to_crop(face_at(100, 80, 80), canvas)
    middle = (160, 200)
    paste(patched(crop, crop + np.float32(0.4 / 255), MASK, matrix, None), canvas, 1.0, (), Watch())
    assert set(np.unique(canvas.array)) <= {12, 13}  # not the noise of the crop
    paste(patched(crop, np.full_like(crop, 0.5), MASK, matrix, None), canvas, 1.0, (), Watch())
    assert (np.abs(canvas.array[middle].astype(int) - 128) <= 1).all()


def test_of_two_faces_that_overlap_each_keeps_its_own_middle() -> None:
    one, other = face_at(80, 80, 80), face_at(125, 80, 80)
    results = []
    for order in ((0, 1), (1, 0)):
        canvas = canvas_of(2)
        matrices = [to_crop(face, canvas) for face in (one, other)]
        levels = (0.4, 0.9)
        for step, index in enumerate(order):
            drawn = np.full((3, 512, 512), levels[index], np.float32)
            patch = patched(BLANK, drawn, MASK, matrices[index], None)
            paste(patch, canvas, 1.0, [Rival(matrices[1 - index], step == 0)], Watch())
        results.append(canvas.array[160].astype(int))
    first, second = results
    assert np.abs(first[140] - 102).max() <= 1
    assert np.abs(first[270] - 230).max() <= 1
    assert np.abs(first - second).max() <= 1  # whichever is drawn first
    between = np.diff(first[140:270], axis=0)
    assert between.min() >= -1  # nothing darker shows through
    assert between.max() <= 20  # no hard line


def test_bands_are_cancelled_between_two_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    canvas = canvas_of(10)
    asked: list[int] = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 3

    monkeypatch.setattr("enlarger.engine.faces.paste.BAND_PIXELS", 50_000)
    with pytest.raises(Cancelled):
        paste(redrawn(to_crop(face_at(100, 80, 100), canvas)), canvas, 1.0, (), Watch(cancelled=cancelled))
    rows = np.flatnonzero((canvas.array != 255 // 20).any(axis=(1, 2)))
    assert rows.max() < canvas.size.height / 2


def test_the_mean_colour_of_the_face_is_kept() -> None:
    crop = np.random.default_rng(0).random((3, 512, 512), np.float32) * 0.2 + 0.4
    tinted = crop * 0.8 + np.array([0.2, 0.0, 0.1], np.float32)[:, None, None]
    found = matched(tinted, crop, MASK)
    weight = MASK / MASK.sum()
    np.testing.assert_allclose((found * weight).sum(axis=(1, 2)), (crop * weight).sum(axis=(1, 2)), atol=1e-4)
    np.testing.assert_array_equal(matched(crop, crop, MASK), crop)


def test_gray_is_the_luma_of_bt_601() -> None:
    planes = np.stack([np.full((2, 2), value, np.float32) for value in (1.0, 0.5, 0.0)])
    np.testing.assert_allclose(gray(planes), 0.299 + 0.5 * 0.587, atol=1e-6)


def test_an_empty_mask_shows_and_draws_nothing() -> None:
    empty = np.zeros_like(MASK)
    canvas = canvas_of(10)
    patch = patched(
        BLANK, BLANK + 0.5, empty, to_crop(face_at(100, 80, 100), canvas), lambda face: pytest.fail("asked")
    )
    paste(patch, canvas, 1.0, (), Watch())
    assert shown_box(empty) == (0, 0, 0, 0)
    assert (canvas.array == 255 // 20).all()
