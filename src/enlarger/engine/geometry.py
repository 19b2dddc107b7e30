"""Integers only: output sizes, and how a picture is cut into tiles.

A picture is read through n × m windows of one equal shape. The outer windows end at the picture's own edges;
between two neighbours lies a cut, and each reads at least `overlap` pixels beyond it:

    0                                                    length
    |─────────── window 0 ───────────|
                      |─────────── window 1 ───────────|
    |════════ core 0 ═════════│════════ core 1 ════════|
                           cut│
                      |overlap│overlap|

Only cores are kept. Nothing is padded, so a network sees a border only where the picture has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple


class Size(NamedTuple):
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


class Span(NamedTuple):
    """A window along one axis: what it reads, [start, stop), and what of that is kept, [keep_from, keep_to)."""

    start: int
    stop: int
    keep_from: int
    keep_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """Where one pass of a network is computed. Every window has the same width and the same height."""

    size: Size
    columns: tuple[Span, ...]
    rows: tuple[Span, ...]
    overlap: int

    @property
    def window(self) -> Size:
        return Size(self.columns[0].stop - self.columns[0].start, self.rows[0].stop - self.rows[0].start)

    @property
    def tiles(self) -> int:
        return len(self.columns) * len(self.rows)

    @property
    def work_ratio(self) -> float:
        """Pixels computed ÷ pixels of the picture; 1.0 when nothing is computed twice."""
        return self.tiles * self.window.pixels / self.size.pixels


def target_size(size: Size, scale: float) -> Size:
    """`size` times `scale`, each side rounded half up and at least 1.

    The scale counts as the decimal number it prints as: 100 × 1.145 is 115, though the nearest binary
    fraction of 1.145 lies below it.
    """
    factor = Decimal(repr(scale))

    def side(length: int) -> int:
        return max(1, int((length * factor).quantize(Decimal(1), ROUND_HALF_UP)))

    return Size(side(size.width), side(size.height))


def cut_axis(length: int, parts: int, overlap: int) -> tuple[Span, ...]:
    """`parts` windows of equal length over [0, length), at least `overlap` beyond each cut between them."""
    window = min(length, _window_length(length, parts, overlap))
    starts = [index * (length - window) // max(1, parts - 1) for index in range(parts)]
    # The cut lies in the middle of what two neighbours share, so both have the same context.
    cuts = [0, *((starts[i] + window + starts[i + 1]) // 2 for i in range(parts - 1)), length]
    return tuple(Span(s, s + window, cuts[i], cuts[i + 1]) for i, s in enumerate(starts))


def plan_tiles(size: Size, *, overlap: int, max_pixels: int) -> TilePlan:
    """The grid whose windows hold at most `max_pixels` and compute the fewest pixels twice.

    A picture that fits is one window. Where no window of `max_pixels` can hold the overlap on all its sides
    (a tiny limit), the smallest window that can is used.
    """
    best: tuple[int, int, int] | None = None
    for across in range(1, _most_parts(size.width, overlap) + 1):
        width = _window_length(size.width, across, overlap)
        down = _parts_needed(size.height, max_pixels // width, overlap)
        work = across * width * down * _window_length(size.height, down, overlap)
        fits = width * _window_length(size.height, down, overlap) <= max_pixels
        if fits and (best is None or (work, across * down) < (best[0], best[1] * best[2])):
            best = (work, across, down)
    _, across, down = best or (0, _most_parts(size.width, overlap), _most_parts(size.height, overlap))
    return TilePlan(
        size=size,
        columns=cut_axis(size.width, across, overlap),
        rows=cut_axis(size.height, down, overlap),
        overlap=overlap,
    )


def strip_length(core: int, *, within: int, most: int, halo: int) -> int:
    """Length of the equal strips that cover a core of `core` pixels, each at most `most` with its halos."""
    longest = max(1, most - 2 * halo)
    parts = -(-core // longest)
    return min(within, -(-core // parts) + 2 * halo)


def strips(start: int, stop: int, *, within: int, length: int, halo: int) -> tuple[Span, ...]:
    """[start, stop) of an axis of length `within` in windows of one `length`, `halo` beyond each cut.

    Used where a stage of a network needs a few pixels of context but much memory. A window that would reach
    past the axis is moved inwards, so all keep one shape.
    """
    spans: list[Span] = []
    keep_from = start
    while keep_from < stop:
        first = min(max(0, keep_from - halo), within - length)
        last = first + length
        keep_to = min(stop, last if last == within else last - halo)
        spans.append(Span(first, last, keep_from, keep_to))
        keep_from = keep_to
    return tuple(spans)


def _window_length(length: int, parts: int, overlap: int) -> int:
    return -(-(length + 2 * overlap * (parts - 1)) // parts)


def _most_parts(length: int, overlap: int) -> int:
    """Parts beyond which a core would be narrower than the overlap: from there on waste only grows."""
    return max(1, length // max(1, overlap) - 1)


def _parts_needed(length: int, longest: int, overlap: int) -> int:
    """The fewest parts whose windows are at most `longest`, or the most that make sense."""
    if length <= longest:
        return 1
    spare = longest - 2 * overlap
    most = _most_parts(length, overlap)
    return most if spare <= 0 else min(most, max(2, -(-(length - 2 * overlap) // spare)))
