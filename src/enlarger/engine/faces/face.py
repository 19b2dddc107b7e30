"""Face: where a face is. Detector and Restorer: the two parts of face restoration that a program may bring itself.

Coordinates are pixels of the picture from its upper left corner: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from enlarger.engine.pictures.picture import Picture

SIDE = 512
"""Pixels of a side of an aligned face."""

Array = npt.NDArray[np.float32]
Point = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """A face in a picture. `box_xyxy` is left, top, right, bottom; it may reach beyond the picture.

    `landmarks_xy` are five points: the eye at the left of an upright picture (the person's right), the other eye, the
    tip of the nose, and the corners of the mouth in the same order. `score` is how sure the detector is, 0 to 1.
    """

    box_xyxy: Box
    landmarks_xy: tuple[Point, Point, Point, Point, Point]
    score: float

    @property
    def width(self) -> float:
        return self.box_xyxy[2] - self.box_xyxy[0]

    @property
    def height(self) -> float:
        return self.box_xyxy[3] - self.box_xyxy[1]

    @property
    def centre(self) -> Point:
        left, top, right, bottom = self.box_xyxy
        return (left + right) / 2, (top + bottom) / 2


class Detector(Protocol):
    """Finds faces."""

    def detect(self, picture: Picture) -> list[Face]:
        """Every face in the picture, unsure ones too: what to do with them is decided later."""
        ...


class Restorer(Protocol):
    """Draws a face better than it is."""

    def restore(self, crop: Array) -> Array:
        """(512, 512, 3) RGB float32 in [0, 1] of one face, aligned as in FFHQ, → the same.

        What is not changed stays as the picture's network made it. The mean colour need not be kept: it is matched.
        """
        ...


def overlap(a: Box, b: Box) -> float:
    """Area both boxes share, in square pixels."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def union_share(a: Box, b: Box) -> float:
    """What two boxes share, as a part of their union: 0 to 1."""
    both = overlap(a, b)
    return both / max(area(a) + area(b) - both, 1e-9)
