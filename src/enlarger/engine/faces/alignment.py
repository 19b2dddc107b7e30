"""Alignment: the similarity that lays the landmarks of a face on those of the restorer's template.

An `Affine` is a (2, 3) float64 array that maps points (x, y) to A·(x, y, 1); points are counted from corners.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from enlarger.engine.faces.face import SIDE, Face, Point
from enlarger.engine.geometry import Size

Affine = npt.NDArray[np.float64]
Points = npt.NDArray[np.float64]

TEMPLATE_XY = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.1936),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ]
)
"""Eyes, nose and corners of the mouth in an aligned face of FFHQ at 512 px, as facexlib publishes them."""


def alignment(face: Face) -> Affine:
    """From pixels of the picture to those of the aligned face."""
    return similarity(face.landmarks_xy, TEMPLATE_XY)


def whole_picture(size: Size) -> Affine:
    """From a picture that is an aligned face already to that face: its longer side becomes the template's."""
    factor = SIDE / max(size)
    left, top = (SIDE - size.width * factor) / 2, (SIDE - size.height * factor) / 2
    return np.array([[factor, 0.0, left], [0.0, factor, top]])


def similarity(source: Sequence[Point] | Points, target: Sequence[Point] | Points) -> Affine:
    """Rotation, scale and shift with the least squared error from `source` to `target`, never a mirror image.

    The closed form of S. Umeyama, "Least-squares estimation of transformation parameters between two point patterns"
    (1991), written with complex numbers. Points that all coincide give a scale of 0.
    """
    z, w = _complex(source), _complex(target)
    z0, w0 = z.mean(), w.mean()
    spread = float(np.sum(np.abs(z - z0) ** 2))
    turn = complex(np.sum(np.conj(z - z0) * (w - w0)) / spread) if spread else 0j
    shift = complex(w0 - turn * z0)
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def inverse(matrix: Affine) -> Affine:
    linear = np.asarray(np.linalg.inv(matrix[:, :2]), np.float64)
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def chained(first: Affine, then: Affine) -> Affine:
    """The map that applies `first`, then `then`."""
    return np.column_stack([then[:, :2] @ first[:, :2], then[:, :2] @ first[:, 2] + then[:, 2]])


def scaling(across: float, down: float) -> Affine:
    return np.array([[across, 0.0, 0.0], [0.0, down, 0.0]])


def applied(matrix: Affine, points: Sequence[Point] | Points) -> Points:
    """(n, 2) points, mapped."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def factor(matrix: Affine) -> float:
    """By how much it enlarges lengths; their mean where it stretches."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))


def _complex(points: Sequence[Point] | Points) -> npt.NDArray[np.complex128]:
    pairs = np.asarray(points, np.float64)
    return pairs[:, 0] + 1j * pairs[:, 1]
