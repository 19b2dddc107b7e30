"""The native runtime: networks in bf16 by a kernel of our own, for CPUs that multiply bf16; the rest is OpenVINO's.

`cpp/` is the kernel: its plain C interface is `kernel.h`, its reading starts at `conv.hpp`. `library.py` loads it,
`blocks.py` decides how a window is cut for it, `session.py` runs it.

Whether it is used is decided once a process: the kernel must have been built, the CPU must have the instructions,
the system must allow them, and a small network must come out right. `chosen()` tells which of these failed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from enlarger.engine import machine, selftest
from enlarger.engine.networks import compact, rrdbnet
from enlarger.engine.networks.ops import Hyper, Net, Weights
from enlarger.engine.runtime import Session
from enlarger.engine.runtime.native.blocks import CHAIN, DENSE_BLOCK
from enlarger.engine.runtime.native.library import AMX, NAMES, Library, open_library
from enlarger.engine.runtime.native.session import SCALE, NativeSession, Stages
from enlarger.errors import EnlargerError, RuntimeUnavailable

CHUNK = 32
"""Channels the kernel takes at a time; what a dense block adds with each convolution must be one chunk."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the kernel computes on this machine."""

    tiles: int | None
    """AMX or AVX512; None where it cannot be used."""
    reason: str
    """Why not, or why not with something quicker; empty where there is nothing to say."""

    @property
    def products(self) -> str:
        """The name of what multiplies; empty where nothing does."""
        return "" if self.tiles is None else NAMES[self.tiles]


class Native:
    """`device` is cpu. Raises RuntimeUnavailable where the kernel cannot be used, with the reason."""

    def __init__(self, device: str = "cpu") -> None:
        del device  # there is one kind
        choice = chosen()
        if choice.tiles is None:
            raise RuntimeUnavailable(
                f"the native runtime cannot be used: {choice.reason}; use runtime=openvino"
            )
        self._tiles = choice.tiles
        self._library = open_library()

    def precisions(self) -> tuple[str, ...]:
        return ("bf16",)

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session:
        """Raises RuntimeUnavailable for what the kernel does not compute."""
        if not computes(net, hyper, precision, self._tiles):
            raise RuntimeUnavailable(
                f"the native runtime computes networks of Real-ESRGAN in bf16, not {net.name} of this form in "
                f"{precision} with {NAMES[self._tiles]}; use runtime=openvino"
            )
        return open_session(self._library, net, hyper, weights, threads=threads, tiles=self._tiles)


def computes(net: Net, hyper: Hyper, precision: str, tiles: int) -> bool:
    """Whether the kernel is made for this network in this precision, and quicker in it than others."""
    if precision != "bf16" or hyper["features"] % CHUNK:
        return False
    if net is rrdbnet.NET:
        return hyper["growth"] == CHUNK and hyper["unshuffle"] in (1, 2, 4)
    # Whether it is with AMX nobody has measured.
    return net is compact.NET and hyper["scale"] == SCALE and tiles != AMX


def open_session(
    library: Library, net: Net, hyper: Hyper, weights: Weights, *, threads: int, tiles: int
) -> NativeSession:
    """A session of the kernel in `library` with AMX, AVX512 or PORTABLE; `threads` 0 means one a usable core.

    Raises OutOfMemory.
    """
    tensors = [np.ascontiguousarray(weights[name], np.float32) for name in net.shapes(hyper)]
    features, unit = hyper["features"], net.multiple(hyper)
    if net is compact.NET:
        stages = Stages({"net": (True, True)}, CHAIN)
        packed = library.pack_chain(features=features, links=hyper["convs"], tensors=tensors)
    else:
        stages = Stages({"trunk": (True, False), "tail": (False, True)}, DENSE_BLOCK)
        packed = library.pack(
            features=features, blocks=hyper["blocks"], unshuffle=hyper["unshuffle"], tensors=tensors
        )
    return NativeSession(
        library,
        packed,
        stages,
        features=features,
        unit=unit,
        threads=threads or machine.usable_cores().value,
        tiles=tiles,
    )


@cache
def chosen() -> Choice:
    """The quickest products with which a small network comes out right. Looked at once a process."""
    try:
        library = open_library()
    except RuntimeUnavailable as error:
        return Choice(None, error.message)
    reasons: list[str] = []
    for tiles, name in NAMES.items():
        reason = library.why_not(tiles) or _fault(library, tiles)
        if not reason:
            return Choice(tiles, "; ".join(reasons))
        reasons.append(f"{name}: {reason}")
    return Choice(None, "; ".join(reasons))


def _fault(library: Library, tiles: int) -> str:
    """What is wrong with a small network of seeded weights, against NumPy's; empty where nothing is."""
    hyper = {"blocks": 1, "features": 64, "growth": CHUNK, "unshuffle": 1}
    random = np.random.default_rng(0)
    weights = {
        name: (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)
        for name, shape in rrdbnet.NET.shapes(hyper).items()
    }
    try:
        session = open_session(library, rrdbnet.NET, hyper, weights, threads=1, tiles=tiles)
        selftest.verify(session, rrdbnet.NET, hyper, weights, device="the native kernel")
    except EnlargerError as error:
        return error.message
    return ""
