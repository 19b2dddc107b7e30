"""Runtimes: which runtime computes what, on one device. The device's own computes everything; on a CPU that
multiplies bf16, with AMX or AVX-512, the native kernel takes the models it is made for.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

from enlarger.engine.machine import Device
from enlarger.engine.networks.ops import Hyper, Net, Weights
from enlarger.engine.runtime import RUNTIMES, Runtime, Session, open_runtime, quickest_of

NATIVE = "native"


class Runtimes:
    """The runtimes of `device`. `asked` forces one: a name of RUNTIMES, or empty for what suits best.

    `native` is asked for what the kernel computes; the rest stays with the device's own runtime. Nothing is opened
    or probed before it is needed.
    """

    def __init__(self, device: Device, asked: str = "") -> None:
        self._device = device
        self._asked = asked
        self._opened: dict[str, Runtime] = {}

    @property
    def name(self) -> str:
        """Of the runtime that computes everything the kernel does not."""
        return self._device.runtime if self._asked in ("", NATIVE) else self._asked

    @property
    def own(self) -> Runtime:
        """That runtime. Raises RuntimeUnavailable, also where `native` was asked for and cannot be used."""
        if self._asked == NATIVE:
            self._open(NATIVE)
        return self._open(self.name)

    def name_for(self, net: Net, hyper: Hyper, precision: str) -> str:
        """Of the runtime that computes this network in this precision."""
        return NATIVE if self.products_for(net, hyper, precision) else self.name

    def products_for(self, net: Net, hyper: Hyper, precision: str) -> str:
        """What the native kernel multiplies with, where it computes this network; empty where it does not."""
        kernel = kernel_on(self._device.name)
        if self._asked not in ("", NATIVE) or not kernel.products:
            return ""
        from enlarger.engine.runtime import native

        tiles = native.chosen().tiles
        return kernel.products if tiles is not None and native.computes(net, hyper, precision, tiles) else ""

    def quickest_for(self, net: Net, hyper: Hyper) -> str:
        """The precision in which this network is computed unless another is asked for. Raises RuntimeUnavailable."""
        has_kernel = self.products_for(net, hyper, "bf16") != ""
        return quickest_of(self.own.precisions(), has_kernel=has_kernel)

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session:
        """Raises RuntimeUnavailable."""
        runtime = self._open(self.name_for(net, hyper, precision))
        return runtime.open_session(net, hyper, weights, precision=precision, threads=threads)

    def _open(self, name: str) -> Runtime:
        if name not in self._opened:
            self._opened[name] = open_runtime(name, self._device.name)
        return self._opened[name]


class Kernel(NamedTuple):
    """Whether the native kernel computes on a device, and how."""

    products: str
    """What it multiplies with: AMX or AVX-512 BF16. Empty where it does not compute."""
    reason: str
    """Why not, or why not with something quicker."""


def kernel_on(device: str) -> Kernel:
    """Looked at once a process."""
    row = RUNTIMES[NATIVE]
    if device not in row.kinds:
        return Kernel("", f"it computes on {' and '.join(row.kinds)}, not on {device}")
    if find_spec(row.package) is None:
        return Kernel("", f"it was not built; {row.install}")
    from enlarger.engine.runtime import native

    choice = native.chosen()
    return Kernel(choice.products, choice.reason)
