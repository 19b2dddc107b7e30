"""The reference runtime: every operation in a few readable lines of NumPy. Slow; for tests and for reading.

In bf16 it rounds weights and every result to bfloat16, as CPUs with AMX do, so that claims about bf16 can be
checked on any machine. Sums are taken in f64: in f32 the last bit would depend on where in an array BLAS put a
pixel, and rounding to bf16 would make two grey levels of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enlarger.engine.networks.ops import Array, Hyper, Net, Weights
from enlarger.engine.runtime import Session


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
            name: self.stored(tensor) if name.endswith(".weight") else tensor
            for name, tensor in weights.items()
        }
        self._kernels = {  # (3, 3, out, in)
            name: np.ascontiguousarray(tensor.transpose(2, 3, 0, 1), np.float64)
            for name, tensor in self._weights.items()
            if tensor.ndim == 4
        }

    def stored(self, x: Array) -> Array:
        """`x` as the precision keeps it between operations."""
        return round_to_bf16(x) if self._rounds else x

    def conv(self, x: Array, name: str) -> Array:
        kernel, bias = self._kernels[f"{name}.weight"], self._weights[f"{name}.bias"]
        n, c, h, w = x.shape
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        out = np.broadcast_to(bias.astype(np.float64)[:, None], (n, len(bias), h * w)).copy()
        for ky in range(3):
            for kx in range(3):
                out += kernel[ky, kx] @ padded[:, :, ky : ky + h, kx : kx + w].reshape(n, c, h * w)
        return self.stored(out.astype(np.float32).reshape(n, -1, h, w))

    def leaky_relu(self, x: Array, slope: float) -> Array:
        return self.stored(np.where(x >= 0, x, x * np.float32(slope)))

    def prelu(self, x: Array, name: str) -> Array:
        slopes = self._weights[f"{name}.weight"][:, None, None]
        return self.stored(np.where(x >= 0, x, x * slopes))

    def add(self, a: Array, b: Array) -> Array:
        return self.stored(a + b)

    def scale(self, x: Array, factor: float) -> Array:
        # Kept in f32: runtimes fuse it with the addition that follows.
        return x * np.float32(factor)

    def concat(self, parts: Sequence[Array]) -> Array:
        return np.concatenate(parts, axis=1)

    def nearest(self, x: Array, factor: int) -> Array:
        return x.repeat(factor, axis=2).repeat(factor, axis=3)

    def pixel_shuffle(self, x: Array, factor: int) -> Array:
        n, c, h, w = x.shape
        split = x.reshape(n, c // factor**2, factor, factor, h, w)  # (n, c', dy, dx, h, w)
        return split.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * factor, w * factor)

    def pixel_unshuffle(self, x: Array, factor: int) -> Array:
        n, c, h, w = x.shape
        split = x.reshape(n, c, h // factor, factor, w // factor, factor)  # (n, c, h', dy, w', dx)
        return split.transpose(0, 1, 3, 5, 2, 4).reshape(n, -1, h // factor, w // factor)


def round_to_bf16(x: Array) -> Array:
    """Each float32 to the nearest bfloat16, ties to even, still held as float32. NaN and infinity stay."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(x), rounded.view(np.float32), x).astype(np.float32)
