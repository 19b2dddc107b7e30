"""Paste: a patch into the enlarged picture, in the picture's own depth, band by band.

Pixel centres are mapped, never corners or indices, so no scale shifts a face by part of a pixel. Where two faces
overlap, each pixel goes to the one whose centre is nearer, with a soft seam between them that shows the two and
nothing of what was there before, whichever of them is drawn first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, hypot

import numpy as np

from enlarger.engine.faces.alignment import Affine, applied, factor, inverse
from enlarger.engine.faces.face import Array
from enlarger.engine.faces.mask import CENTRE_XY, RADII_XY, faded, smooth_step
from enlarger.engine.faces.patch import Patch, shown_box, to_canvas, to_drawn_from_canvas
from enlarger.engine.faces.sampling import Positions, cubic, grid, linear
from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import Canvas
from enlarger.engine.pictures.resample import unit_floats
from enlarger.engine.tiles import Watch

BAND_PIXELS = 262_144
"""Pixels that exist as floats at a time: about 40 MB with all that is computed for them."""
SEAM = 0.25
"""Width of the seam between two faces, in radii of a face."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another face of the picture: the way from the canvas to its crop, and whether it will be drawn later."""

    to_crop: Affine
    is_later: bool


def paste(patch: Patch, canvas: Canvas, strength: float, rivals: Sequence[Rival], watch: Watch) -> None:
    """Draw a face into the colours of `canvas`. Raises Cancelled between two bands; what is done by then stays."""
    rivals = [rival for rival in rivals if _is_near(patch.to_crop, rival.to_crop)]
    left, top, right, bottom = covered(patch, canvas.size)
    width = right - left
    rows = max(1, BAND_PIXELS // max(1, width))
    for start in range(top, bottom, rows):
        watch.check()
        band = Size(width, min(rows, bottom - start))
        weight = strength * _weight(patch, left, start, band, rivals)
        if not weight.any():
            continue
        before = unit_floats(canvas.rows(start, start + band.height)[:, left:right]).transpose(2, 0, 1)
        after = before + weight * _difference(patch, before, left, start, band)
        canvas.write(start, left, np.asarray(after.transpose(1, 2, 0), np.float32))


def covered(patch: Patch, size: Size) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of the canvas that the patch may reach; empty if it is outside."""
    box = shown_box(patch.mask)
    corners = [(float(box[i]), float(box[j])) for i in (0, 2) for j in (1, 3)]
    reached = applied(to_canvas(patch), corners)
    left, top = (
        min(side, max(0, floor(value))) for side, value in zip(size, reached.min(axis=0), strict=True)
    )
    right, bottom = (
        max(0, min(side, ceil(value))) for side, value in zip(size, reached.max(axis=0), strict=True)
    )
    return left, top, max(left, right), max(top, bottom)


def _difference(patch: Patch, before: Array, left: int, top: int, band: Size) -> Array:
    """What full strength adds to a band: the formula of `patch`."""
    drawn = cubic(patch.drawn, *grid(to_drawn_from_canvas(patch), left, top, band))
    x, y = grid(patch.to_crop, left, top, band)
    gate = linear(patch.gate[None], x, y)
    return np.asarray(gate * (drawn - before) + linear(patch.small_change, x, y), np.float32)


def _weight(patch: Patch, left: int, top: int, band: Size, rivals: Sequence[Rival]) -> Array:
    """(height, width): how much of the face is taken where.

    A face drawn later covers what it takes of this one, so here it must leave the rest of what then is left.
    """
    x, y = grid(patch.to_crop, left, top, band)
    mask = linear(patch.mask[None], x, y)[0]
    radii = [_radius(x, y), *(_radius(*grid(rival.to_crop, left, top, band)) for rival in rivals)]
    left_over = np.ones_like(mask)
    for index, rival in enumerate(rivals, 1):
        if rival.is_later:
            left_over -= faded(radii[index]) * _share(radii, index)
    return np.clip(mask * _share(radii, 0) / np.maximum(left_over, 1e-3), 0.0, 1.0)


def _share(radii: Sequence[Positions], index: int) -> Array:
    """What one of several faces gets of each pixel: 1 where it is the nearest, ½ midway between two."""
    share = np.ones(radii[0].shape, np.float32)
    for other, radius in enumerate(radii):
        if other != index:
            share *= smooth_step((0.5 + (radius - radii[index]) / SEAM).astype(np.float32))
    return share


def _is_near(one: Affine, other: Affine) -> bool:
    """Whether two faces may touch: their circles, half as large again for hair."""
    (x, y), (u, v) = (applied(inverse(to_crop), [CENTRE_XY])[0] for to_crop in (one, other))
    reach = sum(1.5 * max(RADII_XY) / factor(to_crop) for to_crop in (one, other))
    return hypot(x - u, y - v) < reach


def _radius(x: Positions, y: Positions) -> Positions:
    """Distance from the centre of the face, 1 at the edge of its ellipse."""
    return np.hypot((x - CENTRE_XY[0]) / RADII_XY[0], (y - CENTRE_XY[1]) / RADII_XY[1])
