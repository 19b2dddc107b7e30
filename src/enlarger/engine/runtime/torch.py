"""PyTorch: the runtime for GPUs (CUDA, ROCm, MPS). It needs torch and NumPy alone; `open_runtime` imports it.

Half precision: bf16 where the GPU computes it natively, as it keeps the range of f32. f16 is quicker on older
GPUs but can overflow to NaN, so it is used only when asked for by name.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Generator, Sequence
from importlib import import_module
from typing import Any

from enlarger.engine import machine, selftest
from enlarger.engine.networks.ops import (
    DEMODULATION_EPSILON,
    NORM_EPSILON,
    NORM_PARTS,
    Array,
    Edges,
    Hyper,
    Net,
    Weights,
    kernel,
)
from enlarger.engine.runtime import Session
from enlarger.errors import OutOfMemory, RuntimeUnavailable

# torch is an extra. As Any it gives the type check one answer, installed or not.
torch: Any = import_module("torch")
functional: Any = import_module("torch.nn.functional")
Tensor = Any

_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_CUDA_MAJOR_WITH_BF16 = 8  # Ampere
_ROCM_WITH_BF16 = ("gfx908", "gfx90a", "gfx94", "gfx95", "gfx11", "gfx12")
_MEMORY_WORDS = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "alloc_failed",
    "invalid buffer size",
)


class Torch:
    """`device` is cpu, cuda:N or mps. Raises RuntimeUnavailable when that cannot be used."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = "cpu" if device == "cpu" else machine.choose_device(device).name

    def precisions(self) -> tuple[str, ...]:
        if self._device == "cpu":
            return ("f32", "bf16")
        if self._device == "mps":
            return ("f32",)
        return ("bf16", "f32", "f16") if _has_bf16(self._device) else ("f32", "f16")

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session:
        """A device other than the CPU must pass the self-test first; RuntimeUnavailable tells the numbers."""
        try:
            session = _Session(net, hyper, weights, self._device, precision, threads)
        except (RuntimeError, MemoryError) as error:
            raise _translated(error, self._device) from error
        if self._device != "cpu":
            selftest.verify(session, net, hyper, weights, device=self._device)
        return session


class _Session:
    def __init__(
        self, net: Net, hyper: Hyper, weights: Weights, device: str, precision: str, threads: int
    ) -> None:
        self.precision = precision
        self._stages = {stage.name: stage for stage in net.stages}
        self._hyper = hyper
        self._device = device
        self._threads = threads
        self._ops = _TensorOps(weights, device, precision)

    def run(self, stage: str, x_nchw: Array) -> Array:
        try:
            return self._computed(stage, x_nchw)
        except (RuntimeError, MemoryError) as error:
            # The traceback holds the tensors of the failed run; while they live, nothing can be given back.
            traceback.clear_frames(error.__traceback__)
            translated = _translated(error, self._device)
            if isinstance(translated, OutOfMemory):
                _empty_cache(self._device)
            raise translated from error

    def _computed(self, stage: str, x_nchw: Array) -> Array:
        with torch.inference_mode(), _numerics(self._threads if self._device == "cpu" else 0):
            y = self._stages[stage].forward(self._ops, self._ops.placed(x_nchw), self._hyper)
            return y.to("cpu", torch.float32).contiguous().numpy()


class _TensorOps:
    def __init__(self, weights: Weights, device: str, precision: str) -> None:
        self._device = device
        self._dtype = _DTYPES[precision]
        # A third quicker than planes on a CPU (0.20 against 0.15 TFLOP/s), and what tensor cores read.
        # Unmeasured on MPS, which therefore keeps torch's default.
        self._layout = torch.contiguous_format if device == "mps" else torch.channels_last
        self._weights = {name: self.placed(tensor) for name, tensor in weights.items()}

    def placed(self, array: Array) -> Tensor:
        """The array on the device, in its precision and layout."""
        copied = torch.tensor(kernel(array))  # the array may be read-only
        moved = copied.to(self._device, self._dtype)
        return moved.contiguous(memory_format=self._layout) if moved.ndim == 4 else moved

    def conv(self, x: Tensor, name: str, *, stride: int = 1, edges: Edges = "zero") -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        reach = weight.shape[2] // 2
        if edges == "reflect":
            x, reach = functional.pad(x, [reach] * 4, mode="reflect"), 0
        return functional.conv2d(x, weight, bias, stride=stride, padding=reach)

    def linear(self, x: Tensor, name: str) -> Tensor:
        y = functional.linear(x.flatten(1), self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])
        return y[:, :, None, None]

    def demodulation(self, style: Tensor, name: str) -> Tensor:
        squares = self._weights[f"{name}.weight"].square().sum((2, 3))  # (out, in)
        sums = functional.linear(style.flatten(1).square(), squares)  # (n, out)
        return torch.rsqrt(sums + DEMODULATION_EPSILON)[:, :, None, None]

    def batch_norm(self, x: Tensor, name: str) -> Tensor:
        weight, bias, mean, variance = (self._weights[f"{name}.{part}"] for part in NORM_PARTS)
        return functional.batch_norm(x, mean, variance, weight, bias, eps=NORM_EPSILON)

    def constant(self, name: str) -> Tensor:
        return self._weights[name]

    def leaky_relu(self, x: Tensor, slope: float) -> Tensor:
        return functional.leaky_relu(x, slope)

    def prelu(self, x: Tensor, name: str) -> Tensor:
        return functional.prelu(x, self._weights[f"{name}.weight"])

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def multiply(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b

    def scale(self, x: Tensor, factor: float, shift: float = 0.0) -> Tensor:
        return x * factor + shift if shift else x * factor

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), 1)

    def channels(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x[:, start:stop]

    def nearest(self, x: Tensor, factor: int) -> Tensor:
        return functional.interpolate(x, scale_factor=factor, mode="nearest")

    def halve(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 2)

    def double(self, x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    def pixel_shuffle(self, x: Tensor, factor: int) -> Tensor:
        return functional.pixel_shuffle(x, factor)

    def pixel_unshuffle(self, x: Tensor, factor: int) -> Tensor:
        return functional.pixel_unshuffle(x, factor)


@contextlib.contextmanager
def _numerics(threads: int) -> Generator[None]:
    """Same input, same bytes, and f32 that is f32: no algorithm chosen by timing, no TF32.

    torch keeps these for the whole process; a program that uses torch itself gets its own settings back.
    """
    before = torch.get_num_threads()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        try:
            if threads:
                torch.set_num_threads(threads)
            yield
        finally:
            if threads:
                torch.set_num_threads(before)


def _has_bf16(device: str) -> bool:
    """Whether the GPU has bf16 arithmetic; torch alone would also count emulation."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return str(properties.gcnArchName).startswith(_ROCM_WITH_BF16)
    return int(properties.major) >= _CUDA_MAJOR_WITH_BF16


def _empty_cache(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()


def _translated(error: BaseException, device: str) -> OutOfMemory | RuntimeUnavailable:
    """torch has a class for lack of memory, but not all of its libraries raise it."""
    words = str(error).lower()
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(w in words for w in _MEMORY_WORDS):
        return OutOfMemory(f"{device} has too little free memory for this tile")
    return RuntimeUnavailable(f"PyTorch failed on {device}: {error}")
