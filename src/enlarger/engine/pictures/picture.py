"""Picture: where pixels come from. Canvas: where they go. Both work in bands of rows, so neither has to hold a
whole picture in memory.

Pixels are integers of the picture's own depth, (rows, width, channels): colour first (1 gray or 3 RGB), then
alpha if there is one. Floats exist per tile only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enlarger.engine.geometry import Size

Pixels = npt.NDArray[np.uint8 | np.uint16]
Rows = Callable[[int, int], Pixels]

IN_MEMORY_BYTES = 512 * 2**20
"""Canvases larger than this live in a mapped scratch file, which the system may page out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded picture as a source of row bands.

    `rows(top, bottom)` gives (bottom − top, width, channels + alpha) uint8 or uint16, alpha straight (not
    premultiplied). It may be called in any order and raises InvalidPicture where the file is damaged.
    """

    size: Size
    colours: int
    """1 for gray, 3 for RGB."""
    has_alpha: bool
    depth: int
    """Bits a sample: 8 or 16, as the file says; never guessed from the values."""
    rows: Rows
    icc: bytes = b""
    """The embedded colour profile, empty if there is none. It fits the colours: gray or RGB."""
    exif: bytes = b""
    """The EXIF block as the file holds it, without the "Exif" marker; empty if there is none."""
    xmp: bytes = b""
    """The XMP packet as the file holds it, empty if there is none."""
    format: str = ""
    """Name of the file format it was read from, empty for an array."""
    notes: tuple[str, ...] = ()
    """What decoding changed, one sentence each, for the report."""

    @property
    def channels(self) -> int:
        return self.colours + self.has_alpha

    @staticmethod
    def from_array(pixels: Pixels) -> Picture:
        """A picture over (h, w), (h, w, 1..4) uint8 or uint16: gray, gray+alpha, RGB or RGBA by channels."""
        if pixels.dtype.name not in ("uint8", "uint16"):
            raise TypeError(f"pixels must be uint8 or uint16, not {pixels.dtype}")
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4 or 0 in pixels.shape:
            raise ValueError(f"pixels must be (h, w) or (h, w, 1..4), not {pixels.shape}")
        height, width, channels = pixels.shape
        return Picture(
            size=Size(width, height),
            colours=1 if channels <= 2 else 3,
            has_alpha=channels in (2, 4),
            depth=8 * pixels.dtype.itemsize,
            rows=lambda top, bottom: pixels[top:bottom],
        )


@dataclass(frozen=True, slots=True)
class Canvas:
    """A picture being written: `array` is (height, width, channels) in memory or in a mapped file."""

    array: Pixels

    @property
    def size(self) -> Size:
        return Size(self.array.shape[1], self.array.shape[0])

    @property
    def top_value(self) -> int:
        """What full intensity is: 255 or 65535."""
        return int(np.iinfo(self.array.dtype).max)

    def write(self, top: int, left: int, values: npt.NDArray[np.float32]) -> None:
        """Place (h, w, channels) floats in [0, 1], clamped and rounded to the nearest integer once."""
        height, width, _ = values.shape
        scaled = np.clip(values, 0.0, 1.0) * np.float32(self.top_value)
        self.array[top : top + height, left : left + width] = np.rint(scaled, out=scaled)

    def rows(self, top: int, bottom: int) -> Pixels:
        return self.array[top:bottom]

    def layer(self, start: int, stop: int) -> Canvas:
        """The same canvas seen through channels [start, stop)."""
        return Canvas(self.array[:, :, start:stop])


def open_canvas(size: Size, channels: int, depth: int, scratch: Path | None = None) -> Canvas:
    """An unwritten canvas. One over IN_MEMORY_BYTES is a file in `scratch` that vanishes when it is closed."""
    dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
    shape = (size.height, size.width, channels)
    if size.pixels * channels * dtype.itemsize <= IN_MEMORY_BYTES:
        return Canvas(np.empty(shape, dtype))
    with tempfile.TemporaryFile(dir=scratch) as file:
        # The mapping keeps the nameless file alive after it is closed here.
        return Canvas(np.memmap(file, dtype, "w+", shape=shape))
