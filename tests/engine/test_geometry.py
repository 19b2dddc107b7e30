from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine.geometry import (
    Size,
    Span,
    cut_axis,
    plan_tiles,
    strip_length,
    strips,
    target_size,
)
from enlarger.engine.plan import MAX_TILE_PIXELS

LENGTHS = st.integers(1, 3000)
SIZES = st.builds(Size, LENGTHS, LENGTHS)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((100, 100), 1.145, (115, 115)),
        ((3, 5), 0.5, (2, 3)),
        ((1, 7), 0.1, (1, 1)),
        ((7, 7), 5e-324, (1, 1)),
        ((179, 1), 2.5, (448, 3)),
        ((1000, 30), 1.0005, (1001, 30)),
        ((65_535, 1), 10.0, (655_350, 10)),
        ((640, 448), 4.0, (2560, 1792)),
    ],
)
def test_each_side_is_rounded_half_up_and_at_least_one(
    size: tuple[int, int], scale: float, expected: tuple[int, int]
) -> None:
    assert target_size(Size(*size), scale) == expected


@given(SIZES, st.floats(0, 10, exclude_min=True))
def test_target_size_is_that_of_exact_fractions(size: Size, scale: float) -> None:
    exact = [max(1, math.floor(length * Fraction(repr(scale)) + Fraction(1, 2))) for length in size]
    assert target_size(size, scale) == Size(*exact)


def is_partition(spans: tuple[Span, ...], start: int, stop: int) -> bool:
    edges = [start, *(span.keep_to for span in spans)]
    return edges[-1] == stop and [span.keep_from for span in spans] == edges[:-1]


@given(LENGTHS, st.integers(1, 12), st.integers(0, 200))
def test_windows_of_an_axis_are_equal_and_their_cores_cover_it_once(
    length: int, parts: int, overlap: int
) -> None:
    spans = cut_axis(length, parts, overlap)
    assert len(spans) == parts
    assert is_partition(spans, 0, length)
    assert len({span.stop - span.start for span in spans}) == 1
    assert spans[0].start == 0
    assert spans[-1].stop == length
    assert all(span.start <= span.keep_from <= span.keep_to <= span.stop for span in spans)


@given(LENGTHS, st.integers(2, 12), st.integers(0, 200))
def test_both_sides_of_a_cut_read_the_overlap_beyond_it(length: int, parts: int, overlap: int) -> None:
    for left, right in pairwise(cut_axis(length, parts, overlap)):
        assert left.stop == length or left.stop - left.keep_to >= overlap
        assert right.start == 0 or right.keep_from - right.start >= overlap


@given(SIZES, st.integers(0, 100), st.integers(1, 2_000_000))
def test_a_plan_keeps_every_pixel_once_in_equal_windows(size: Size, overlap: int, most: int) -> None:
    plan = plan_tiles(size, overlap=overlap, max_pixels=most)
    for spans, length in ((plan.columns, size.width), (plan.rows, size.height)):
        assert is_partition(spans, 0, length)
        assert all(span.keep_from < span.keep_to for span in spans)
    assert {span.stop - span.start for span in plan.columns} == {plan.window.width}
    assert {span.stop - span.start for span in plan.rows} == {plan.window.height}
    assert plan == plan_tiles(size, overlap=overlap, max_pixels=most)


@given(SIZES, st.integers(0, 100), st.integers(1, 2_000_000))
def test_a_picture_that_fits_is_one_window(size: Size, overlap: int, spare: int) -> None:
    plan = plan_tiles(size, overlap=overlap, max_pixels=size.pixels + spare - 1)
    assert (plan.tiles, plan.work_ratio) == (1, 1.0)


def windows_by_parts(length: int, overlap: int) -> list[int]:
    """Length of the windows when an axis is cut into 1, 2, … parts, down to cores as narrow as the overlap."""
    return [cut_axis(length, parts, overlap)[0].stop for parts in range(1, max(1, length // overlap - 1) + 1)]


@given(
    st.builds(Size, st.integers(1, 400), st.integers(1, 400)), st.integers(8, 40), st.integers(400, 90_000)
)
def test_no_other_grid_of_windows_that_fit_computes_less(size: Size, overlap: int, most: int) -> None:
    plan = plan_tiles(size, overlap=overlap, max_pixels=most)
    widths, heights = windows_by_parts(size.width, overlap), windows_by_parts(size.height, overlap)
    fitting = [
        across * width * down * height
        for (across, width), (down, height) in product(enumerate(widths, 1), enumerate(heights, 1))
        if width * height <= most
    ]
    if fitting:
        assert plan.window.pixels <= most
        assert plan.tiles * plan.window.pixels == min(fitting)
    else:
        assert plan.window == (widths[-1], heights[-1])


@given(st.floats(0.1, 10), st.integers(1, 500_000), st.sampled_from((18, 64, 96)))
def test_up_to_half_a_megapixel_nothing_is_computed_twice(ratio: float, pixels: int, overlap: int) -> None:
    width = max(1, min(pixels, round(math.sqrt(pixels * ratio))))
    plan = plan_tiles(Size(width, pixels // width), overlap=overlap, max_pixels=MAX_TILE_PIXELS)
    assert plan.work_ratio == 1.0


@pytest.mark.parametrize("size", [Size(2560, 1440), Size(1440, 2560), Size(1920, 1080), Size(4000, 3000)])
def test_context_costs_at_most_two_fifths_more_work(size: Size) -> None:
    plan = plan_tiles(size, overlap=64, max_pixels=MAX_TILE_PIXELS)
    assert plan.window.pixels <= MAX_TILE_PIXELS
    assert 1.0 < plan.work_ratio <= 1.4


@given(st.data(), st.integers(0, 5), st.integers(1, 60))
def test_strips_of_one_length_keep_every_row_once_with_its_halo(
    data: st.DataObject, halo: int, most: int
) -> None:
    within = data.draw(st.integers(1, 500))
    start = data.draw(st.integers(0, within - 1))
    stop = data.draw(st.integers(start + 1, within))
    longest_core = data.draw(st.integers(stop - start, within))
    length = strip_length(longest_core, within=within, most=most, halo=halo)
    spans = strips(start, stop, within=within, length=length, halo=halo)
    assert is_partition(spans, start, stop)
    assert length <= max(most, 2 * halo + 1)
    for span in spans:
        assert span.stop - span.start == length
        assert 0 <= span.start <= span.keep_from < span.keep_to <= span.stop <= within
        assert span.start == 0 or span.keep_from - span.start >= halo
        assert span.stop == within or span.stop - span.keep_to >= halo
