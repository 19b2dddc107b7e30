"""The kernel's shared library through its plain C interface (`cpp/kernel.h`). Calls release the GIL."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_double, c_int, c_int32, c_int64, c_void_p
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from enlarger.engine.networks.ops import Array
from enlarger.errors import OutOfMemory, RuntimeUnavailable

MODULE = "enlarger.engine.runtime.native._kernel"
"""Where setuptools puts what it builds. It is a shared library and no Python module: it is loaded, not imported."""

BUILD_HINT = "install enlarger on Linux x86-64 where g++ 11 or newer is"

INTERFACE = 2  # ENLARGER_KERNEL_INTERFACE

AMX, PORTABLE, AVX512 = 0, 1, 2
"""What multiplies: the tile unit; plain C++ with the same results, for tests, which is slow; vectors."""

NAMES = {AMX: "AMX", AVX512: "AVX-512 BF16"}
"""What products use, quickest first."""

_REASONS = {
    1: f"the compiler that built the kernel does not know it; {BUILD_HINT}",
    2: "this CPU does not have it",
    3: "the system does not let this process use its registers",
}
_RUNNING, _BAD_ARGUMENT, _NO_MEMORY = 1, 2, 3

SAMPLE_KINDS = {"float32": 0, "uint8": 1, "uint16": 2}


class Sink(ctypes.Structure):
    """enlarger_sink."""

    _fields_ = (
        ("samples", c_void_p),
        ("kind", c_int32),
        ("channels", c_int32),
        ("top", c_int32),
        ("left", c_int32),
        ("height", c_int32),
        ("width", c_int32),
        ("row_stride", c_int64),
        ("pixel_stride", c_int64),
        ("channel_stride", c_int64),
    )


class Window(ctypes.Structure):
    """enlarger_window."""

    _fields_ = (
        ("height", c_int32),
        ("width", c_int32),
        ("row_blocks", c_int32),
        ("column_blocks", c_int32),
        ("row_cuts", POINTER(c_int32)),
        ("column_cuts", POINTER(c_int32)),
        ("threads", c_int32),
        ("from_picture", c_int32),
        ("to_pixels", c_int32),
        ("input", c_void_p),
        ("sink", Sink),
    )


class Library:
    """The functions of the kernel. Raises RuntimeUnavailable where the file is none, or is of another version."""

    def __init__(self, path: Path) -> None:
        try:
            self._calls: Any = ctypes.CDLL(str(path))
            version = self._calls.enlarger_kernel_interface()
        except (OSError, AttributeError) as error:
            raise RuntimeUnavailable(f"the native kernel {path} cannot be loaded: {error}") from error
        if version != INTERFACE:
            raise RuntimeUnavailable(f"the native kernel {path} belongs to another version; install again")
        self._calls.enlarger_net_pack.argtypes = (POINTER(c_void_p), c_int32, c_int32, c_int32, c_void_p)
        self._calls.enlarger_chain_pack.argtypes = (POINTER(c_void_p), c_int32, c_int32, c_void_p)
        self._calls.enlarger_net_free.argtypes = (c_void_p,)
        self._calls.enlarger_work_start.argtypes = (POINTER(c_void_p), c_void_p, c_int, POINTER(Window))
        self._calls.enlarger_work_wait.argtypes = (c_void_p, c_int32, POINTER(c_double))
        self._calls.enlarger_work_end.argtypes = (c_void_p,)
        self._calls.enlarger_work_bytes.argtypes = (c_void_p, POINTER(Window))
        self._calls.enlarger_work_bytes.restype = c_int64

    def why_not(self, tiles: int) -> str:
        """Why these tiles cannot be used here; empty where they can. Asks the system for their registers."""
        return _REASONS.get(self._calls.enlarger_tiles_state(tiles), "")

    def pack(self, *, features: int, blocks: int, unshuffle: int, tensors: Sequence[Array]) -> int:
        """An RRDB net of float32 tensors in module order, to be freed. Raises OutOfMemory or ValueError."""
        return self._packed(self._calls.enlarger_net_pack, (features, blocks, unshuffle), tensors)

    def pack_chain(self, *, features: int, links: int, tensors: Sequence[Array]) -> int:
        """The same of a compact net of `links` + 2 convolutions."""
        return self._packed(self._calls.enlarger_chain_pack, (features, links), tensors)

    def free(self, net: int) -> None:
        self._calls.enlarger_net_free(net)

    def start(self, net: int, tiles: int, window: Window) -> int:
        """A work under way, to be ended. Raises OutOfMemory or ValueError."""
        work = c_void_p()
        _check(
            self._calls.enlarger_work_start(ctypes.byref(work), net, tiles, ctypes.byref(window)), "a window"
        )
        assert work.value is not None
        return work.value

    def wait(self, work: int, milliseconds: int) -> tuple[bool, float]:
        """Whether the work is still under way after at most so long, and the part of it that is done."""
        share = c_double()
        running = self._calls.enlarger_work_wait(work, milliseconds, ctypes.byref(share)) == _RUNNING
        return running, share.value

    def end(self, work: int) -> bool:
        """Stop the work where it is and free it. Whether all values it wrote were finite numbers."""
        return bool(self._calls.enlarger_work_end(work))

    def bytes_of(self, net: int, window: Window) -> int:
        """Memory of a window while it is computed, without input and result."""
        return int(self._calls.enlarger_work_bytes(net, ctypes.byref(window)))

    def _packed(self, pack: Any, form: tuple[int, ...], tensors: Sequence[Array]) -> int:
        pointers = (c_void_p * len(tensors))(*(tensor.ctypes.data for tensor in tensors))
        net = c_void_p()
        _check(pack(ctypes.byref(net), *form, pointers), "a net")
        assert net.value is not None
        return net.value


def open_library() -> Library:
    """The kernel that came with the package. Raises RuntimeUnavailable where none was built."""
    found = find_spec(MODULE)
    if found is None or found.origin is None:
        raise RuntimeUnavailable(f"the native kernel was not built; {BUILD_HINT}")
    return Library(Path(found.origin))


def _check(code: int, what: str) -> None:
    if code == _NO_MEMORY:
        raise OutOfMemory("there is too little free memory for this tile")
    if code == _BAD_ARGUMENT:
        raise ValueError(f"the native kernel does not take {what} of this shape")
