from __future__ import annotations

import math

import numpy as np
import pytest

from enlarger.engine import selftest
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS, ModelSpec
from enlarger.engine.networks.ops import Array
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.runtime import Session, open_runtime


def opened(spec: ModelSpec, weights: dict[str, Array], runtime: str, precision: str = "f32") -> Session:
    net = ARCHITECTURES[spec.net]
    return open_runtime(runtime).open_session(net, spec.hyper, weights, precision=precision, threads=0)


# The models whose weights come with the installation.
@pytest.mark.parametrize("model", selftest.EXPECTED)
def test_the_stored_answers_are_those_of_the_reference_runtime(model: str) -> None:
    spec = MODELS[model]
    values = selftest.probed(spec, opened(spec, dict(load_weights(spec).tensors), "numpy"))
    np.testing.assert_allclose(values, selftest.EXPECTED[model], rtol=0, atol=1e-4)
    assert len(values) == 3 * len(selftest.PROBES)


@pytest.mark.parametrize("model", selftest.EXPECTED)
def test_every_runtime_and_precision_of_this_machine_passes(model: str) -> None:
    spec = MODELS[model]
    weights = dict(load_weights(spec).tensors)
    for precision in open_runtime("openvino").precisions():
        off = selftest.deviation(spec, opened(spec, weights, "openvino", precision))
        assert off <= selftest.TOLERANCE[precision]
    off = selftest.deviation(spec, opened(spec, weights, "numpy", "bf16"))
    assert off <= selftest.TOLERANCE["bf16"]


@pytest.mark.parametrize("model", ["RealESRGAN_x4plus_anime_6B", "realesr-animevideov3"])
@pytest.mark.parametrize("fault", ["all 5 % larger", "one channel lost", "first layer mirrored"])
def test_a_session_that_computes_something_else_is_found(model: str, fault: str) -> None:
    spec = MODELS[model]
    weights = {name: tensor.copy() for name, tensor in load_weights(spec).tensors.items()}
    first = next(iter(weights))
    if fault == "all 5 % larger":
        weights = {name: tensor * np.float32(1.05) for name, tensor in weights.items()}
    elif fault == "one channel lost":
        weights[first][:, 0] = 0
    else:
        weights[first] = weights[first][:, :, :, ::-1].copy()
    off = selftest.deviation(spec, opened(spec, weights, "openvino"))
    assert off > max(selftest.TOLERANCE.values())


def test_a_session_that_computes_no_numbers_does_not_pass() -> None:
    spec = MODELS["realesr-animevideov3"]
    weights = dict(load_weights(spec).tensors)
    weights["body.0.bias"] = np.full_like(weights["body.0.bias"], np.nan)
    assert math.isnan(selftest.deviation(spec, opened(spec, weights, "numpy")))
