"""OpenVINO: the runtime for CPUs and Intel GPUs. A stage is built as a graph, compiled, and run.

Two kinds of compiled graph are kept for a stage. One takes any shape: a new shape costs it 0.1 s where a fresh
compile costs 1.5 s (x4plus, 2 cores), so small pictures never wait for a compile longer than for their pixels.
Large windows get a graph of their own shape, which needs half the memory (2.3 against 5 kB a pixel).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as op

from enlarger.engine import machine, selftest
from enlarger.engine.networks.ops import (
    DEMODULATION_EPSILON,
    NORM_EPSILON,
    NORM_PARTS,
    Array,
    Edges,
    Hyper,
    Net,
    Stage,
    Weights,
    kernel,
)
from enlarger.engine.runtime import Session
from enlarger.engine.runtime.openvino_core import openvino_core
from enlarger.errors import OutOfMemory, RuntimeUnavailable

Node = Any  # openvino publishes no complete types
_model: Any = ov.Model

STATIC_FROM_PIXELS = 256 * 256
"""Windows of this many pixels or more are compiled for their own shape."""

KEPT_SHAPES = 3
"""Compiled graphs of fixed shape kept a session: trunk and tail of the current picture, and one more."""


class OpenVino:
    """`device` is cpu, gpu or gpu:N. Raises RuntimeUnavailable when that cannot be used."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device if device == "cpu" else machine.choose_device(device).name
        self._plugin = self._device.upper().replace(":", ".")  # gpu:1 is GPU.1 to OpenVINO

    def precisions(self) -> tuple[str, ...]:
        able = openvino_core().get_property(self._plugin, "OPTIMIZATION_CAPABILITIES")
        if self._device != "cpu":
            # f16 can overflow to NaN: only when asked for by name.
            return ("f32", "f16") if "FP16" in able else ("f32",)
        if "BF16" not in able:
            return ("f32",)
        # Without AMX, on CPUs with AVX-512 BF16, bf16 was slower than f32 on one (0.19 against 0.27 TFLOP/s), twice
        # as quick on another, and 43 to 54 dB from f32 there: only where it is asked for.
        return ("bf16", "f32") if "amx_bf16" in machine.cpu_flags() else ("f32", "bf16")

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session:
        """A device other than the CPU must pass the self-test first; RuntimeUnavailable tells the numbers."""
        session = _Session(net, hyper, weights, self._plugin, precision, threads)
        if self._device != "cpu":
            selftest.verify(session, net, hyper, weights, device=self._device)
        return session


class _Session:
    def __init__(
        self, net: Net, hyper: Hyper, weights: Weights, plugin: str, precision: str, threads: int
    ) -> None:
        self.precision = precision
        self._stages = {stage.name: stage for stage in net.stages}
        self._hyper = hyper
        self._plugin = plugin
        self._ops = _GraphOps(weights)
        self._core = openvino_core()
        self._config: dict[str, str | int] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if plugin == "CPU" and threads:
            self._config["INFERENCE_NUM_THREADS"] = threads
        self._any_shape: dict[str, ov.InferRequest] = {}
        self._fixed_shape: OrderedDict[tuple[str, int, int], ov.InferRequest] = OrderedDict()

    def run(self, stage: str, x_nchw: Array) -> Array:
        try:
            request = self._request(stage, *x_nchw.shape[2:])
            return request.infer([np.ascontiguousarray(x_nchw)], share_inputs=True)[0]
        except (RuntimeError, MemoryError) as error:
            # Graphs hold on to the memory of their last run: the next attempt needs it more.
            self._fixed_shape.clear()
            self._any_shape.clear()
            raise _translated(error) from error

    def _request(self, name: str, height: int, width: int) -> ov.InferRequest:
        if height * width < STATIC_FROM_PIXELS:
            if name not in self._any_shape:
                self._any_shape[name] = self._compiled(self._stages[name], -1, -1)
            return self._any_shape[name]
        key = (name, height, width)
        if key not in self._fixed_shape:
            while len(self._fixed_shape) >= KEPT_SHAPES:
                self._fixed_shape.popitem(last=False)
            self._fixed_shape[key] = self._compiled(self._stages[name], height, width)
        self._fixed_shape.move_to_end(key)
        return self._fixed_shape[key]

    def _compiled(self, stage: Stage, height: int, width: int) -> ov.InferRequest:
        shape = ov.PartialShape([1, stage.channels(self._hyper), height, width])
        x = op.parameter(shape, np.float32)
        model = _model([stage.forward(self._ops, x, self._hyper)], [x])
        return self._core.compile_model(model, self._plugin, self._config).create_infer_request()


