"""Sampling: values of a picture between its pixels, for turned and shifted views of it.

A view is taken in two steps. Where it is smaller than what it shows, that part of the picture is first shrunk with
the antialiased Lanczos of `resample`; then a cubic through 4 × 4 pixels (Keys, "Cubic convolution interpolation for
digital image processing", 1981, a = −½) turns and shifts at about 1:1. Beyond the border the outermost pixels go on.

Planes are (channels, height, width) float32; positions are counted from corners.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, floor

import numpy as np
import numpy.typing as npt

from enlarger.engine.faces.alignment import Affine, applied, chained, factor, inverse
from enlarger.engine.faces.face import Array
from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import Picture, Pixels
from enlarger.engine.pictures.resample import resampled, unit_floats

Positions = npt.NDArray[np.float64]
Kernel = Callable[[Array], tuple[Array, ...]]

SHARP_FROM = 0.99
"""Views down to this factor are not shrunk first: the cubic has nothing to alias there."""
QUICK_FROM = 0.5
_ROWS = 32  # of positions at a time, so that the working arrays stay in the cache


def cubic(planes: Array, x: Positions, y: Positions) -> Array:
    """(c, *x.shape): values at (x, y), by the cubic through 4 × 4 pixels."""
    return _sampled(planes, x, y, _keys, 1)


def linear(planes: Array, x: Positions, y: Positions) -> Array:
    """(c, *x.shape): values at (x, y), bilinear."""
    return _sampled(planes, x, y, lambda t: (1 - t, t), 0)


def view(picture: Picture, matrix: Affine, size: Size, *, is_quick: bool = False) -> Array:
    """Colours (c, height, width) in [0, 1] of what `matrix` maps into a window of `size`.

    A quick view is bilinear, and aliases a little between ½ and 1: good enough to find something in.
    """
    corners = np.array([(0, 0), (size.width, 0), (0, size.height), (size.width, size.height)], np.float64)
    shown = applied(inverse(matrix), corners)
    margin = 4 + 4 / factor(matrix)  # what the kernels read beyond the window
    left, right = _within(shown[:, 0], margin, picture.size.width)
    top, bottom = _within(shown[:, 1], margin, picture.size.height)

    def rows(first: int, last: int) -> Pixels:
        return picture.rows(top + first, top + last)[:, left:right, : picture.colours]

    part, across, down = _shrunk(
        rows, Size(right - left, bottom - top), factor(matrix), QUICK_FROM if is_quick else SHARP_FROM
    )
    to_part = np.array([[across, 0.0, -left * across], [0.0, down, -top * down]])
    x, y = grid(chained(inverse(matrix), to_part), 0, 0, size)
    return (linear if is_quick else cubic)(part, x, y)


def grid(matrix: Affine, left: int, top: int, size: Size) -> tuple[Positions, Positions]:
    """Where `matrix` maps the pixel centres of a rectangle: x and y, each (height, width)."""
    u = np.arange(left, left + size.width) + 0.5
    v = np.arange(top, top + size.height)[:, None] + 0.5
    x = matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2]
    y = matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2]
    return x, y


def resized(planes: Array, size: Size) -> Array:
    """Planes resized with antialiased Lanczos."""
    rows = np.ascontiguousarray(planes.transpose(1, 2, 0))
    bands = resampled(lambda top, bottom: rows[top:bottom], Size(rows.shape[1], rows.shape[0]), size)
    return np.ascontiguousarray(np.concatenate([band for _, band in bands]).transpose(2, 0, 1))


def _keys(t: Array) -> tuple[Array, ...]:
    """Weights of the four pixels around a position `t` of the way from the second to the third."""
    return (
        ((-0.5 * t + 1.0) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1.0,
        ((-1.5 * t + 2.0) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )


def _sampled(planes: Array, x: Positions, y: Positions, kernel: Kernel, before: int) -> Array:
    channels, height, width = planes.shape
    padded = np.pad(planes, ((0, 0), (2, 2), (2, 2)), mode="edge")
    stride = width + 4
    flat = padded.reshape(channels, -1)
    out = np.zeros((channels, *x.shape), np.float32)
    for start in range(0, len(x), _ROWS):
        columns, across = _split(x[start : start + _ROWS], width)
        rows, down = _split(y[start : start + _ROWS], height)
        corner = (rows + 2 - before) * stride + columns + 2 - before
        part = out[:, start : start + _ROWS]
        for j, weight_y in enumerate(kernel(down)):
            for i, weight_x in enumerate(kernel(across)):
                index, weight = corner + (j * stride + i), weight_x * weight_y
                for channel in range(channels):
                    part[channel] += flat[channel].take(index, mode="clip") * weight
    return out


def _split(position: Positions, length: int) -> tuple[npt.NDArray[np.intp], Array]:
    """The pixel whose centre is the last before each position, and how far it is from there to the next."""
    centres = np.clip(position - 0.5, -1.0, length)
    whole = np.floor(centres)
    return whole.astype(np.intp), (centres - whole).astype(np.float32)


def _shrunk(
    rows: Callable[[int, int], Pixels], size: Size, by: float, unshrunk_from: float
) -> tuple[Array, float, float]:
    """The part as planes, shrunk where need be, and what its width and height were multiplied with."""
    if by >= unshrunk_from:
        return np.ascontiguousarray(unit_floats(rows(0, size.height)).transpose(2, 0, 1)), 1.0, 1.0
    small = Size(max(1, round(size.width * by)), max(1, round(size.height * by)))
    planes = np.concatenate([band for _, band in resampled(rows, size, small)]).transpose(2, 0, 1)
    return np.ascontiguousarray(planes), small.width / size.width, small.height / size.height


def _within(values: Positions, margin: float, length: int) -> tuple[int, int]:
    """The pixels from the smallest to the largest value, with a margin: at least one, inside the picture."""
    first = min(max(0, floor(values.min() - margin)), length - 1)
    return first, max(first + 1, min(length, ceil(values.max() + margin)))
