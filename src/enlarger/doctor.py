"""What `enlarger doctor` finds out about this machine, one finding after another."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enlarger.engine import selftest
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS, ModelSpec
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.runtime import RUNTIMES, Runtime, choose_precision, open_runtime
from enlarger.errors import EnlargerError


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    text: str
    is_good: bool = True


def findings() -> Iterator[Finding]:
    """Hardware, runtimes, then each model: its weights and one computed tile."""
    yield Finding("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}")
    yield Finding("cpu", f"{_cpu_name()}, {_usable_cores()} cores usable")
    try:
        runtime = open_runtime("openvino")
        precision = choose_precision(runtime, "auto")
    except EnlargerError as error:
        yield Finding("runtime", error.message, is_good=False)
        return
    yield Finding("runtime", f"openvino of {', '.join(RUNTIMES)}: the quickest on a CPU")
    yield Finding("precision", f"{precision}: {_reason(runtime, precision)}")
    for spec in MODELS.values():
        yield _model(spec, runtime, precision)


def _model(spec: ModelSpec, runtime: Runtime, precision: str) -> Finding:
    try:
        loaded = load_weights(spec)
        net = ARCHITECTURES[spec.net]
        session = runtime.open_session(net, spec.hyper, loaded.tensors, precision=precision, threads=0)
        off = selftest.deviation(spec, session)
    except EnlargerError as error:
        return Finding(spec.name, error.message, is_good=False)
    limit = selftest.TOLERANCE[precision]
    told = f"weights verified ({loaded.sha256[:12]}…), self-test off by {off:.1e} (limit {limit:g})"
    return Finding(spec.name, told, is_good=off <= limit)


def _reason(runtime: Runtime, precision: str) -> str:
    if precision == "bf16":
        return "this CPU has AMX, where bf16 is several times quicker"
    if "bf16" in runtime.precisions():
        return "this CPU has bf16 but no AMX, where f32 is quicker"
    return "this CPU has no bf16 arithmetic"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU"
    )
