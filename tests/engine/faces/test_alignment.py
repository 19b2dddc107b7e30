from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine.faces.alignment import (
    TEMPLATE_XY,
    alignment,
    applied,
    chained,
    factor,
    inverse,
    similarity,
    whole_picture,
)
from enlarger.engine.geometry import Size

from .stand_ins import face_at

turns = st.floats(-180, 180)
scales = st.floats(0.05, 20)
shifts = st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000))


def moved(points: np.ndarray, turn: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    return points @ np.array([[c, s], [-s, c]]) + shift


@given(turns, scales, shifts)
def test_a_moved_template_is_laid_back_onto_the_template(
    turn: float, scale: float, shift: tuple[float, float]
) -> None:
    points = moved(TEMPLATE_XY, turn, scale, shift)
    matrix = similarity(points, TEMPLATE_XY)
    np.testing.assert_allclose(applied(matrix, points), TEMPLATE_XY, atol=1e-6)
    assert factor(matrix) == pytest.approx(1 / scale)


def test_landmarks_that_do_not_fit_are_met_with_the_least_squared_error() -> None:
    points = np.random.default_rng(3).uniform(0, 300, (5, 2))
    # The same problem as linear equations in (a, b, x, y), solved by LAPACK.
    rows = [row for x, y in points for row in ((x, -y, 1, 0), (y, x, 0, 1))]
    a, b, left, top = np.linalg.lstsq(np.array(rows), TEMPLATE_XY.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(points, TEMPLATE_XY), [[a, -b, left], [b, a, top]], rtol=1e-9)


def test_a_mirrored_face_is_turned_but_never_mirrored_back() -> None:
    matrix = similarity(TEMPLATE_XY * (-1, 1), TEMPLATE_XY)
    assert np.linalg.det(matrix[:, :2]) > 0


def test_points_in_one_place_give_no_scale_and_no_crash() -> None:
    assert factor(similarity([(7.0, 7.0)] * 5, TEMPLATE_XY)) == 0


def test_a_face_lands_upright_in_the_middle_of_its_crop() -> None:
    face = face_at(400, 300, 120, tilt=35)
    np.testing.assert_allclose(applied(alignment(face), face.landmarks_xy), TEMPLATE_XY, atol=1e-9)
    assert factor(alignment(face)) == pytest.approx(277 / 120)


@given(turns, scales, shifts)
def test_there_and_back_is_where_it_was(turn: float, scale: float, shift: tuple[float, float]) -> None:
    there = similarity(moved(TEMPLATE_XY, turn, scale, shift), TEMPLATE_XY)
    np.testing.assert_allclose(applied(chained(there, inverse(there)), TEMPLATE_XY), TEMPLATE_XY, atol=1e-6)


@pytest.mark.parametrize("size", [Size(512, 512), Size(300, 300), Size(1024, 600), Size(1, 9)])
def test_a_whole_picture_fills_the_longer_side_of_the_crop(size: Size) -> None:
    (left, top), (right, bottom) = applied(whole_picture(size), [(0.0, 0.0), tuple(map(float, size))])
    assert max(right - left, bottom - top) == pytest.approx(512)
    assert (left + right, top + bottom) == (pytest.approx(512), pytest.approx(512))
    assert (right - left) / (bottom - top) == pytest.approx(size.width / size.height)
