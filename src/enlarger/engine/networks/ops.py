"""Ops: the few operations the networks are written in. Each runtime brings its own.

A network is a function of (ops, x); `T` is whatever the runtime computes with: an array, or a node of a graph
that is compiled later. Shapes are (n, c, h, w). Convolutions find their weights by name, so that a runtime can
hold them in the form and precision it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
Hyper = Mapping[str, int]


class Ops(Protocol[T]):
    def conv(self, x: T, name: str) -> T:
        """3×3 convolution, zero padding 1, with `{name}.weight` (out, in, 3, 3) and `{name}.bias` (out,)."""
        ...

    def leaky_relu(self, x: T, slope: float) -> T: ...

    def prelu(self, x: T, name: str) -> T:
        """Leaky ReLU with one slope a channel, `{name}.weight` (c,)."""
        ...

    def add(self, a: T, b: T) -> T: ...

    def scale(self, x: T, factor: float) -> T: ...

    def concat(self, parts: Sequence[T]) -> T:
        """Along the channels."""
        ...

    def nearest(self, x: T, factor: int) -> T:
        """(n, c, h, w) → (n, c, h·factor, w·factor), each pixel repeated."""
        ...

    def pixel_shuffle(self, x: T, factor: int) -> T:
        """(n, c·factor², h, w) → (n, c, h·factor, w·factor)."""
        ...

    def pixel_unshuffle(self, x: T, factor: int) -> T:
        """(n, c, h·factor, w·factor) → (n, c·factor², h, w); the inverse of pixel_shuffle."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a network that is run on its own.

    `forward(ops, x, hyper)` takes (1, channels, h, w). `halo` is how far, in pixels of its own input, an output
    depends on its surroundings, where that is a few pixels; None where the tile plan's overlap answers for it.
    """

    name: str
    forward: Callable[[Any, Any, Hyper], Any]
    channels: Callable[[Hyper], int]
    halo: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """An architecture: its stages in order, and the shape of every tensor its weights must have.

    `upscale(hyper)` is the factor of the whole net. `multiple(hyper)`: input sides must be divisible by it.
    """

    name: str
    stages: tuple[Stage, ...]
    shapes: Callable[[Hyper], dict[str, tuple[int, ...]]]
    upscale: Callable[[Hyper], int]
    multiple: Callable[[Hyper], int]


def conv_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one 3×3 convolution."""
    return {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
