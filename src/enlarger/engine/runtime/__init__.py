"""Runtimes: where a network is computed. One file a runtime; RUNTIMES names them without importing any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

from enlarger.engine.networks.ops import Array, Hyper, Net, Weights
from enlarger.engine.pictures.picture import Pixels
from enlarger.errors import RuntimeUnavailable


class Session(Protocol):
    """Weights loaded on a device, ready to run."""

    @property
    def precision(self) -> str:
        """What it computes in: f32, bf16 or f16."""
        ...

    def run(self, stage: str, x_nchw: Array) -> Array:
        """One stage of the network on (1, c, h, w) float32; any h and w the network accepts.

        RGB goes in as [0, 1] and comes out in the same range, not clamped. Raises OutOfMemory; the session
        stays usable.
        """
        ...


@runtime_checkable
class WindowSession(Session, Protocol):
    """A session that runs a whole window by itself, all stages of the network, and writes the pixels."""

    def run_window(
        self, x_nchw: Array, origin: tuple[int, int], into: Pixels, tick: Callable[[float], None]
    ) -> bool:
        """Write a part of the result of the window `x_nchw` as `Canvas.write` would: `into` is (h, w, 1 or 3),
        gray as BT.601 luma, and begins at `origin` (top, left) of the result.

        `tick(share)` is called about ten times a second with the part that is done; what it raises ends the run.
        False where a value was no finite number. Raises OutOfMemory; the session stays usable.
        """
        ...


class Runtime(Protocol):
    """What a module under `runtime/` offers."""

    def precisions(self) -> tuple[str, ...]:
        """What this machine can compute in, the one that `auto` means first."""
        ...

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRow:
    """`module` holds the class `cls`, made with the name of a device whose kind is one of `kinds`.

    It needs `package`; `install` is how to get that.
    """

    module: str
    cls: str
    kinds: tuple[str, ...]
    package: str
    install: str


RUNTIMES: Mapping[str, RuntimeRow] = {
    "openvino": RuntimeRow(
        module="enlarger.engine.runtime.openvino",
        cls="OpenVino",
        kinds=("cpu", "gpu"),
        package="openvino",
        install="pip install openvino",
    ),
    "torch": RuntimeRow(
        module="enlarger.engine.runtime.torch",
        cls="Torch",
        kinds=("cpu", "cuda", "mps"),
        package="torch",
        install="pip install 'enlarger[torch]'",
    ),
    "numpy": RuntimeRow(
        module="enlarger.engine.runtime.numpy",
        cls="NumPy",
        kinds=("cpu",),
        package="numpy",
        install="pip install numpy",
    ),
    "native": RuntimeRow(
        module="enlarger.engine.runtime.native",
        cls="Native",
        kinds=("cpu",),
        package="enlarger.engine.runtime.native._kernel",
        install="install enlarger on Linux x86-64 where g++ 11 or newer is",
    ),
}


def open_runtime(name: str, device: str = "cpu") -> Runtime:
    """The runtime of that name on a device: cpu, cuda:N, mps, gpu or gpu:N (see `machine.choose_device`).

    Raises RuntimeUnavailable, with the install hint where a package is missing.
    """
    row = RUNTIMES.get(name)
    if row is None:
        raise RuntimeUnavailable(f"there is no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    if device.partition(":")[0] not in row.kinds:
        raise RuntimeUnavailable(
            f"the runtime {name} computes on {' or '.join(row.kinds)}, not on {device!r}"
        )
    if find_spec(row.package) is None:
        raise RuntimeUnavailable(f"the runtime {name} needs a package that is missing: {row.install}")
    runtime: Runtime = getattr(import_module(row.module), row.cls)(device)
    return runtime


def choose_precision(runtime: Runtime, asked: str) -> str:
    """`asked`, or the runtime's own choice for `auto`. Raises RuntimeUnavailable where it cannot do it."""
    return precision_of(runtime.precisions(), asked)


def precision_of(able: tuple[str, ...], asked: str) -> str:
    """`asked`, or the first of `able` for `auto`. Raises RuntimeUnavailable where it is none of them."""
    if asked == "auto":
        return able[0]
    if asked not in able:
        raise RuntimeUnavailable(
            f"this machine computes in {' and '.join(sorted(able))}, not in {asked}; use precision=auto"
        )
    return asked


def quickest_of(able: tuple[str, ...], *, has_kernel: bool) -> str:
    """What `auto` means for a network, where the native kernel computes it and where only others do."""
    return "bf16" if has_kernel else able[0]


def precision_for(net: Net, precision: str) -> str:
    """`precision`, or f32 where `net` does not hold in it (see Net)."""
    return precision if precision in net.precisions else "f32"
