from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from enlarger.engine.faces.face import Face
from enlarger.engine.faces.filters import judged, unmet
from enlarger.engine.geometry import Size
from enlarger.engine.options import Options

from .stand_ins import face_at

SIZE = Size(1000, 800)


def reasons(found: Sequence[Face], largest_crop: float = 1e9, **options: object) -> list[str]:
    verdicts = judged(found, SIZE, Options(**options), largest_crop)  # type: ignore[arg-type]
    assert [verdict.index for verdict in verdicts] == list(range(len(found)))
    assert [verdict.is_used for verdict in verdicts] == [not verdict.reason for verdict in verdicts]
    return [verdict.reason for verdict in verdicts]


def with_landmarks(face: Face, points: np.ndarray) -> Face:
    return replace(face, landmarks_xy=tuple((float(x), float(y)) for x, y in points))  # type: ignore[arg-type]


def test_a_clear_face_is_restored() -> None:
    assert reasons([face_at(300, 300, 100), face_at(600, 300, 100, tilt=170)]) == ["", ""]


def test_an_unsure_face_is_left_with_both_numbers() -> None:
    face = face_at(300, 300, 100, score=0.7)
    assert reasons([face]) == ["score 0.70 is below face_confidence=0.8"]
    assert reasons([face], face_confidence=0.7) == [""]


def test_a_small_face_is_left() -> None:
    face = face_at(300, 300, 20)
    assert reasons([face]) == ["20 px is below face_min_size=24"]
    assert reasons([face], face_min_size=20) == [""]


def test_landmarks_in_no_order_of_a_face_are_not_restored() -> None:
    face = face_at(300, 300, 100)
    points = np.array(face.landmarks_xy)
    for wrong in (points[[3, 4, 2, 0, 1]], points[[1, 0, 2, 4, 3]], np.full((5, 2), 9.0), points * np.nan):
        assert reasons([with_landmarks(face, wrong)]) != [""]


@pytest.mark.parametrize(("share", "is_used"), [(0.0, True), (0.3, True), (0.45, False), (-0.6, False)])
def test_a_face_turned_to_the_side_is_left(share: float, is_used: bool) -> None:
    face = face_at(300, 300, 100)
    points = np.array(face.landmarks_xy)
    points[2] = points[:2].mean(axis=0) + share * (points[1] - points[0]) + (0, 20)
    assert reasons([with_landmarks(face, points)]) == ["" if is_used else "turned too far to the side"]


def test_a_face_inside_a_face_is_left() -> None:
    face, eye = face_at(300, 300, 200), face_at(320, 280, 60)
    assert reasons([eye, face]) == ["lies inside face 1", ""]
    beside = face_at(450, 300, 60)
    assert reasons([face, beside]) == ["", ""]
    doubtful = replace(face, score=0.4)
    assert reasons([eye, doubtful])[0] == ""


def test_a_face_too_large_for_the_crop_is_left_unless_chosen() -> None:
    face = face_at(500, 400, 300)
    (reason,) = reasons([face], largest_crop=500)
    assert "too large" in reason
    assert "faces=" in reason
    assert reasons([face], largest_crop=500, faces="0") == [""]


def test_only_the_face_nearest_to_the_centre_is_kept_and_it_must_pass() -> None:
    faces = [face_at(200, 200, 100), face_at(600, 420, 100), face_at(510, 400, 10)]
    assert reasons(faces, face_only_center=True) == [
        "not the nearest to the centre",
        "",
        "10 px is below face_min_size=24",
    ]


def test_a_choice_by_number_and_by_box_overrides_the_filters() -> None:
    faces = [face_at(200, 200, 100), face_at(600, 400, 10, score=0.4), face_at(800, 200, 100)]
    assert reasons(faces, faces="1 755,130,850,260") == ["not among the chosen", "", ""]


def test_chosen_landmarks_that_are_no_face_stay_unused() -> None:
    broken = with_landmarks(face_at(200, 200, 100), np.full((5, 2), 3.0))
    assert "one point" in reasons([broken], faces="0")[0]


def test_choices_that_mean_no_face_are_told() -> None:
    faces = [face_at(200, 200, 100)]
    assert unmet(Options(faces="0 7 900,700,950,780"), faces) == ("7", "900,700,950,780")
    assert reasons(faces, faces="7") == ["not among the chosen"]
    assert reasons([], faces="0") == []
