"""Whole numbers only: output sizes, and how a picture is cut into tiles.

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
from fractions import Fraction
from math import isqrt
from typing import NamedTuple

from enlarger.engine.options import MAX_SCALE, Options
from enlarger.errors import InvalidOption


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


class Target(NamedTuple):
    """What a result measures: the picture is resized to `resized`, then its middle is cut out to `output`."""

    resized: Size
    output: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """Where one pass of a network is computed. Every window has the same width and the same height.

    Spans count in units of `unit` input pixels: 1 for most networks, 2 or 4 for those that fold that many
    pixels into one before they start. A picture that is no multiple of the unit is continued to the next one.
    """

    size: Size
    columns: tuple[Span, ...]
    rows: tuple[Span, ...]
    overlap: int
    """Input pixels."""
    unit: int = 1

    @property
    def window(self) -> Size:
        """In input pixels."""
        return Size(
            (self.columns[0].stop - self.columns[0].start) * self.unit,
            (self.rows[0].stop - self.rows[0].start) * self.unit,
        )

    @property
    def tiles(self) -> int:
        return len(self.columns) * len(self.rows)

    @property
    def work_ratio(self) -> float:
        """Pixels computed ÷ pixels of the picture; 1.0 when nothing is computed twice."""
        return self.tiles * self.window.pixels / self.size.pixels


def target_of(size: Size, options: Options) -> Target:
    """What the options ask of a picture of `size`. Raises InvalidOption: a size given twice or out of reach."""
    asked = {
        name: value
        for name in ("width", "height", "long_side", "short_side", "megapixels")
        if (value := getattr(options, name)) is not None
    }
    if len(asked) > 1 and set(asked) != {"width", "height"}:
        names = " and ".join(asked)
        raise InvalidOption(
            f"{names} are given together; give one of them, or width with height", list(asked)[1]
        )
    if not asked:
        resized = target_size(size, options.scale)
        return Target(resized, resized)
    target = _boxed(size, options) if len(asked) == 2 else _single(size, *next(iter(asked.items())))
    for side, was, becomes in zip(("width", "height"), size, target.resized, strict=True):
        if becomes > was * MAX_SCALE:
            field = side if side in asked else next(iter(asked))
            most = f"at most {int(was * MAX_SCALE)}" if field == side else "less"
            raise InvalidOption(
                f"{field}={asked[field]:g} makes the {side} {becomes} px, more than {MAX_SCALE:g} times the {was} px "
                f"of the input; ask for {most}",
                field,
            )
    return target


def target_size(size: Size, scale: float) -> Size:
    """`size` times `scale`, each side rounded half up and at least 1.

    The scale counts as the decimal number it prints as: 100 × 1.145 is 115, though the nearest binary
    fraction of 1.145 lies below it.
    """
    return _times(size, Fraction(repr(scale)))


def _single(size: Size, name: str, value: float) -> Target:
    """The size whose width, height, longer or shorter side, or area is `value`, in the picture's proportions."""
    if name == "megapixels":
        # The square root in whole numbers: exact to a part in a million, and the same on every machine.
        factor = Fraction(isqrt(round(Fraction(repr(value)) * 10**18 / size.pixels)), 10**6)
    else:
        side = {
            "width": size.width,
            "height": size.height,
            "long_side": max(size),
            "short_side": min(size),
        }[name]
        factor = Fraction(int(value), side)
    resized = _times(size, factor)
    return Target(resized, resized)


def _boxed(size: Size, options: Options) -> Target:
    box = Size(options.width or 1, options.height or 1)
    if options.fit == "stretch":
        return Target(box, box)
    factors = (Fraction(box.width, size.width), Fraction(box.height, size.height))
    if options.fit == "contain":
        resized = _times(size, min(factors))
        return Target(resized, resized)
    return Target(_times(size, max(factors)), box)


def _times(size: Size, factor: Fraction) -> Size:
    return Size(*(max(1, (2 * side * factor + 1).__floor__() // 2) for side in size))


def cut_axis(length: int, parts: int, overlap: int) -> tuple[Span, ...]:
    """`parts` windows of equal length over [0, length), at least `overlap` beyond each cut between them."""
    window = min(length, _window_length(length, parts, overlap))
    starts = [index * (length - window) // max(1, parts - 1) for index in range(parts)]
    # The cut lies in the middle of what two neighbours share, so both have the same context.
    cuts = [0, *((starts[i] + window + starts[i + 1]) // 2 for i in range(parts - 1)), length]
    return tuple(Span(s, s + window, cuts[i], cuts[i + 1]) for i, s in enumerate(starts))


def plan_tiles(size: Size, *, overlap: int, max_pixels: int, unit: int = 1) -> TilePlan:
    """The grid whose windows hold at most `max_pixels` and compute the fewest pixels twice.

    A picture that fits is one window. Where no window of `max_pixels` can hold the overlap on all its sides
    (a tiny limit), the smallest window that can is used.
    """
    units = Size(-(-size.width // unit), -(-size.height // unit))
    margin = -(-overlap // unit)
    across, down = _grid(units, margin, max(1, max_pixels // unit**2))
    return TilePlan(
        size=size,
        columns=cut_axis(units.width, across, margin),
        rows=cut_axis(units.height, down, margin),
        overlap=overlap,
        unit=unit,
    )


def _grid(size: Size, overlap: int, max_pixels: int) -> tuple[int, int]:
    """How many windows across and down."""
    best: tuple[int, int, int, int] | None = None  # work, windows, across, down
    for across in range(1, _most_parts(size.width, overlap) + 1):
        width = _window_length(size.width, across, overlap)
        down = _parts_needed(size.height, max_pixels // width, overlap)
        height = _window_length(size.height, down, overlap)
        candidate = (across * width * down * height, across * down, across, down)
        if width * height <= max_pixels and (best is None or candidate < best):
            best = candidate
    if best is None:
        return _most_parts(size.width, overlap), _most_parts(size.height, overlap)
    return best[2], best[3]


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