class _GraphOps:
    """Each operation adds a node to the graph; nothing is computed yet."""

    def __init__(self, weights: Weights) -> None:
        # Constants are made once and shared by all graphs of the session.
        self._constants = {name: op.constant(kernel(tensor)) for name, tensor in weights.items()}

    def conv(self, x: Node, name: str, *, stride: int = 1, edges: Edges = "zero") -> Node:
        weight, bias = self._constants[f"{name}.weight"], self._constants.get(f"{name}.bias")
        reach = weight.shape[2] // 2
        if edges == "reflect":
            x, reach = _reflected(x, reach), 0
        product = op.convolution(x, weight, [stride] * 2, [reach] * 2, [reach] * 2, [1, 1])
        return product if bias is None else op.add(product, _as_channels(bias))

    def linear(self, x: Node, name: str) -> Node:
        vectors = op.reshape(x, np.array([0, -1]), special_zero=True)  # (n, c·h·w)
        product = op.matmul(vectors, self._constants[f"{name}.weight"], False, True)
        return op.unsqueeze(op.add(product, self._constants[f"{name}.bias"]), np.array([2, 3]))

    def demodulation(self, style: Node, name: str) -> Node:
        weight = self._constants[f"{name}.weight"]
        # (out, in); a constant once the graph is compiled
        squares = op.reduce_sum(op.multiply(weight, weight), np.array([2, 3]))
        style = op.squeeze(style, np.array([2, 3]))
        sums = op.matmul(op.multiply(style, style), squares, False, True)  # (n, out)
        root = op.sqrt(op.add(sums, np.float32(DEMODULATION_EPSILON)))
        return op.unsqueeze(op.divide(np.float32(1), root), np.array([2, 3]))

    def batch_norm(self, x: Node, name: str) -> Node:
        gamma, beta, mean, variance = (self._constants[f"{name}.{part}"] for part in NORM_PARTS)
        return op.batch_norm_inference(x, gamma, beta, mean, variance, NORM_EPSILON)

    def constant(self, name: str) -> Node:
        return self._constants[name]

    def leaky_relu(self, x: Node, slope: float) -> Node:
        return op.prelu(x, op.constant(np.array([slope], np.float32)))

    def prelu(self, x: Node, name: str) -> Node:
        return op.prelu(x, self._constants[f"{name}.weight"])

    def add(self, a: Node, b: Node) -> Node:
        return op.add(a, b)

    def multiply(self, a: Node, b: Node) -> Node:
        return op.multiply(a, b)

    def scale(self, x: Node, factor: float, shift: float = 0.0) -> Node:
        product = op.multiply(x, op.constant(np.float32(factor)))
        return op.add(product, op.constant(np.float32(shift))) if shift else product

    def concat(self, parts: Sequence[Node]) -> Node:
        return op.concat(list(parts), 1)

    def channels(self, x: Node, start: int, stop: int) -> Node:
        return op.slice(x, np.array([start]), np.array([stop]), np.array([1]), np.array([1]))

    def nearest(self, x: Node, factor: int) -> Node:
        return op.interpolate(
            x,
            np.array([factor, factor], np.float32),
            "nearest",
            "scales",
            axes=np.array([2, 3]),
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def halve(self, x: Node) -> Node:
        return op.avg_pool(x, [2, 2], [0, 0], [0, 0], [2, 2], exclude_pad=False)

    def double(self, x: Node) -> Node:
        return op.interpolate(
            x,
            np.array([2, 2], np.float32),
            "linear_onnx",
            "scales",
            axes=np.array([2, 3]),
            coordinate_transformation_mode="half_pixel",
        )

    def pixel_shuffle(self, x: Node, factor: int) -> Node:
        return op.depth_to_space(x, "depth_first", factor)

    def pixel_unshuffle(self, x: Node, factor: int) -> Node:
        return op.space_to_depth(x, "depth_first", factor)


def _reflected(x: Node, reach: int) -> Node:
    pads = np.array([0, 0, reach, reach])
    return op.pad(x, pads, pads, "reflect")


def _as_channels(vector: Node) -> Node:
    """(c,) as (1, c, 1, 1), so that it adds to (n, c, h, w)."""
    return op.reshape(vector, np.array([1, -1, 1, 1]), special_zero=False)


# "temporarily unavailable" is what a thread says that finds no room for its stack.
_MEMORY_WORDS = ("alloc", "memory", "out_of_resources", "resource temporarily unavailable")


def _translated(error: BaseException) -> OutOfMemory | RuntimeUnavailable:
    """OpenVINO raises RuntimeError for everything; memory is told apart by its words."""
    words = str(error).lower()
    if isinstance(error, MemoryError) or any(word in words for word in _MEMORY_WORDS):
        return OutOfMemory("the device has too little free memory for this tile")
    return RuntimeUnavailable(f"OpenVINO failed: {error}")
