"""Run a Session over a picture tile by tile.

Each window of the plan is read, converted to floats, run, and its core written. A network of two stages is
run as trunk over the window and then tail over strips of the core, which bounds the memory of the tail. A
WindowSession does all of that itself and writes to the canvas.

Two faults are answered here and named in the notes of the run. A tile with values that are no numbers is
computed again in f32, and so is every later one. A tile that does not fit into memory is cut in two, with the
overlap of the plan, and only that one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from enlarger.engine.bands import PassBands
from enlarger.engine.geometry import Size, Span, TilePlan, plan_tiles, strip_length, strips
from enlarger.engine.networks.ops import Array, Net, Stage
from enlarger.engine.pictures.picture import Canvas, Picture, Pixels
from enlarger.engine.runtime import Session, WindowSession
from enlarger.errors import Cancelled, NumericFault, OutOfMemory

STRIP_PIXELS = 32_768
"""Feature pixels a strip of the tail holds: 8 kB each in f32, so about 270 MB."""

SMALLEST_TILE_PIXELS = 64 * 64
"""A window of fewer pixels is not cut any further for want of memory."""

# How RGB becomes gray again, as the reference does it (ITU-R BT.601 luma).
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A finished rectangle of the network's result, in pixels of that result.

    One without area tells only how far the work is.
    """

    left: int
    top: int
    width: int
    height: int
    done: int
    """Input pixels finished so far, this rectangle included, of `total`."""
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a run is followed and stopped: `finished(tile)` after each rectangle, `cancelled()` before each.

    A session that takes long for a rectangle has both called meanwhile.
    """

    finished: Callable[[Tile], None] = lambda tile: None
    cancelled: Callable[[], bool] = lambda: False

    def check(self) -> None:
        if self.cancelled():
            raise Cancelled("the work was cancelled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One network over one picture: everything that stays the same from tile to tile."""

    session: Session
    safe_session: Callable[[], Session]
    """Opens the f32 session that takes over after a numeric fault."""
    net: Net
    scale: int
    plan: TilePlan
    strip_pixels: int = STRIP_PIXELS


@dataclass(slots=True)
class Outcome:
    """What happened besides the result. `precision` is what later pictures had better be computed in."""

    precision: str
    notes: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class _Window:
    """A rectangle to compute: spans in units of the plan, and the place of its origin in the picture."""

    column: Span
    row: Span


def run_tiles(
    run: Pass, picture: Picture, canvas: Canvas, watch: Watch, bands: PassBands | None = None
) -> Outcome:
    """Write the colour of `picture`, enlarged by the network, to `canvas` of `run.scale` times its size.

    What `bands` have of it is not computed, and what is computed they keep, up to the first fault: from there on
    another run might go otherwise. Raises Cancelled, OutOfMemory or NumericFault. Alpha is not touched.
    """
    return _TileRun(run, picture, canvas, watch).complete(bands)


