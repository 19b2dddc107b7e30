"""The colour lock: large areas of the result get the colour they have in the input.

Networks shift flat colour by up to 7 levels (measured on x4plus). Both pictures are shrunk to one sample for every
CELL × CELL input pixels; what differs there, enlarged again, is added to the result. Detail finer than that is the
network's own.
"""

from __future__ import annotations

import numpy as np

from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import Canvas, Picture, Pixels
from enlarger.engine.pictures.resample import Floats, resampled, unit_floats

CELL = 16
"""Input pixels. With 8 the correction begins to follow texture."""


def lock_colour(colour: Canvas, source: Picture) -> None:
    """Correct `colour`, the enlarged picture, in place; `source` is what it was made from."""

    def source_rows(top: int, bottom: int) -> Pixels:
        return source.rows(top, bottom)[:, :, : source.colours]

    small = Size(-(-source.size.width // CELL), -(-source.size.height // CELL))
    wanted = np.concatenate([band for _, band in resampled(source_rows, source.size, small)])
    found = np.concatenate([band for _, band in resampled(colour.rows, colour.size, small)])
    missing = wanted - found

    def missing_rows(top: int, bottom: int) -> Floats:
        return missing[top:bottom]

    for top, band in resampled(missing_rows, small, colour.size):
        colour.write(top, 0, unit_floats(colour.rows(top, top + len(band))) + band)
