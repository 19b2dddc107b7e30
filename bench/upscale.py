"""A 512² photo through the engine, PNG bytes to PNG file, against one inference of the whole picture.

Peers in the same run, alternated: the same network as one OpenVINO graph on the whole picture, and the same
network in eager PyTorch f32 (when torch and spandrel are installed). Aim: engine ≤ 1.15 × whole-picture.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pyvips
from openvino import opset13 as op

import record
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.options import Options
from enlarger.engine.pipeline import Engine
from enlarger.engine.runtime import openvino


def photo(side: int) -> bytes:
    """PNG bytes of a real photo where the shared samples are, else of seeded noise of the same size."""
    file = record.PHOTOS / "lr-face.jpg"
    if file.is_file():
        return bytes(pyvips.Image.new_from_file(str(file)).crop(0, 0, side, side).pngsave_buffer())
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    return bytes(pyvips.Image.new_from_array(noise).pngsave_buffer())


def whole_picture_peer(model: str, precision: str, side: int) -> Callable[[], object]:
    """One OpenVINO graph of the whole network for the whole picture, compiled beforehand."""
    spec = MODELS[model]
    ops = openvino._GraphOps(load_weights(spec).tensors)
    x = op.parameter([1, 3, side, side], np.float32)
    y = x
    for stage in ARCHITECTURES[spec.net].stages:
        y = stage.forward(ops, y, spec.hyper)
    config = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(ov.Model([y], [x]), "CPU", config).create_infer_request()
    values = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    return lambda: request.infer([values], share_inputs=True, share_outputs=True)


def torch_peer(model: str, side: int) -> Callable[[], object] | None:
    """The reference's own arrangement: eager PyTorch f32 on the whole picture."""
    try:
        import torch

        from torch_reference import reference_net
    except ImportError:
        return None
    net = reference_net(MODELS[model])
    values = torch.rand(1, 3, side, side)

    def run() -> object:
        with torch.inference_mode():
            return net(values)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--model", default="RealESRGAN_x4plus")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    engine, data = Engine(), photo(arguments.side)
    options = Options(model=arguments.model)
    precision = openvino.OpenVino().precisions()[0]

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder:
            engine.upscale(data, options).save(Path(folder) / "result.png")

    runs: dict[str, Callable[[], object]] = {"engine": ours}
    runs["openvino_whole"] = whole_picture_peer(arguments.model, precision, arguments.side)
    if (eager := torch_peer(arguments.model, arguments.side)) is not None:
        runs["torch_eager_f32"] = eager
    engine.upscale(photo(64), options)  # weights loaded, as on any but the first picture
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            times[name].append(round(record.seconds(run), 3))
    best = {name: min(taken) for name, taken in times.items()}
    record.write(
        "upscale",
        {
            "model": arguments.model,
            "precision": precision,
            "side": arguments.side,
            "seconds": times,
            "median_seconds": {name: statistics.median(taken) for name, taken in times.items()},
            "engine_over_openvino_whole": round(best["engine"] / best["openvino_whole"], 3),
            "torch_eager_over_engine": round(best["torch_eager_f32"] / best["engine"], 2)
            if "torch_eager_f32" in best
            else "unmeasured: torch is not installed",
        },
    )


if __name__ == "__main__":
    main()
