from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from enlarger.engine.faces.yunet import YuNet

Photo = Callable[[str], np.ndarray]


def opencv_faces(path: Path, bgr: np.ndarray) -> np.ndarray:
    """(n, 15): OpenCV's own detector with the same file, threshold and overlap."""
    height, width = bgr.shape[:2]
    found = cv2.FaceDetectorYN.create(str(path), "", (width, height), 0.3, 0.3).detect(bgr)[1]
    return np.empty((0, 15)) if found is None else found


def planes(bgr: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bgr.transpose(2, 0, 1), np.float32)


@pytest.mark.shared
@pytest.mark.parametrize("trim", [(0, 0), (13, 29)], ids=["whole", "odd size"])
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("blurry-face.jpg", 1), ("lr-face.jpg", 1), ("children-alpha.png", 5), ("00017_gray.png", 2),
        ("jpeg-15.jpg", 1), ("OST_009.png", 0), ("wolf_gray.jpg", 0),
    ],
)  # fmt: skip
def test_boxes_and_landmarks_are_those_of_opencv(
    name: str, least: int, trim: tuple[int, int], yunet: YuNet, yunet_path: Path, photo: Photo
) -> None:
    bgr = np.ascontiguousarray(photo(name)[trim[0] :, trim[1] :, ::-1])
    wanted = sorted(opencv_faces(yunet_path, bgr).tolist(), key=lambda row: -row[14])
    found = yunet.find(planes(bgr))
    assert len(found) == len(wanted) >= least
    for face, (left, top, width, height, *points, score) in zip(found, wanted, strict=True):
        box = np.array(face.box_xyxy)
        assert np.abs(box - [left, top, left + width, top + height]).max() < 1
        assert np.abs(np.ravel(face.landmarks_xy) - points).max() < 1
        assert face.score == pytest.approx(score, abs=0.01)


@pytest.mark.shared
@pytest.mark.parametrize("size", [(1, 1), (1, 700), (31, 33), (64, 64)])
def test_any_size_is_taken(size: tuple[int, int], yunet: YuNet) -> None:
    assert yunet.find(np.zeros((3, *size), np.float32)) == []