class _TileRun:
    """The state of one run: which session computes, what was noted, how far it is."""

    def __init__(self, run: Pass, picture: Picture, canvas: Canvas, watch: Watch) -> None:
        self._run = run
        self._picture = picture
        self._canvas = canvas
        self._watch = watch
        self._session = run.session
        self._outcome = Outcome(run.session.precision)
        self._done = 0
        self._step = run.scale * run.plan.unit  # output pixels a unit

    def complete(self, bands: PassBands | None) -> Outcome:
        unit, rows = self._run.plan.unit, self._run.plan.rows
        # Where the picture is no multiple of the unit, the canvas ends before the last window does.
        ends = [min(row.keep_to * self._step, self._canvas.size.height) for row in rows]
        there = bands.restore(ends) if bands is not None else 0
        if there:
            self._report(0, 0, there, self._canvas.size.width)
        for row, end in zip(rows, ends, strict=True):
            if end <= there:
                continue
            band = _continued(self._picture, row, unit)
            for column in self._run.plan.columns:
                x_nchw = _floats(band[:, column.start * unit : column.stop * unit])
                self._compute(x_nchw, _Window(column, row))
            if bands is not None and not self._outcome.notes:
                bands.keep(end)
        return self._outcome

    def _compute(self, x_nchw: Array, window: _Window) -> None:
        """Compute and write one window, answering the faults that can be answered."""
        self._watch.check()
        done = self._done
        try:
            self._attempt(x_nchw, window)
            return
        except (NumericFault, OutOfMemory) as error:
            fault = type(error)(error.message)
        # Answered out here: inside the handler the traceback would keep the arrays of the failed attempt alive.
        self._done = done
        if isinstance(fault, NumericFault):
            self._fall_back(window)
            self._attempt(x_nchw, window)
        else:
            self._halve(x_nchw, window, fault)

    def _attempt(self, x_nchw: Array, window: _Window) -> None:
        if isinstance(self._session, WindowSession):
            self._attempt_whole(self._session, x_nchw, window)
            return
        trunk, *tail = self._run.net.stages
        features = self._session.run(trunk.name, x_nchw)
        if not tail:
            self._write(features, window)
            return
        for part in self._tail_strips(tail[0], window):
            self._watch.check()
            strip = np.ascontiguousarray(features[:, :, part.start : part.stop])
            y_nchw = self._session.run(tail[0].name, strip)
            origin = window.row.start
            row = Span(
                origin + part.start, origin + part.stop, origin + part.keep_from, origin + part.keep_to
            )
            self._write(y_nchw, _Window(window.column, row))

    def _attempt_whole(self, session: WindowSession, x_nchw: Array, window: _Window) -> None:
        """Let the session write what the window keeps."""
        row, column, step = window.row, window.column, self._step
        top, left = row.keep_from * step, column.keep_from * step
        # Where the picture is no multiple of the unit, the canvas ends before the continuation does.
        into = self._canvas.array[top : row.keep_to * step, left : column.keep_to * step]
        origin = (top - row.start * step, left - column.start * step)
        height, width = into.shape[:2]
        told = 0

        def tick(share: float) -> None:
            nonlocal told
            self._watch.check()
            done = int(share * height * width)
            if done > told:
                told = done
                self._tell(top, left, 0, 0, self._done + done)

        if not session.run_window(x_nchw, origin, into, tick):
            raise _no_numbers(window)
        self._report(top, left, height, width)

    def _tail_strips(self, tail: Stage, window: _Window) -> tuple[Span, ...]:
        """Strips over the kept rows of a window, in rows of the window.

        All windows of the plan get strips of one shape; a part of a window that did not fit into memory gets
        strips that are smaller in proportion.
        """
        row, halo = window.row, tail.halo or 0
        within = row.stop - row.start
        whole = self._run.plan.window.pixels // self._run.plan.unit**2
        # strip_pixels · (pixels of this window ÷ pixels of a whole one) ÷ width of this window
        most = max(2 * halo + 1, self._run.strip_pixels * within // whole)
        longest_core = max(span.keep_to - span.keep_from for span in (row, *self._run.plan.rows))
        length = strip_length(min(longest_core, within), within=within, most=most, halo=halo)
        return strips(
            row.keep_from - row.start, row.keep_to - row.start, within=within, length=length, halo=halo
        )

    def _write(self, y_nchw: Array, window: _Window) -> None:
        """Place what a window keeps of its result. Raises NumericFault when that is not all finite."""
        row, column, step = window.row, window.column, self._step
        kept = y_nchw[
            0,
            :,
            (row.keep_from - row.start) * step : (row.keep_to - row.start) * step,
            (column.keep_from - column.start) * step : (column.keep_to - column.start) * step,
        ].transpose(1, 2, 0)  # (h, w, 3)
        if not np.isfinite(kept).all():
            raise _no_numbers(window)
        top, left = row.keep_from * step, column.keep_from * step
        # Where the picture is no multiple of the unit, the continuation is cut off again.
        kept = kept[: self._canvas.size.height - top, : self._canvas.size.width - left]
        if self._canvas.array.shape[2] == 1:
            kept = (np.clip(kept, 0.0, 1.0) @ LUMA)[:, :, None]
        self._canvas.write(top, left, kept)
        self._report(top, left, kept.shape[0], kept.shape[1])

    def _report(self, top: int, left: int, height: int, width: int) -> None:
        self._done += height * width
        self._tell(top, left, height, width, self._done)

    def _tell(self, top: int, left: int, height: int, width: int, done: int) -> None:
        total = self._canvas.size.pixels
        area = self._run.scale**2
        tile = Tile(left=left, top=top, width=width, height=height, done=done // area, total=total // area)
        self._watch.finished(tile)

    def _fall_back(self, window: _Window) -> None:
        """Go on in f32, if that is not what failed."""
        if self._session.precision == "f32":
            raise NumericFault(
                "the network gave values that are no numbers even in f32: the weights may be damaged, "
                "see `enlarger doctor`"
            )
        self._outcome.notes.append(
            f"values that were no numbers in {self._session.precision} at x={window.column.start}, "
            f"y={window.row.start}: computed in f32 from there on"
        )
        self._session = self._run.safe_session()
        self._outcome.precision = self._session.precision

    def _halve(self, x_nchw: Array, window: _Window, fault: OutOfMemory) -> None:
        """Compute the window in halves, with the plan's overlap between them."""
        unit = self._run.plan.unit
        size = Size(x_nchw.shape[3], x_nchw.shape[2])
        halves = plan_tiles(size, overlap=self._run.plan.overlap, max_pixels=size.pixels * 3 // 4, unit=unit)
        if size.pixels < SMALLEST_TILE_PIXELS or halves.tiles == 1:
            raise OutOfMemory(f"a tile of {size.width}×{size.height} does not fit into memory") from fault
        self._outcome.notes.append(
            f"too little memory for a tile of {size.width}×{size.height}: computed as {halves.tiles} smaller ones"
        )
        for row in halves.rows:
            for column in halves.columns:
                part = _Window(_nested(window.column, column), _nested(window.row, row))
                if part.column.keep_from < part.column.keep_to and part.row.keep_from < part.row.keep_to:
                    cut = x_nchw[
                        :, :, row.start * unit : row.stop * unit, column.start * unit : column.stop * unit
                    ]
                    self._compute(np.ascontiguousarray(cut), part)


def _no_numbers(window: _Window) -> NumericFault:
    return NumericFault(
        f"the network gave values that are no numbers around x={window.column.start}, y={window.row.start}"
    )


def _nested(outer: Span, inner: Span) -> Span:
    """A span inside the window `outer`, in the coordinates of the picture; keeps nothing `outer` does not."""
    start = outer.start
    keep_from = max(outer.keep_from, start + inner.keep_from)
    keep_to = min(outer.keep_to, start + inner.keep_to)
    return Span(start + inner.start, start + inner.stop, keep_from, keep_to)


def _continued(picture: Picture, row: Span, unit: int) -> Pixels:
    """The colour of a band of rows, mirrored at the right and bottom up to a whole number of units."""
    height, width = picture.size.height, picture.size.width
    band = picture.rows(row.start * unit, min(row.stop * unit, height))[:, :, : picture.colours]
    below, right = (row.stop - row.start) * unit - band.shape[0], -width % unit
    if not below and not right:
        return band
    if below and band.shape[0] <= below:
        # Too few rows to mirror in this band: take them from the picture above it.
        above = picture.rows(max(0, height - below - 1), height)[:, :, : picture.colours]
        mirrored = np.pad(above, ((0, below), (0, 0), (0, 0)), mode="reflect")[above.shape[0] :]
        band, below = np.concatenate([band, mirrored]), 0
    return np.pad(band, ((0, below), (0, right), (0, 0)), mode="reflect")


def _floats(pixels: Pixels) -> Array:
    """(h, w, 1 or 3) integers → (1, 3, h, w) float32 in [0, 1]."""
    top_value = np.float32(np.iinfo(pixels.dtype).max)
    planes = pixels.astype(np.float32).transpose(2, 0, 1)[None] / top_value
    return np.ascontiguousarray(np.broadcast_to(planes, (1, 3, *planes.shape[2:])))
