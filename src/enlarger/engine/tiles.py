"""Run a Session over a picture tile by tile.

Each window of the plan is read, converted to floats, run, and its core written. A network of two stages is
run as trunk over the window and then tail over strips of the core, which bounds the memory of the tail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from enlarger.engine.geometry import Span, TilePlan, strip_length, strips
from enlarger.engine.networks.ops import Array, Net, Stage
from enlarger.engine.pictures.picture import Canvas, Picture, Pixels
from enlarger.engine.runtime import Session
from enlarger.errors import Cancelled, NumericFault

STRIP_PIXELS = 32_768
"""Feature pixels a strip of the tail holds: 8 kB each in f32, so about 270 MB."""

# How RGB becomes gray again, as the reference does it (ITU-R BT.601 luma).
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a run is followed and stopped: `progress(done, total)` in input pixels, `cancelled()` between tiles."""

    progress: Callable[[int, int], None] = lambda done, total: None
    cancelled: Callable[[], bool] = lambda: False

    def check(self) -> None:
        if self.cancelled():
            raise Cancelled("the work was cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One network over one picture: everything that stays the same from tile to tile."""

    session: Session
    net: Net
    scale: int
    plan: TilePlan
    strip_pixels: int = STRIP_PIXELS


def run_tiles(run: Pass, picture: Picture, canvas: Canvas, watch: Watch) -> None:
    """Write the colour of `picture`, enlarged by the network, to `canvas` of `run.scale` times its size.

    Raises Cancelled, OutOfMemory or NumericFault. Alpha is not touched.
    """
    done, total = 0, picture.size.pixels
    for row in run.plan.rows:
        band = picture.rows(row.start, row.stop)[:, :, : picture.colours]
        for column in run.plan.columns:
            watch.check()
            x_nchw = _floats(band[:, column.start : column.stop])
            for part_row, y_nchw in _computed(run, x_nchw, row, column, watch):
                _place(canvas, y_nchw, part_row, column, run.scale)
                done += (part_row.keep_to - part_row.keep_from) * (column.keep_to - column.keep_from)
                watch.progress(done, total)


def _computed(
    run: Pass, x_nchw: Array, row: Span, column: Span, watch: Watch
) -> Iterator[tuple[Span, Array]]:
    """The kept part of one window: (rows of the picture it covers, values that start at row.start)."""
    trunk, *tail = run.net.stages
    features = run.session.run(trunk.name, x_nchw)
    if not tail:
        kept = _cropped(features, row, column, run.scale)
        yield row, kept
        return
    for part in _tail_strips(run, tail[0], row):
        watch.check()
        strip = features[:, :, part.start : part.stop]
        y_nchw = run.session.run(tail[0].name, np.ascontiguousarray(strip))
        moved = Span(row.start + part.start, 0, row.start + part.keep_from, row.start + part.keep_to)
        yield moved, _cropped(y_nchw, moved, column, run.scale)


def _tail_strips(run: Pass, tail: Stage, row: Span) -> tuple[Span, ...]:
    """Strips over the kept rows of a window, in rows of the window. All strips of a plan have one shape."""
    window = run.plan.window
    halo = tail.halo or 0
    longest_core = max(span.keep_to - span.keep_from for span in run.plan.rows)
    most = max(2 * halo + 1, run.strip_pixels // window.width)
    length = strip_length(longest_core, within=window.height, most=most, halo=halo)
    return strips(
        row.keep_from - row.start, row.keep_to - row.start, within=window.height, length=length, halo=halo
    )


def _floats(pixels: Pixels) -> Array:
    """(h, w, 1 or 3) integers → (1, 3, h, w) float32 in [0, 1]."""
    top_value = np.float32(np.iinfo(pixels.dtype).max)
    planes = pixels.astype(np.float32).transpose(2, 0, 1)[None] / top_value
    return np.ascontiguousarray(np.broadcast_to(planes, (1, 3, *planes.shape[2:])))


def _cropped(y_nchw: Array, row: Span, column: Span, scale: int) -> Array:
    """What a window keeps of its result. Raises NumericFault when that is not all finite."""
    kept = y_nchw[
        :,
        :,
        (row.keep_from - row.start) * scale : (row.keep_to - row.start) * scale,
        (column.keep_from - column.start) * scale : (column.keep_to - column.start) * scale,
    ]
    if not np.isfinite(kept).all():
        raise NumericFault(
            f"the network gave values that are not numbers for the tile at x={column.start}, y={row.start}"
        )
    return kept


def _place(canvas: Canvas, y_nchw: Array, row: Span, column: Span, scale: int) -> None:
    values = y_nchw[0].transpose(1, 2, 0)  # (h, w, 3)
    if canvas.array.shape[2] == 1:
        values = (np.clip(values, 0.0, 1.0) @ LUMA)[:, :, None]
    canvas.write(row.keep_from * scale, column.keep_from * scale, values)
