"""The reference runtime: every operation in a few readable lines of NumPy. Slow; for tests and for reading.

In bf16 it rounds weights and every result to bfloat16, as CPUs with AMX do, so that claims about bf16 can be
checked on any machine. Sums are taken in f64: in f32 the last bit would depend on where in an array BLAS put a
pixel, and rounding to bf16 would make two grey levels of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from enlarger.engine.networks.ops import (
    DEMODULATION_EPSILON,
    NORM_EPSILON,
    NORM_PARTS,
    Array,
    Edges,
    Hyper,
    Net,
    Weights,
    kernel,
)
from enlarger.engine.runtime import Session

GATHERED_VALUES = 2**24
"""How many values a convolution gathers at a time for one product of matrices: 128 MiB."""

_NO_BIAS = np.zeros(1, np.float32)


class NumPy:
    def __init__(self, device: str = "cpu") -> None:
        del device  # there is one kind

    def precisions(self) -> tuple[str, ...]:
        return ("f32", "bf16")

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session:
        del threads  # BLAS decides
        return _Session(net, hyper, weights, precision)


class _Session:
    def __init__(self, net: Net, hyper: Hyper, weights: Weights, precision: str) -> None:
        self.precision = precision
        self._stages = {stage.name: stage for stage in net.stages}
        self._hyper = hyper
        self._ops = _ArrayOps(weights, rounds=precision == "bf16")

    def run(self, stage: str, x_nchw: Array) -> Array:
        return self._stages[stage].forward(self._ops, self._ops.stored(x_nchw), self._hyper)


class _ArrayOps:
    def __init__(self, weights: Weights, *, rounds: bool) -> None:
        self._rounds = rounds
        self._weights = {
            name: self.stored(kernel(tensor)) if name.endswith(".weight") else tensor
            for name, tensor in weights.items()
        }

    def stored(self, x: Array) -> Array:
        """`x` as the precision keeps it between operations."""
        return round_to_bf16(x) if self._rounds else x

    def conv(self, x: Array, name: str, *, stride: int = 1, edges: Edges = "zero") -> Array:
        weight = self._weights[f"{name}.weight"].astype(np.float64)
        bias = self._weights.get(f"{name}.bias", _NO_BIAS)[:, None]
        n, outputs, reach = len(x), len(weight), weight.shape[2] // 2
        around = ((0, 0), (0, 0), (reach, reach), (reach, reach))
        padded = np.pad(x.astype(np.float64), around, "reflect" if edges == "reflect" else "constant")
        seen = sliding_window_view(padded, weight.shape[2:], (2, 3))[:, :, ::stride, ::stride]
        height, width = seen.shape[2:4]
        out = np.empty((n, outputs, height, width), np.float32)
        rows = max(1, GATHERED_VALUES // (n * weight[0].size * width))
        for top in range(0, height, rows):
            band = seen[:, :, top : top + rows]  # (n, in, rows, width, k, k)
            columns = band.transpose(0, 1, 4, 5, 2, 3).reshape(n, weight[0].size, -1)
            sums = weight.reshape(outputs, -1) @ columns + bias
            out[:, :, top : top + rows] = sums.reshape(n, outputs, -1, width)
        return self.stored(out)

    def linear(self, x: Array, name: str) -> Array:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        out = x.reshape(len(x), -1).astype(np.float64) @ weight.T + bias
        return self.stored(out.astype(np.float32)[:, :, None, None])

    def demodulation(self, style: Array, name: str) -> Array:
        squares = np.square(self._weights[f"{name}.weight"]).sum((2, 3))  # (out, in)
        sums = np.square(style[:, :, 0, 0]) @ squares.T  # (n, out)
        root = np.sqrt(sums + np.float32(DEMODULATION_EPSILON))
        return self.stored(np.reciprocal(root))[:, :, None, None]

    def batch_norm(self, x: Array, name: str) -> Array:
        weight, bias, mean, variance = (self._weights[f"{name}.{part}"][:, None, None] for part in NORM_PARTS)
        deviation: Array = np.sqrt(variance + np.float32(NORM_EPSILON))
        return self.stored((x - mean) / deviation * weight + bias)

    def constant(self, name: str) -> Array:
        return self._weights[name]

    def leaky_relu(self, x: Array, slope: float) -> Array:
        return self.stored(np.where(x >= 0, x, x * np.float32(slope)))

    def prelu(self, x: Array, name: str) -> Array:
        slopes = self._weights[f"{name}.weight"][:, None, None]
        return self.stored(np.where(x >= 0, x, x * slopes))

    def add(self, a: Array, b: Array) -> Array:
        return self.stored(a + b)

    def multiply(self, a: Array, b: Array) -> Array:
        return self.stored(a * b)

    def scale(self, x: Array, factor: float, shift: float = 0.0) -> Array:
        # Kept in f32: runtimes fuse it with the addition that follows.
        return x * np.float32(factor) + np.float32(shift)

    def concat(self, parts: Sequence[Array]) -> Array:
        return np.concatenate(parts, axis=1)

    def channels(self, x: Array, start: int, stop: int) -> Array:
        return x[:, start:stop]

    def nearest(self, x: Array, factor: int) -> Array:
        return x.repeat(factor, axis=2).repeat(factor, axis=3)

    def halve(self, x: Array) -> Array:
        n, c, h, w = x.shape
        return self.stored(x.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5)))

    def double(self, x: Array) -> Array:
        return self.stored(_doubled(_doubled(x, 2), 3))

    def pixel_shuffle(self, x: Array, factor: int) -> Array:
        n, c, h, w = x.shape
        split = x.reshape(n, c // factor**2, factor, factor, h, w)  # (n, c', dy, dx, h, w)
        return split.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * factor, w * factor)

    def pixel_unshuffle(self, x: Array, factor: int) -> Array:
        n, c, h, w = x.shape
        split = x.reshape(n, c, h // factor, factor, w // factor, factor)  # (n, c, h', dy, w', dx)
        return split.transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, h // factor, w // factor)


def _doubled(x: Array, axis: int) -> Array:
    """Twice as long along `axis`: each value becomes two, a quarter of the way to its neighbours."""
    length = x.shape[axis]
    own = [place // 2 for place in range(2 * length)]
    # The outermost value stands in for the neighbour it does not have.
    other = [min(max(place // 2 + place % 2 * 2 - 1, 0), length - 1) for place in range(2 * length)]
    near: Array = x.take(own, axis) * np.float32(0.75)
    far: Array = x.take(other, axis) * np.float32(0.25)
    return near + far


def round_to_bf16(x: Array) -> Array:
    """Each float32 to the nearest bfloat16, ties to even, still held as float32. NaN and infinity stay."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x).astype(np.float32)
