"""Detectors and restorers a program could bring, for tests that know where a face is and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enlarger.engine.faces.alignment import TEMPLATE_XY
from enlarger.engine.faces.face import Array, Face
from enlarger.engine.pictures.picture import Picture


def face_at(x: float, y: float, width: float, tilt: float = 0.0, score: float = 0.95) -> Face:
    """A face with the proportions of the template, its box `width` wide around (x, y), tilted by degrees."""
    spread = (TEMPLATE_XY - (256, 285)) * (width / 277)
    turn = np.exp(1j * np.radians(tilt)) * (spread[:, 0] + 1j * spread[:, 1])
    points = [(x + float(z.real), y + float(z.imag)) for z in turn]
    half, high = width / 2, width * 0.67
    return Face(box_xyxy=(x - half, y - high, x + half, y + high), landmarks_xy=tuple(points), score=score)  # type: ignore[arg-type]


@dataclass
class Told:
    """A detector that knows the faces beforehand."""

    faces: list[Face]

    def detect(self, picture: Picture) -> list[Face]:
        return self.faces


class Same:
    """Changes nothing."""

    def restore(self, crop: Array) -> Array:
        return crop


@dataclass
class Drawn:
    """Draws the same picture whatever the face: a (512, 512, 3) array in [0, 1]."""

    picture: Array

    def restore(self, crop: Array) -> Array:
        return self.picture


def waves(period: float = 64.0) -> Array:
    """(512, 512, 3): smooth waves whose value at any point of the crop is known; see `wave_at`."""
    v, u = np.mgrid[0:512, 0:512] + 0.5
    return np.stack([wave_at(u, v, period)] * 3, axis=2).astype(np.float32)


def wave_at(u: np.ndarray, v: np.ndarray, period: float = 64.0) -> np.ndarray:
    return 0.5 + 0.3 * np.sin(2 * np.pi * u / period) * np.cos(2 * np.pi * v / period)
