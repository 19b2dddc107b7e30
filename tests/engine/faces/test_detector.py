from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from enlarger.engine.faces.detector import FaceFinder
from enlarger.engine.faces.face import Face
from enlarger.engine.pictures.picture import Picture

Photo = Callable[[str], np.ndarray]
pytestmark = pytest.mark.shared


def detect(finder: FaceFinder, rgb: np.ndarray) -> list[Face]:
    return [
        face for face in finder.detect(Picture.from_array(np.ascontiguousarray(rgb))) if face.score >= 0.8
    ]


def misplaced(face: Face, landmarks: np.ndarray) -> float:
    """Mean distance of the landmarks from where they are, in distances between the eyes."""
    eyes = np.hypot(*(landmarks[1] - landmarks[0]))
    return float(np.hypot(*(np.array(face.landmarks_xy) - landmarks).T).mean() / eyes)


def turned(rgb: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.warpAffine(rgb, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("degrees", [45, 90, 180, 270, -30])
@pytest.mark.parametrize("name", ["lr-face.jpg", "children-alpha.png"])
def test_tilted_faces_are_found_with_their_landmarks(
    name: str, degrees: float, finder: FaceFinder, photo: Photo
) -> None:
    rgb = photo(name)
    height, width = rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 0.7)
    found = detect(finder, turned(rgb, matrix, (width, height)))
    for upright in detect(finder, rgb):
        landmarks = np.column_stack([upright.landmarks_xy, np.ones(5)]) @ matrix.T
        assert min(misplaced(face, landmarks) for face in found) < 0.35


@pytest.mark.parametrize("factor", [0.35, 1.0, 5.5])
def test_a_face_is_found_at_any_size_in_the_same_place(
    factor: float, finder: FaceFinder, photo: Photo
) -> None:
    rgb = photo("children-alpha.png")
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    found = detect(finder, cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=interpolation))
    upright = detect(finder, rgb)
    assert len(found) == len(upright) == 5
    for face, other in zip(found, upright, strict=True):
        assert misplaced(face, np.array(other.landmarks_xy) * factor) < 0.3


def test_a_face_of_three_thousand_pixels_is_found(finder: FaceFinder, photo: Photo) -> None:
    rgb = cv2.resize(photo("blurry-face.jpg"), (4600, 4600), interpolation=cv2.INTER_CUBIC)
    (face,) = detect(finder, rgb)
    assert 2600 < face.width < 3600


def test_faces_of_eight_pixels_break_nothing(finder: FaceFinder, photo: Photo) -> None:
    rgb = cv2.resize(photo("children-alpha.png"), (82, 51), interpolation=cv2.INTER_AREA)
    assert all(face.width < 20 for face in detect(finder, rgb))


def test_twenty_faces_are_all_found(finder: FaceFinder, photo: Photo) -> None:
    rgb = np.tile(photo("children-alpha.png"), (2, 2, 1))
    assert len(detect(finder, rgb)) == 20


def test_a_face_cut_by_the_border_is_found(finder: FaceFinder, photo: Photo) -> None:
    (whole,) = detect(finder, photo("lr-face.jpg"))
    rgb = photo("lr-face.jpg")[:, 200:]  # through the cheek
    (face,) = detect(finder, rgb)
    assert face.box_xyxy[0] < 30
    assert misplaced(face, np.array(whole.landmarks_xy) - (200, 0)) < 0.3


@pytest.mark.parametrize("name", ["OST_009.png", "00003.png", "wolf_gray.jpg", "0014.jpg"])
def test_pictures_without_a_face_have_none(name: str, finder: FaceFinder, photo: Photo) -> None:
    assert detect(finder, photo(name)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1, 1), (1, 5000, 4), (4097, 2, 2)])
def test_the_smallest_pictures_have_no_face(shape: tuple[int, ...], finder: FaceFinder) -> None:
    assert finder.detect(Picture.from_array(np.full(shape, 90, np.uint8))) == []


def test_depth_gray_and_alpha_do_not_matter(finder: FaceFinder, photo: Photo) -> None:
    gray = photo("00017_gray.png")[:, :, :1]
    sixteen = gray.astype(np.uint16) * 257
    forms = [gray.repeat(3, axis=2), gray, sixteen, np.dstack([sixteen, np.full(gray.shape, 9, np.uint16)])]
    found = [finder.detect(Picture.from_array(np.ascontiguousarray(form))) for form in forms]
    for faces in found[1:]:
        assert len(faces) == len(found[0]) == 2
        np.testing.assert_allclose(faces[0].box_xyxy, found[0][0].box_xyxy, atol=0.01)
