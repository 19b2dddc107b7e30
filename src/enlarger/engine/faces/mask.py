"""Mask: how much of the restored face is taken where, (512, 512) float32 from 0 to 1 over the aligned face."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from enlarger.engine.faces.face import SIDE, Array

CENTRE_XY = (256.0, 285.0)
RADII_XY = (165.0, 215.0)
"""The ellipse of a face in the template, forehead to chin: 1.15 times the box that YuNet gives to one."""
SOLID = 0.7
"""Share of the radius inside which the ellipse is all face; from there it fades to its edge."""

FACE_CLASSES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15)
"""Of the 19 classes of ParseNet: skin to hair and earrings; not background, hat, necklace, neck and cloth."""
BLUR = 16.0
"""Standard deviation in pixels of the soft edge of a parsed mask: the reference blurs twice by 11."""
BORDER = 10
"""Pixels at the edge of the crop that are never taken: the reference clears as many."""


class Masker(Protocol):
    """Tells the face in an aligned crop from what is around it."""

    def mask(self, crop: Array) -> Array:
        """(512, 512, 3) RGB float32 in [0, 1] → (512, 512) float32 in [0, 1]."""
        ...


def ellipse() -> Array:
    """The mask of any aligned face: what is used without a Masker."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    radius = np.hypot((x - CENTRE_XY[0]) / RADII_XY[0], (y - CENTRE_XY[1]) / RADII_XY[1])
    return faded(radius)


def faded(radius: npt.NDArray[np.float64]) -> Array:
    """The ellipse by its distance from the centre: 1 up to SOLID, 0 from 1."""
    return smooth_step(((1.0 - radius) / (1.0 - SOLID)).astype(np.float32))


def parsed(scores: Array) -> Array:
    """The mask of (19, 512, 512) class scores: kept classes, with a soft edge that fades to 0 before the border."""
    kept = np.isin(scores.argmax(axis=0), FACE_CLASSES).astype(np.float32)
    soft = blurred(kept, BLUR)
    soft[:BORDER] = soft[-BORDER:] = soft[:, :BORDER] = soft[:, -BORDER:] = 0.0
    return np.clip(soft, 0.0, 1.0)


def blurred(plane: Array, deviation: float) -> Array:
    """A square plane, convolved with a Gaussian; the outermost pixels go on beyond the border."""
    length, reach = len(plane), int(3 * deviation)
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (offsets / deviation) ** 2)
    matrix = np.zeros((length, length))
    rows = np.repeat(np.arange(length), len(offsets))
    columns = np.clip(np.arange(length)[:, None] + offsets, 0, length - 1).ravel()
    np.add.at(matrix, (rows, columns), np.tile(kernel / kernel.sum(), length))
    banded = matrix.astype(np.float32)
    return np.asarray(banded @ plane @ banded.T, np.float32)


def smooth_step(t: Array) -> Array:
    """0 below 0, 1 above 1, 3t² − 2t³ between."""
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)
