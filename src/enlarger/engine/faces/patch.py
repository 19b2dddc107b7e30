"""Patch: what is put into the enlarged picture for one face, in pixels of the aligned crop.

Let c be the crop the restorer was given, r what it made of it, and p the enlarged picture. Where r differs from c,
the result is r, enlarged: it replaces p. Where r equals c the restorer had nothing to say, and p, in which the
network has drawn more than c holds, stays. `gate` goes from 0 to 1 between UNCHANGED and REDRAWN:

    result = p + mask · strength · ( gate · (r↑ − p) + (1 − gate) · (r − c)↑ )

So a restorer that changes nothing changes no bit, whatever the network made of the face; and one that draws a new
face is not mixed with what it replaces, as it would be if p + (r − c)↑ were taken everywhere: the noise of c would
come back as its negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from enlarger.engine.faces.alignment import Affine, chained, factor, inverse, scaling
from enlarger.engine.faces.estimate import STRETCHED_TO
from enlarger.engine.faces.face import SIDE, Array
from enlarger.engine.faces.mask import smooth_step
from enlarger.engine.faces.sampling import SHARP_FROM, grid, linear, resized
from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import Canvas, Picture
from enlarger.engine.pictures.resample import unit_floats
from enlarger.engine.tiles import LUMA

UNCHANGED, REDRAWN = 0.5 / 255, 2.0 / 255
"""Mean change over a cell of CELL × CELL pixels below which the picture stays, and from which it is replaced."""
CELL = 16
MARGIN = 16
"""Pixels around the mask that go through the network with it."""

Network = Callable[[Picture], Canvas]
"""Enlarges a 16-bit picture by the factor of its model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """`drawn` (c, h, w), `small_change` (c, 512, 512), `gate` and `mask` (512, 512), all float32."""

    to_crop: Affine
    """From pixels of the enlarged picture to those of the crop."""
    drawn: Array
    to_drawn: Affine
    """From pixels of the crop to those of `drawn`, which are about as large as those of the enlarged picture."""
    small_change: Array
    gate: Array
    mask: Array


def patched(crop: Array, restored: Array, mask: Array, to_crop: Affine, network: Network | None) -> Patch:
    """The patch for one face: (c, 512, 512) planes as they were and as they are restored, in [0, 1].

    `network` enlarges where the picture shows the face larger than the crop; None resamples it.
    """
    gate = _gate(np.abs(restored - crop).max(axis=0))
    drawn, to_drawn = _drawn(restored, mask, 1.0 / factor(to_crop), network)
    return Patch(
        to_crop=to_crop,
        drawn=drawn,
        to_drawn=to_drawn,
        small_change=np.asarray((1.0 - gate) * (restored - crop), np.float32),
        gate=gate,
        mask=mask,
    )


def matched(restored: Array, crop: Array, mask: Array) -> Array:
    """The restored planes with the mean colour that the face has in the crop."""
    weight = mask / max(float(mask.sum()), 1e-6)
    shift = ((crop - restored) * weight).sum(axis=(1, 2), keepdims=True)
    return np.clip(restored + shift, 0.0, 1.0).astype(np.float32)


def gray(planes: Array) -> Array:
    """(3, h, w) → (1, h, w) luma."""
    return np.tensordot(LUMA, planes, axes=1)[None].astype(np.float32)


def shown_box(mask: Array, margin: int = 0) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what a mask shows, in pixels of the crop; all 0 where it shows nothing."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    left, right = max(0, columns[0] - margin), min(mask.shape[1], columns[-1] + 1 + margin)
    return (
        int(left),
        int(max(0, rows[0] - margin)),
        int(right),
        int(min(mask.shape[0], rows[-1] + 1 + margin)),
    )


def _gate(change: Array) -> Array:
    cells = change.reshape(SIDE // CELL, CELL, SIDE // CELL, CELL).mean(axis=(1, 3))
    steps = smooth_step((cells - UNCHANGED) / (REDRAWN - UNCHANGED))
    x, y = grid(scaling(1 / CELL, 1 / CELL), 0, 0, Size(SIDE, SIDE))
    return linear(steps[None].astype(np.float32), x, y)[0]


def _drawn(restored: Array, mask: Array, by: float, network: Network | None) -> tuple[Array, Affine]:
    """The restored face at the size it is shown at, or the nearest to it, and the way there from the crop."""
    if by > STRETCHED_TO and network is not None:
        return _through_network(restored, mask, by, network)
    side = round(SIDE * by)
    if by >= SHARP_FROM or side < 1:
        return restored, scaling(1.0, 1.0)
    return resized(restored, Size(side, side)), scaling(side / SIDE, side / SIDE)


def _through_network(restored: Array, mask: Array, by: float, network: Network) -> tuple[Array, Affine]:
    left, top, right, bottom = shown_box(mask, MARGIN)
    if right == 0:
        return restored, scaling(1.0, 1.0)
    part = restored[:, top:bottom, left:right].transpose(1, 2, 0)
    canvas = network(Picture.from_array(np.rint(part * np.float32(65535)).astype(np.uint16)))
    planes = np.ascontiguousarray(unit_floats(canvas.array).transpose(2, 0, 1))
    native = canvas.size.width / (right - left)
    if by < native * SHARP_FROM:
        shrunk = Size(*(max(1, round(side * by / native)) for side in canvas.size))
        planes = resized(planes, shrunk)
    across, down = planes.shape[2] / (right - left), planes.shape[1] / (bottom - top)
    return planes, np.array([[across, 0.0, -left * across], [0.0, down, -top * down]])


def to_canvas(patch: Patch) -> Affine:
    """From pixels of the crop to those of the enlarged picture."""
    return inverse(patch.to_crop)


def to_drawn_from_canvas(patch: Patch) -> Affine:
    return chained(patch.to_crop, patch.to_drawn)
