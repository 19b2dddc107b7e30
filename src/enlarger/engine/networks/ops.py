"""Ops: the few operations the networks are written in. Each runtime brings its own.

A network is a function of (ops, x); `T` is whatever the runtime computes with: an array, or a node of a graph
that is compiled later. Shapes are (n, c, h, w). Convolutions find their weights by name, so that a runtime can
hold them in the form and precision it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")

Array = npt.NDArray[np.float32]
Weights = Mapping[str, Array]
Hyper = Mapping[str, int]

Edges = Literal["zero", "reflect"]
"""What a convolution sees beyond the border: zeros, or the pixels mirrored at the outermost one."""

NORM_EPSILON = 1e-5
"""Added to the variance of a batch norm, as torch does."""

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
"""The tensors of a batch norm, in the order OpenVINO takes them."""

DEMODULATION_EPSILON = 1e-8
"""Added to the sum under the root of a demodulation (StyleGAN2, arXiv 1912.04958, equation 3)."""


class Ops(Protocol[T]):
    def conv(self, x: T, name: str, *, stride: int = 1, edges: Edges = "zero") -> T:
        """k×k convolution, k odd, that sees k//2 pixels beyond the border.

        (n, in, h, w) → (n, out, h/stride, w/stride). `{name}.weight` is (out, in, k, k), or (1, out, in, k, k);
        `{name}.bias` (out,) is added where there is one.
        """
        ...

    def linear(self, x: T, name: str) -> T:
        """(n, c, h, w), read as vectors of c·h·w, → (n, out, 1, 1).

        By `{name}.weight` (out, c·h·w) and `{name}.bias` (out,).
        """
        ...

    def demodulation(self, style: T, name: str) -> T:
        """1 / √(Σ (style·weight)² + 1e-8) for each output channel of `conv(…, name)`: (n, in, 1, 1) → (n, out, 1, 1).

        It gives the convolution of an input scaled by `style` unit variance again (StyleGAN2, arXiv 1912.04958).
        """
        ...

    def batch_norm(self, x: T, name: str) -> T:
        """(x − running_mean) / √(running_var + 1e-5) · weight + bias a channel, by those tensors of `name`."""
        ...

    def constant(self, name: str) -> T:
        """The tensor of that name, to be added or multiplied."""
        ...

    def leaky_relu(self, x: T, slope: float) -> T: ...

    def prelu(self, x: T, name: str) -> T:
        """Leaky ReLU with one slope a channel, `{name}.weight` (c,)."""
        ...

    def add(self, a: T, b: T) -> T:
        """Shapes as in NumPy: a side of 1 is repeated."""
        ...

    def multiply(self, a: T, b: T) -> T:
        """Shapes as in NumPy: a side of 1 is repeated."""
        ...

    def scale(self, x: T, factor: float, shift: float = 0.0) -> T:
        """x·factor + shift."""
        ...

    def concat(self, parts: Sequence[T]) -> T:
        """Along the channels."""
        ...

    def channels(self, x: T, start: int, stop: int) -> T:
        """(n, c, h, w) → (n, stop − start, h, w)."""
        ...

    def nearest(self, x: T, factor: int) -> T:
        """(n, c, h, w) → (n, c, h·factor, w·factor), each pixel repeated."""
        ...

    def halve(self, x: T) -> T:
        """(n, c, h, w) → (n, c, h/2, w/2), the mean of each 2×2; what bilinear ×0.5 comes to."""
        ...

    def double(self, x: T) -> T:
        """(n, c, h, w) → (n, c, 2h, 2w), bilinear between centres of pixels, the border repeated."""
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
    `precisions` are those it may be computed in; f32 stands in for others (`runtime.precision_for`). The networks for
    faces hold 45 dB to f32 in those they list (docs/decisions.md).
    """

    name: str
    stages: tuple[Stage, ...]
    shapes: Callable[[Hyper], dict[str, tuple[int, ...]]]
    upscale: Callable[[Hyper], int]
    multiple: Callable[[Hyper], int]
    precisions: tuple[str, ...] = ("f32", "bf16", "f16")


def conv_shapes(
    name: str, inputs: int, outputs: int, *, side: int = 3, has_bias: bool = True
) -> dict[str, tuple[int, ...]]:
    """The tensors of one convolution with a kernel of `side` × `side`."""
    weight = {f"{name}.weight": (outputs, inputs, side, side)}
    return weight | ({f"{name}.bias": (outputs,)} if has_bias else {})


def linear_shapes(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one linear layer."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def kernel(tensor: Array) -> Array:
    """Weights of a convolution as (out, in, k, k); those of modulated ones are stored with a leading 1."""
    return tensor[0] if tensor.ndim == 5 else tensor
