from __future__ import annotations

import cv2
import numpy as np
import pytest

from enlarger.engine.faces.alignment import TEMPLATE_XY
from enlarger.engine.faces.mask import FACE_CLASSES, blurred, ellipse, parsed


def test_the_ellipse_holds_the_features_and_fades_before_the_border() -> None:
    mask = ellipse()
    for x, y in TEMPLATE_XY:
        assert mask[round(y), round(x)] == 1
    edge = np.concatenate(
        [mask[:10].ravel(), mask[-10:].ravel(), mask[:, :10].ravel(), mask[:, -10:].ravel()]
    )
    assert edge.max() == 0
    assert np.abs(np.diff(mask, axis=1)).max() < 0.05  # no step that would be seen


@pytest.mark.parametrize("deviation", [3.0, 16.0])
def test_the_blur_is_that_of_opencv(deviation: float) -> None:
    plane = (np.random.default_rng(0).random((512, 512)) > 0.5).astype(np.float32)
    side = 2 * int(3 * deviation) + 1
    wanted = cv2.GaussianBlur(plane, (side, side), deviation, borderType=cv2.BORDER_REPLICATE)
    assert np.abs(blurred(plane, deviation) - wanted).max() < 1e-4


def test_kept_classes_are_the_mask_and_others_are_not() -> None:
    scores = np.zeros((19, 512, 512), np.float32)
    scores[0] = 1.0
    for number, kind in enumerate(range(19)):
        scores[kind, 100:400, 12 + 25 * number : 37 + 25 * number] = 2.0
    mask = parsed(scores)
    assert (mask[250, 260 : 12 + 25 * 13] > 0.9).all()  # deep among kept classes
    assert set(range(19)) - set(FACE_CLASSES) == {0, 14, 16, 17, 18}
    assert mask[250, 480] < 0.1  # among the last three
    assert mask[:10].max() == mask[:, -10:].max() == 0


def test_a_crop_without_a_face_gives_an_empty_mask() -> None:
    scores = np.zeros((19, 512, 512), np.float32)
    scores[0] = 1.0
    assert parsed(scores).max() == 0
