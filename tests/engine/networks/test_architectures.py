"""Each network, in each runtime, against spandrel's implementation of it in torch."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.checkpoints import parameter_count
from enlarger.engine.networks.ops import Hyper, Net
from enlarger.engine.runtime import open_runtime

from .synthetic import GENERAL

RRDB = {"features": 64, "growth": 32}
COMPACT = {"features": 64}

CASES = {
    "rrdbnet x4": ("rrdbnet", {**RRDB, "blocks": 2, "unshuffle": 1}, (11, 7)),
    "rrdbnet x4, one pixel": ("rrdbnet", {**RRDB, "blocks": 2, "unshuffle": 1}, (1, 1)),
    "rrdbnet x2": ("rrdbnet", {**RRDB, "blocks": 2, "unshuffle": 2}, (10, 14)),
    "rrdbnet x1": ("rrdbnet", {**RRDB, "blocks": 2, "unshuffle": 4}, (12, 20)),
    "rrdbnet x4, 23 blocks": ("rrdbnet", {**RRDB, "blocks": 23, "unshuffle": 1}, (9, 8)),
    "compact x4": ("compact", {**COMPACT, "convs": 16, "scale": 4}, (13, 9)),
    "compact x2": ("compact", {**COMPACT, "convs": 32, "scale": 2}, (5, 7)),
    # Large enough for the graph of fixed shape that OpenVINO gets for large windows.
    "compact x4, large": ("compact", {**COMPACT, "convs": 1, "scale": 4}, (257, 261)),
}

PARAMETERS = [
    ("rrdbnet", {**RRDB, "blocks": 23, "unshuffle": 1}, 16_697_987),
    ("rrdbnet", {**RRDB, "blocks": 23, "unshuffle": 2}, 16_703_171),
    ("rrdbnet", {**RRDB, "blocks": 6, "unshuffle": 1}, 4_467_779),
    ("compact", {**COMPACT, "convs": 32, "scale": 4}, 1_213_296),
    ("compact", {**COMPACT, "convs": 16, "scale": 4}, 621_424),
]

Random = dict[str, np.ndarray]


def random_weights(net: Net, hyper: Hyper) -> Random:
    """Seeded weights whose spread lets values neither vanish nor grow much through the layers."""
    rng = np.random.default_rng(0)
    gain = {"rrdbnet": 0.6, "compact": 1.6}[net.name]
    weights: Random = {}
    for name, shape in net.shapes(hyper).items():
        if len(shape) == 4:
            values = rng.normal(0, np.sqrt(gain / np.prod(shape[1:])), shape)
        else:
            values = rng.uniform(-0.2, 0.3, shape)
        weights[name] = values.astype(np.float32)
    return weights


@pytest.fixture(scope="module")
def expected(spandrel: ModuleType) -> Callable[[Random, np.ndarray], np.ndarray]:
    """What spandrel's own class computes; it recognises the network by the names and shapes of the tensors."""
    import torch

    def compute(weights: Random, x: np.ndarray) -> np.ndarray:
        loaded: Any = spandrel.ModelLoader().load_from_state_dict(
            {name: torch.from_numpy(tensor.copy()) for name, tensor in weights.items()}
        )
        with torch.no_grad():
            result: np.ndarray = loaded.model.eval()(torch.from_numpy(x)).numpy()
        return result

    return compute


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_every_runtime_computes_what_the_independent_implementation_does(
    case: str, expected: Callable[[Random, np.ndarray], np.ndarray]
) -> None:
    name, hyper, (height, width) = CASES[case]
    net = ARCHITECTURES[name]
    weights = random_weights(net, hyper)
    x = np.random.default_rng(1).random((1, 3, height, width), np.float32)
    reference = expected(weights, x)
    factor = net.upscale(hyper)
    assert reference.shape == (1, 3, height * factor, width * factor)
    assert reference.std() > 0.1  # else agreement would mean nothing
    for runtime in GENERAL:
        session = open_runtime(runtime).open_session(net, hyper, weights, precision="f32", threads=0)
        values = x
        for stage in net.stages:
            assert values.shape[1] == stage.channels(hyper)
            values = session.run(stage.name, values)
        np.testing.assert_allclose(values, reference, rtol=0, atol=1e-4, err_msg=runtime)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "hyper", "parameters"), PARAMETERS)
def test_official_tensor_names_load_strictly(
    name: str, hyper: dict[str, int], parameters: int, spandrel: ModuleType
) -> None:
    import torch

    shapes = ARCHITECTURES[name].shapes(hyper)
    with torch.device("meta"):  # names and shapes are checked, no number is held
        loaded: Any = spandrel.ModelLoader(torch.device("meta")).load_from_state_dict(
            {tensor: torch.empty(shape) for tensor, shape in shapes.items()}
        )
    assert sum(tensor.numel() for tensor in loaded.model.state_dict().values()) == parameters
    assert loaded.scale == ARCHITECTURES[name].upscale(hyper)


@pytest.mark.parametrize(("name", "hyper", "parameters"), PARAMETERS)
def test_networks_have_as_many_parameters_as_the_official_ones(
    name: str, hyper: dict[str, int], parameters: int
) -> None:
    assert parameter_count(ARCHITECTURES[name].shapes(hyper)) == parameters
