"""The self-test that a device other than the CPU must pass: it lets right numbers through and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from enlarger.engine import selftest
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.ops import Array, Weights
from enlarger.engine.runtime import Session, open_runtime
from enlarger.errors import RuntimeUnavailable

NET = ARCHITECTURES["rrdbnet"]
HYPER = {"blocks": 1, "features": 8, "growth": 4, "unshuffle": 2}


class Skewed:
    """A device that adds `error` to one value of what it computes."""

    def __init__(self, session: Session, error: float, precision: str) -> None:
        self.precision = precision
        self._session = session
        self._error = error

    def run(self, stage: str, x_nchw: Array) -> Array:
        values = self._session.run(stage, x_nchw).copy()
        if stage == "tail":
            values[0, 1, 5, 5] += self._error
        return values


@pytest.fixture
def weights() -> Weights:
    random = np.random.default_rng(1)
    return {
        name: (0.1 * random.standard_normal(shape)).astype(np.float32)
        for name, shape in NET.shapes(HYPER).items()
    }


def skewed(weights: Weights, error: float, precision: str = "f32") -> Skewed:
    session = open_runtime("openvino").open_session(NET, HYPER, weights, precision="f32", threads=0)
    return Skewed(session, error, precision)


@pytest.mark.parametrize(("error", "precision"), [(0.0, "f32"), (1e-3, "f32"), (0.01, "f16"), (0.03, "bf16")])
def test_a_device_within_the_rounding_of_its_precision_is_trusted(
    weights: Weights, error: float, precision: str
) -> None:
    selftest.verify(skewed(weights, error, precision), NET, HYPER, weights, device="cuda:0")


@pytest.mark.parametrize(
    ("error", "precision", "told"),
    [
        (0.01, "f32", r"cuda:0 .* f32.* off by 1\.0e-02, at most 0\.002"),
        (-0.1, "f16", r"off by 1\.0e-01, at most 0\.02"),
        (0.5, "bf16", r"off by 5\.0e-01, at most 0\.06"),
        (float("nan"), "bf16", "off by nan"),
        (float("inf"), "f32", "off by inf"),
    ],
)
def test_a_device_that_computes_something_else_is_refused_with_the_numbers(
    weights: Weights, error: float, precision: str, told: str
) -> None:
    with pytest.raises(RuntimeUnavailable, match=told):
        selftest.verify(skewed(weights, error, precision), NET, HYPER, weights, device="cuda:0")


@pytest.mark.parametrize(
    ("name", "hyper"),
    [
        ("gfpgan", {"size": 32, "features": 16, "channel_multiplier": 2}),  # takes one size and no other
        ("parsenet", {"features": 32, "features_max": 32, "blocks": 1, "levels": 3, "classes": 4}),
    ],
)
def test_a_network_that_takes_certain_sizes_is_tested_at_one_of_them(
    name: str, hyper: dict[str, int]
) -> None:
    net, random = ARCHITECTURES[name], np.random.default_rng(1)
    weights: Weights = {
        tensor: np.asarray(random.uniform(0, 0.1, shape), np.float32)
        for tensor, shape in net.shapes(hyper).items()
    }
    session = open_runtime("openvino").open_session(net, hyper, weights, precision="f32", threads=0)
    assert selftest.deviation_from_numpy(session, net, hyper, weights) < 1e-4
