"""What every runtime promises, held to by every one that this machine can run.

But for the native one: it computes one network, in bf16, and has tests of its own.

Oracles: spandrel's networks (torch's own modules) for the NumPy runtime, and that one for all the others.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import ModuleType

import numpy as np
import pytest

from enlarger.engine import machine
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.ops import Array, Net, Weights
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.runtime import RUNTIMES, Runtime, Session, choose_precision, open_runtime
from enlarger.engine.runtime.choice import NATIVE
from enlarger.errors import EnlargerError, RuntimeUnavailable

SMALL_RRDB = {"blocks": 1, "features": 16, "growth": 32}  # spandrel knows no other growth
NETS = {
    "rrdbnet x4": ("rrdbnet", {**SMALL_RRDB, "unshuffle": 1}),
    "rrdbnet x2": ("rrdbnet", {**SMALL_RRDB, "unshuffle": 2}),
    "rrdbnet x1": ("rrdbnet", {**SMALL_RRDB, "unshuffle": 4}),
    "compact x4": ("compact", {"convs": 3, "features": 16, "scale": 4}),
    "compact x2": ("compact", {"convs": 3, "features": 16, "scale": 2}),
}


GENERAL = [name for name in RUNTIMES if name != NATIVE]


def places(names: Sequence[str] = GENERAL) -> Iterator[object]:
    """(runtime, device) for all that this machine has."""
    for name in names:
        yield pytest.param((name, "cpu"), id=name, marks=[pytest.mark.torch] if name == "torch" else [])
    for device in ("cuda:0", "mps", "gpu"):
        if (seen := machine.sight(device)).is_usable:
            yield pytest.param((seen.runtime, device), id=f"{seen.runtime} {device}")


@pytest.fixture(params=places())
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture
def runtime(place: tuple[str, str]) -> Runtime:
    return open_runtime(*place)


every_net = pytest.mark.parametrize("kind", NETS)


def random_weights(net: Net, hyper: dict[str, int]) -> Weights:
    """Seeded weights that keep values near 1 from layer to layer."""
    random = np.random.default_rng(7)
    tensors: dict[str, Array] = {}
    for name, shape in net.shapes(hyper).items():
        spread = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) == 4 else 0.1
        tensors[name] = (spread * random.standard_normal(shape)).astype(np.float32)
    return tensors


def opened(runtime: Runtime, kind: str, precision: str = "f32") -> Session:
    architecture, hyper = NETS[kind]
    net = ARCHITECTURES[architecture]
    return runtime.open_session(net, hyper, random_weights(net, hyper), precision=precision, threads=0)


def run(session: Session, kind: str, height: int, width: int) -> Array:
    """The whole network over a seeded picture of that many units (its sides' divisor) of pixels."""
    architecture, hyper = NETS[kind]
    net = ARCHITECTURES[architecture]
    return run_on(session, net, seeded(height * net.multiple(hyper), width * net.multiple(hyper)))


def run_on(session: Session, net: Net, values: Array) -> Array:
    for stage in net.stages:
        values = session.run(stage.name, values)
    return values


def seeded(height: int, width: int) -> Array:
    return np.random.default_rng(3).random((1, 3, height, width), np.float32)


def decibels(a: Array, b: Array) -> float:
    return float(10 * np.log10((np.abs(b).max() ** 2) / np.mean((a - b) ** 2)))


@pytest.mark.torch
@every_net
def test_the_reference_runtime_computes_what_spandrel_does(kind: str, spandrel: ModuleType) -> None:
    import torch

    architecture, hyper = NETS[kind]
    net = ARCHITECTURES[architecture]
    state = {name: torch.from_numpy(x) for name, x in random_weights(net, hyper).items()}
    peer = spandrel.ModelLoader().load_from_state_dict(state).model.eval()
    values = seeded(8, 12)
    with torch.inference_mode():
        expected = peer(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(run_on(opened(open_runtime("numpy"), kind), net, values), expected, atol=1e-4)


@every_net
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 13), (11, 7)])
def test_runtimes_agree_in_f32_at_any_size(runtime: Runtime, kind: str, height: int, width: int) -> None:
    expected = run(opened(open_runtime("numpy"), kind), kind, height, width)
    found = run(opened(runtime, kind), kind, height, width)
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


