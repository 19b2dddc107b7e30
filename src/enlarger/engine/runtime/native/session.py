"""NativeSession: a packed network, and windows computed with it by threads that live as long as the window."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enlarger.engine.geometry import Size
from enlarger.engine.networks.ops import Array
from enlarger.engine.pictures.picture import Pixels
from enlarger.engine.runtime.native.blocks import Convolutions, Grid, grid_of
from enlarger.engine.runtime.native.library import SAMPLE_KINDS, Library, Sink, Window

TICK_MS = 100
"""How often a run says how far it is, and may be stopped."""

SCALE = 4
"""Pixels of the result a pixel of the trunk, each way."""


@dataclass(frozen=True, slots=True)
class Stages:
    """How a network is cut: a stage by name, with whether it starts at the picture and whether it ends in pixels."""

    rows: Mapping[str, tuple[bool, bool]]
    convolutions: Convolutions
    """What they cost."""


class NativeSession:
    """Over `net`, which the library has packed and this frees. `threads` compute; who waits for them does not.

    `features` are the channels between its stages; `unit` what the sides of a picture are multiples of.
    """

    precision = "bf16"

    def __init__(
        self,
        library: Library,
        net: int,
        stages: Stages,
        *,
        features: int,
        unit: int,
        threads: int,
        tiles: int,
    ) -> None:
        self._library = library
        self._net = net
        self._stages = stages
        self._features = features
        self._unit = unit
        self._threads = threads
        self._tiles = tiles
        weakref.finalize(self, library.free, net)

    def run(self, stage: str, x_nchw: Array) -> Array:
        """One stage alone. Features between them are rounded to bf16, as inside a window."""
        from_picture, to_pixels = self._stages.rows[stage]
        height, width = self._units(x_nchw, from_picture=from_picture)
        channels, scale = (3, SCALE) if to_pixels else (self._features, 1)
        y_nchw = np.empty((1, channels, scale * height, scale * width), np.float32)
        into = y_nchw[0].transpose(1, 2, 0)
        self._run(x_nchw, Size(width, height), (from_picture, to_pixels), (0, 0), into, lambda share: None)
        return y_nchw

    def run_window(
        self,
        x_nchw: Array,
        origin: tuple[int, int],
        into: Pixels,
        tick: Callable[[float], None],
    ) -> bool:
        """See `WindowSession`."""
        height, width = self._units(x_nchw, from_picture=True)
        return self._run(x_nchw, Size(width, height), (True, True), origin, into, tick)

    def memory_bytes(self, size: Size) -> int:
        """What a window of `size` pixels of the trunk takes while it is computed, without input and result."""
        window, _cuts = _window(size, self.grid(size), self._threads)
        window.from_picture = window.to_pixels = 1
        return self._library.bytes_of(self._net, window)

    def grid(self, size: Size) -> Grid:
        return grid_of(size, self._threads, self._stages.convolutions)

    def _units(self, x_nchw: Array, *, from_picture: bool) -> tuple[int, int]:
        """(height, width) of the trunk. Raises ValueError for an input that is none of this network."""
        unit = self._unit if from_picture else 1
        channels = 3 if from_picture else self._features
        _, _, height, width = x_nchw.shape
        if x_nchw.shape[:2] != (1, channels) or height % unit or width % unit or not height or not width:
            raise ValueError(
                f"the input must be (1, {channels}, h, w) with sides divisible by {unit}, not {x_nchw.shape}"
            )
        return height // unit, width // unit

    def _run(
        self,
        x_nchw: Array,
        size: Size,
        stages: tuple[bool, bool],
        origin: tuple[int, int],
        into: npt.NDArray[Any],
        tick: Callable[[float], None],
    ) -> bool:
        x_nchw = np.ascontiguousarray(x_nchw, np.float32)
        window, _cuts = _window(size, self.grid(size), self._threads)
        window.from_picture, window.to_pixels = stages
        window.input = x_nchw.ctypes.data
        window.sink = _sink(into, origin)
        work = self._library.start(self._net, self._tiles, window)
        is_finite = False
        try:
            running = True
            while running:
                running, share = self._library.wait(work, TICK_MS)
                if running:
                    tick(share)  # may raise Cancelled
        finally:
            is_finite = self._library.end(work)
        return is_finite


def _window(size: Size, grid: Grid, threads: int) -> tuple[Window, object]:
    """The window without its input and output, and what it points to."""
    rows = (ctypes.c_int32 * len(grid.rows))(*grid.rows)
    columns = (ctypes.c_int32 * len(grid.columns))(*grid.columns)
    window = Window(
        height=size.height,
        width=size.width,
        row_blocks=len(grid.rows) - 1,
        column_blocks=len(grid.columns) - 1,
        row_cuts=rows,
        column_cuts=columns,
        threads=min(threads, grid.blocks),
    )
    return window, (rows, columns)


def _sink(into: npt.NDArray[Any], origin: tuple[int, int]) -> Sink:
    """Where the kernel writes (h, w, channels) samples that begin at `origin` (top, left) of its result."""
    height, width, channels = into.shape
    row, pixel, channel = (stride // into.itemsize for stride in into.strides)
    return Sink(
        samples=into.ctypes.data,
        kind=SAMPLE_KINDS[into.dtype.name],
        channels=channels,
        top=origin[0],
        left=origin[1],
        height=height,
        width=width,
        row_stride=row,
        pixel_stride=pixel,
        channel_stride=channel,
    )
