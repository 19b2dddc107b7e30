"""The native runtime: RRDBNet in bf16 by a kernel of our own, for CPUs with AMX; everything else is OpenVINO's.

`cpp/` is the kernel: its plain C interface is `kernel.h`, its reading starts at `conv.hpp`. `library.py` loads it,
`blocks.py` decides how a window is cut for it, `session.py` runs it.

Whether it is used is decided once a process: the kernel must have been built, the CPU must have the instructions,
the system must allow them, and a small network must come out right. `why_not()` tells which of these failed.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from enlarger.engine import machine, selftest
from enlarger.engine.networks import rrdbnet
from enlarger.engine.networks.ops import Hyper, Net, Weights
from enlarger.engine.runtime import Session
from enlarger.engine.runtime.native.library import AMX, Library, open_library
from enlarger.engine.runtime.native.session import NativeSession
from enlarger.errors import EnlargerError, RuntimeUnavailable

CHUNK = 32
"""Channels the kernel takes at a time; what a dense block adds with each convolution must be one chunk."""


class Native:
    """`device` is cpu. Raises RuntimeUnavailable where the kernel cannot be used, with the reason."""

    def __init__(self, device: str = "cpu") -> None:
        del device  # there is one kind
        if reason := why_not():
            raise RuntimeUnavailable(f"the native runtime cannot be used: {reason}; use runtime=openvino")
        self._library = open_library()

    def precisions(self) -> tuple[str, ...]:
        return ("bf16",)

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session:
        """Raises RuntimeUnavailable for what the kernel does not compute."""
        if not computes(net, hyper, precision):
            raise RuntimeUnavailable(
                f"the native runtime computes RRDBNet in bf16, not {net.name} of this form in {precision}; "
                "use runtime=openvino"
            )
        return open_session(self._library, net, hyper, weights, threads=threads)


def computes(net: Net, hyper: Hyper, precision: str) -> bool:
    """Whether the kernel is made for this network in this precision."""
    return (
        net is rrdbnet.NET
        and precision == "bf16"
        and hyper["features"] % CHUNK == 0
        and hyper["growth"] == CHUNK
        and hyper["unshuffle"] in (1, 2, 4)
    )


def open_session(
    library: Library, net: Net, hyper: Hyper, weights: Weights, *, threads: int, tiles: int = AMX
) -> NativeSession:
    """A session of the kernel in `library`; `threads` 0 means one a usable core."""
    tensors = [weights[name] for name in net.shapes(hyper)]
    return NativeSession(library, hyper, tensors, threads or machine.usable_cores().value, tiles)


@cache
def why_not() -> str:
    """Why this process cannot use the kernel; empty where it can."""
    try:
        library = open_library()
        if reason := library.why_not(AMX):
            return reason
        _check(library)
    except EnlargerError as error:
        return error.message
    return ""


def _check(library: Library) -> None:
    """Raises RuntimeUnavailable unless a small network of seeded weights comes out as NumPy computes it."""
    hyper = {"blocks": 1, "features": 64, "growth": CHUNK, "unshuffle": 1}
    random = np.random.default_rng(0)
    weights = {
        name: (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        for name, shape in rrdbnet.NET.shapes(hyper).items()
    }
    session = open_session(library, rrdbnet.NET, hyper, weights, threads=1)
    selftest.verify(session, rrdbnet.NET, hyper, weights, device="the native kernel")