@every_net
def test_bf16_stays_close_to_f32_or_is_refused(runtime: Runtime, kind: str) -> None:
    if "bf16" not in runtime.precisions():
        with pytest.raises(RuntimeUnavailable, match="not in bf16"):
            choose_precision(runtime, "bf16")
        return
    exact = run(opened(open_runtime("numpy"), kind), kind, 11, 7)
    session = opened(runtime, kind, "bf16")
    assert session.precision == "bf16"
    # bf16 rounds each value by up to 1 part in 256: it must show, and it must stay small.
    assert 35 < decibels(run(session, kind, 11, 7), exact) < 75


def test_f16_is_never_chosen_silently(runtime: Runtime) -> None:
    assert choose_precision(runtime, "auto") in ("f32", "bf16")


@every_net
def test_the_same_input_gives_the_same_bytes(runtime: Runtime, kind: str) -> None:
    session = opened(runtime, kind)
    first = run(session, kind, 11, 7).copy()
    run(session, kind, 5, 9)
    assert np.array_equal(run(session, kind, 11, 7), first)
    assert np.array_equal(run(opened(runtime, kind), kind, 11, 7), first)


def test_input_that_may_not_be_written_to_is_read(runtime: Runtime) -> None:
    values = seeded(6, 5)
    values.flags.writeable = False
    before = values.copy()
    opened(runtime, "compact x4").run("net", values)
    assert np.array_equal(values, before)


def test_a_result_outlives_the_next_run(runtime: Runtime) -> None:
    session = opened(runtime, "compact x4")
    first = session.run("net", seeded(6, 5))
    kept = first.copy()
    session.run("net", 1 - seeded(6, 5))
    assert np.array_equal(first, kept)


def test_a_session_stays_usable_after_an_error(runtime: Runtime) -> None:
    session = opened(runtime, "compact x4")
    before = run(session, "compact x4", 6, 5)
    with pytest.raises((EnlargerError, ValueError)):
        session.run("net", np.zeros((1, 5, 6, 5), np.float32))  # five channels where three belong
    assert np.array_equal(run(session, "compact x4", 6, 5), before)


SHORT_OF_MEMORY = """
import resource, sys
import numpy as np
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.runtime import open_runtime
from enlarger.errors import OutOfMemory

net, hyper = ARCHITECTURES["compact"], {"convs": 2, "features": 64, "scale": 4}
weights = {name: np.full(shape, 0.01, np.float32) for name, shape in net.shapes(hyper).items()}
session = open_runtime(sys.argv[1]).open_session(net, hyper, weights, precision="f32", threads=1)
small, large = np.ones((1, 3, 8, 8), np.float32), np.ones((1, 3, 3000, 3000), np.float32)
before = session.run("net", small).copy()
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, resource.RLIM_INFINITY))
try:
    session.run("net", large)  # 2.3 GB a layer
except OutOfMemory as error:
    assert np.array_equal(session.run("net", small), before)
    print("told:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("name", ["openvino", pytest.param("torch", marks=pytest.mark.torch)])
def test_lack_of_memory_is_told_and_the_session_stays_usable(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, name],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("told: ")


@pytest.fixture(scope="session")
def reference() -> Callable[[str], tuple[Weights, Array]]:
    """reference(model) → its weights and what the NumPy runtime makes of the seeded picture with them.

    The weights are the real ones where they come with the installation, seeded ones of the same shapes elsewhere.
    """

    @cache
    def of(model: str) -> tuple[Weights, Array]:
        spec = MODELS[model]
        net = ARCHITECTURES[spec.net]
        held = any(file.package for file in spec.files)
        weights = load_weights(spec).tensors if held else random_weights(net, spec.hyper)
        session = open_runtime("numpy").open_session(net, spec.hyper, weights, precision="f32", threads=0)
        return weights, run_on(session, net, seeded(10, 12))

    return of


@pytest.mark.parametrize("place", list(places([name for name in GENERAL if name != "numpy"])))
@pytest.mark.parametrize("model", MODELS)
def test_every_model_gives_the_same_picture_on_every_runtime(
    model: str, place: tuple[str, str], reference: Callable[[str], tuple[Weights, Array]]
) -> None:
    spec, net = MODELS[model], ARCHITECTURES[MODELS[model].net]
    weights, expected = reference(model)
    session = open_runtime(*place).open_session(net, spec.hyper, weights, precision="f32", threads=0)
    assert expected.std() > 0.05, "a flat answer would compare nothing"
    np.testing.assert_allclose(run_on(session, net, seeded(10, 12)), expected, rtol=0, atol=1e-4)
