"""What the tests of the native kernel hold it against."""

from __future__ import annotations

from typing import Any

import numpy as np

from enlarger.engine.networks.ops import Array, Hyper, Net, Weights
from enlarger.engine.runtime import Session, open_runtime


def exact(net: Net, hyper: Hyper, weights: Weights) -> Session:
    """The same network in f32 by another runtime."""
    return open_runtime("openvino").open_session(net, hyper, weights, precision="f32", threads=0)


def seeded(height: int, width: int) -> Array:
    return np.random.default_rng(3).random((1, 3, height, width), np.float32)


def decibels(a: Array, b: Array) -> float:
    return float(10 * np.log10(np.abs(b).max() ** 2 / np.mean((a - b) ** 2)))


def rounded(x: Any) -> Any:
    """A torch tensor to bf16 and back to f64."""
    import torch

    return x.float().to(torch.bfloat16).double()


def printed(weight: Any) -> Any:
    """Rounded tap by tap, in f32; what is lost goes to the taps right of it and below, half and half."""
    left = weight.float().clone()
    rows, columns = left.shape[2:]
    for y in range(rows):
        for x in range(columns):
            wanted = left[:, :, y, x].clone()
            left[:, :, y, x] = rounded(wanted).float()
            heirs = [(y, x + 1)] * (x + 1 < columns) + [(y + 1, x)] * (y + 1 < rows)
            for heir in heirs:
                left[:, :, heir[0], heir[1]] += (wanted - left[:, :, y, x]) / len(heirs)
    return left.double()
