"""What `enlarger doctor` finds out about this machine, one finding after another."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from enlarger.engine import machine, safety, selftest
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.cards import face_models, pull_command
from enlarger.engine.networks.catalogue import DEFAULT_MODEL, MODELS, FaceModelSpec, ModelSpec
from enlarger.engine.networks.weights import (
    default_weights_dir,
    is_present,
    load_weights,
    models,
    place,
    verify_weights,
)
from enlarger.engine.runtime import RUNTIMES, Runtime, choose_precision
from enlarger.engine.runtime.choice import Runtimes, kernel_on
from enlarger.engine.sandbox import sandbox_state
from enlarger.errors import EnlargerError
from enlarger.finding import Finding

DEVICES = ("cuda:0", "mps", "gpu", "cpu")
_KINDS = {"rrdbnet": "RRDBNet", "compact": "compact"}
"""What users call the models of a network."""


def findings(device: str = "auto", weights_dir: Path | None = None) -> Iterator[Finding]:
    """Hardware and its limits, devices, runtimes, the sandbox, then each model: its weights and one tile.

    Of the models for faces the weights only.
    """
    folder = weights_dir or default_weights_dir()
    yield Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    yield from _limits()
    for name in DEVICES:
        seen = machine.sight(name)
        yield Finding(f"device {name}", seen.text if seen.is_usable else f"none: {seen.text}")
    try:
        chosen = machine.choose_device(device)
        runtimes = Runtimes(chosen)
        precision = choose_precision(runtimes.own, "auto")
    except EnlargerError as error:
        yield Finding("chosen", error.message, is_good=False)
        return
    yield Finding("chosen", f"{chosen.name}: {chosen.reason}")
    yield Finding("runtimes", f"{chosen.runtime} of {', '.join(map(_versioned, RUNTIMES))}")
    yield Finding("native kernel", _native(chosen.name, runtimes))
    yield Finding(
        "precision", f"{precision} of {chosen.runtime}: {_reason(runtimes.own, precision, chosen.name)}"
    )
    yield Finding("sandbox", sandbox_state())
    yield Finding("nsfw check", _safety())
    yield Finding("weights", str(folder))
    for spec in models(folder).values():
        yield _model(spec, runtimes, folder)
    for spec in face_models(folder).values():
        yield _face_model(spec, folder)


def _limits() -> Iterator[Finding]:
    cores = machine.usable_cores()
    speed = machine.nominal_gflops("f32", cores=cores.value)
    yield Finding("cpu", f"{machine.cpu_name()}, about {speed:.0f} Gflop/s in f32 by its kind")
    yield Finding("cores", f"{cores.value} usable, by {cores.by}")
    memory = machine.available_memory()
    if memory is None:
        yield Finding("memory", "this system does not tell how much is free")
    else:
        yield Finding("memory", f"{memory.value / 2**30:.1f} GiB free, by {memory.by}")


def _model(spec: ModelSpec, runtimes: Runtimes, weights_dir: Path) -> Finding:
    # Only the default model must be there; others are pulled by those who want them.
    if spec.name != DEFAULT_MODEL and not is_present(spec, weights_dir):
        return Finding(spec.name, f"not on this machine; get it with: enlarger models pull {spec.name}")
    try:
        loaded = load_weights(spec, weights_dir)
        net = ARCHITECTURES[spec.net]
        precision = runtimes.quickest_for(net, spec.hyper)
        session = runtimes.open_session(
            net, spec.hyper, loaded.tensors, precision=precision, threads=machine.default_threads()
        )
        if spec.name in selftest.EXPECTED and place(spec) == "package":
            off = selftest.deviation(spec, session)
        else:
            off = selftest.deviation_from_numpy(session, net, spec.hyper, loaded.tensors)
    except EnlargerError as error:
        return Finding(spec.name, error.message, is_good=False)
    limit = selftest.TOLERANCE[precision]
    told = f"weights verified ({loaded.sha256[:12]}…), self-test off by {off:.1e} (limit {limit:g})"
    return Finding(spec.name, told, is_good=off <= limit)


def _native(device: str, runtimes: Runtimes) -> str:
    kernel = kernel_on(device)
    if not kernel.products:
        return f"not used: {kernel.reason}"
    nets = {spec.net for spec in MODELS.values() if _is_native(spec, runtimes)}
    kinds = " and ".join(name for net, name in _KINDS.items() if net in nets)
    told = f"computes {kinds} models in bf16 with {kernel.products}, OpenVINO the rest"
    return f"{told} ({kernel.reason})" if kernel.reason else told


def _is_native(spec: ModelSpec, runtimes: Runtimes) -> bool:
    return runtimes.products_for(ARCHITECTURES[spec.net], spec.hyper, "bf16") != ""


def _face_model(spec: FaceModelSpec, weights_dir: Path) -> Finding:
    """A file that is here must be sound; none need be here."""
    if not is_present(spec, weights_dir):
        return Finding(spec.name, f"not on this machine; for faces get it with: {pull_command(spec)}")
    try:
        verify_weights(spec, weights_dir)
    except EnlargerError as error:
        return Finding(spec.name, error.message, is_good=False)
    return Finding(spec.name, f"weights verified ({spec.files[0].sha256[:12]}…), the {spec.role} of faces")


def _versioned(runtime: str) -> str:
    row = RUNTIMES[runtime]
    if find_spec(row.package) is None:
        return f"{runtime} (not installed: {row.install})"
    try:
        return f"{runtime} {version(row.package)}"
    except PackageNotFoundError:
        return runtime  # a part of this package


def _reason(runtime: Runtime, precision: str, device: str) -> str:
    if device != "cpu":
        return f"what this device computes best of {', '.join(runtime.precisions())}"
    if precision == "bf16":
        return "this CPU has AMX, where bf16 is several times quicker"
    if "bf16" in runtime.precisions():
        return "this CPU has bf16 but no AMX, where it may be slower and is less exact"
    return "this CPU has no bf16 arithmetic"


def _safety() -> str:
    if safety.is_available():
        return "open_nsfw, on every result of the server"
    return "not installed, no result is checked: pip install 'enlarger[safety]'"
