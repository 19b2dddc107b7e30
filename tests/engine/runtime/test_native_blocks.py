"""How windows are cut for the native kernel: whole coverage, little work twice, a block for every thread."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine.geometry import Size, plan_tiles
from enlarger.engine.plan import NATIVE_TILE_PIXELS
from enlarger.engine.runtime.native.blocks import (
    CHAIN,
    MAX_COLUMNS,
    SMALLEST_COLUMNS,
    SMALLEST_ROWS,
    Grid,
    grid_of,
)

lengths = st.integers(1, 1500)


@given(lengths, lengths, st.integers(1, 64))
def test_blocks_cover_the_window_and_are_large_enough_for_their_neighbours(
    width: int, height: int, threads: int
) -> None:
    grid = grid_of(Size(width, height), threads)
    for cuts, length, smallest in (
        (grid.rows, height, SMALLEST_ROWS),
        (grid.columns, width, SMALLEST_COLUMNS),
    ):
        assert (cuts[0], cuts[-1]) == (0, length)
        sides = [stop - start for start, stop in pairwise(cuts)]
        assert min(sides) >= (smallest if len(sides) > 1 else 1)
    assert max(stop - start for start, stop in pairwise(grid.columns)) <= MAX_COLUMNS
    assert grid.work_ratio >= 1


def test_work_is_counted_as_the_kernel_computes_it() -> None:
    assert Grid((0, 64), (0, 64)).work_ratio == 1
    assert Grid((0, 64), (0, 60)).work_ratio == 64 / 60  # columns come by sixteens
    # A cut through the rows: 8, 6, 4 and 2 rows more of convolutions that cost 2048, 3072, 4096 and 5120 of 26624.
    extra = 8 * 2048 + 6 * 3072 + 4 * 4096 + 2 * 5120
    assert Grid((0, 30, 64), (0, 64)).work_ratio == 1 + extra / 26624 / 64


def test_cuts_cost_a_chain_nothing_but_tiles_that_are_not_full() -> None:
    assert Grid((0, 30, 64), (0, 32, 64), CHAIN).work_ratio == 1
    assert Grid((0, 64), (0, 40, 64), CHAIN).work_ratio == 80 / 64
    for threads in (2, 16, 64):
        grid = grid_of(Size(512, 512), threads, CHAIN)
        assert grid.work_ratio == 1
        assert grid.blocks >= threads


def test_a_photo_of_512_px_costs_a_tenth_more_at_most() -> None:
    for threads in (1, 2, 4, 8, 16):
        grid = grid_of(Size(512, 512), threads)
        assert grid.work_ratio <= 1.10
        assert grid.blocks >= threads


def test_a_picture_of_1440p_costs_a_quarter_more_at_most() -> None:
    plan = plan_tiles(Size(2560, 1440), overlap=64, max_pixels=NATIVE_TILE_PIXELS)
    for threads in (1, 2, 8, 64):
        assert plan.work_ratio * grid_of(plan.window, threads).work_ratio <= 1.25


def test_every_core_has_work() -> None:
    for threads in (2, 8, 64):
        assert grid_of(Size(1344, 784), threads).blocks >= threads
