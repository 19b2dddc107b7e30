"""How a window is cut into the blocks that threads work on, and what the cuts cost. Pure whole numbers.

A dense block of the network is computed block by block of the picture. Its first four convolutions are computed 4,
3, 2 and 1 pixels beyond a cut, on both sides, as neighbours know nothing of each other (`cpp/dense.hpp`). Columns are
computed 16 at a time. So fewer cuts are better, but each thread must have a block, and a block must stay in a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from enlarger.engine.geometry import Size

MAX_COLUMNS = 256
"""Width of a block: the rows of a dense block that are alive take 4 kB a column, 1.1 MB of a cache of 2 MB."""

SMALLEST_ROWS, SMALLEST_COLUMNS = 8, 32
"""Of a block that has neighbours. The kernel asks for 5 and 20; below these more is computed twice than once."""

TILE = 16
"""Pixels of a row that are computed at once."""

UNEVEN = 1.03
"""What waiting for each other costs where every thread has one block of each stage: 192² on two cores."""

Convolutions = tuple[tuple[int, int], ...]
"""Of what is repeated in a network: (products a pixel ÷ 9, pixels computed beyond a cut) of each convolution."""

CHAIN: Convolutions = ((64 * 64, 0),)
"""A convolution that is a stage of its own reads what its neighbours have finished."""


def _dense_block(features: int = 64, growth: int = 32, convolutions: int = 5) -> Convolutions:
    last = convolutions - 1
    return tuple(
        ((features + growth * index) * (growth if index < last else features), last - index)
        for index in range(convolutions)
    )


DENSE_BLOCK = _dense_block()


@dataclass(frozen=True, slots=True)
class Grid:
    """Where a window is cut, both ends included: `rows` and `columns` in pixels of the trunk."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    convolutions: Convolutions = DENSE_BLOCK

    @property
    def blocks(self) -> int:
        return (len(self.rows) - 1) * (len(self.columns) - 1)

    @property
    def work_ratio(self) -> float:
        """Products that are computed ÷ products of the window; above 1 by cuts and by tiles not full."""
        computed = sum(
            cost * _length(self.rows, halo, unit=1) * _length(self.columns, halo, unit=TILE)
            for cost, halo in self.convolutions
        )
        return computed / (sum(cost for cost, _ in self.convolutions) * self.rows[-1] * self.columns[-1])


@lru_cache(maxsize=64)  # the windows of a picture have one shape
def grid_of(size: Size, threads: int, convolutions: Convolutions = DENSE_BLOCK) -> Grid:
    """The cuts with which `threads` are done with a window first."""
    fewest = -(-size.width // MAX_COLUMNS)
    most = 2 * (threads + fewest) + 16  # more blocks keep no more threads busy
    grids = [
        Grid(_cuts(size.height, down), _cuts(size.width, across), convolutions)
        for across in range(fewest, max(fewest, min(most, _most_parts(size.width, SMALLEST_COLUMNS))) + 1)
        for down in range(1, max(1, min(most // across, _most_parts(size.height, SMALLEST_ROWS))) + 1)
    ]
    return min(grids, key=lambda grid: (_cost(grid, threads), grid.blocks))


def _cost(grid: Grid, threads: int) -> float:
    """Relative time: the work, and how many threads are idle meanwhile."""
    across = len(grid.columns) - 1
    # The first block of a stage waits for those around it, up to number `across` + 1, of the stage before, while
    # other threads are at work on the last `threads` − 1 of that.
    if threads == 1 or grid.blocks >= threads + across + 1:
        return grid.work_ratio
    rounds = -(-grid.blocks // threads)
    return grid.work_ratio * rounds * threads / grid.blocks * UNEVEN


def _length(cuts: tuple[int, ...], halo: int, *, unit: int) -> int:
    """Pixels computed along one axis, each block up to a whole number of units."""
    end = cuts[-1]
    spans = ((max(0, start - halo), min(end, stop + halo)) for start, stop in pairwise(cuts))
    return sum(-(-(stop - start) // unit) * unit for start, stop in spans)


def _most_parts(length: int, smallest: int) -> int:
    return max(1, length // smallest)


def _cuts(length: int, parts: int) -> tuple[int, ...]:
    return tuple(length * index // parts for index in range(parts + 1))
