"""The catalogue's networks in eager PyTorch, as the reference program runs them; a peer, not a test oracle."""

from __future__ import annotations

import torch
from torch.nn import functional

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import ModelSpec
from enlarger.engine.networks.weights import load_weights


class _EagerOps:
    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self._weights = weights

    def conv(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.conv2d(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], padding=1)

    def leaky_relu(self, x: torch.Tensor, slope: float) -> torch.Tensor:
        return functional.leaky_relu(x, slope, inplace=True)

    def prelu(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.prelu(x, self._weights[f"{name}.weight"])

    def add(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b

    def scale(self, x: torch.Tensor, factor: float) -> torch.Tensor:
        return x * factor

    def concat(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(list(parts), 1)

    def nearest(self, x: torch.Tensor, factor: int) -> torch.Tensor:
        return functional.interpolate(x, scale_factor=factor, mode="nearest")

    def pixel_shuffle(self, x: torch.Tensor, factor: int) -> torch.Tensor:
        return functional.pixel_shuffle(x, factor)

    def pixel_unshuffle(self, x: torch.Tensor, factor: int) -> torch.Tensor:
        return functional.pixel_unshuffle(x, factor)


def reference_net(spec: ModelSpec, device: str = "cpu"):
    """A function of (1, 3, h, w) tensors on the device."""
    tensors = load_weights(spec).tensors
    ops = _EagerOps({name: torch.from_numpy(tensor).to(device) for name, tensor in tensors.items()})

    def run(x: torch.Tensor) -> torch.Tensor:
        for stage in ARCHITECTURES[spec.net].stages:
            x = stage.forward(ops, x, spec.hyper)
        return x

    return run
