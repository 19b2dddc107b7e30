"""Throughput on a CUDA or ROCm device: pictures of 512×512 and 2560×1440 through the engine, against eager torch.

The peer is the same network in eager f32 torch on the same device, the whole picture in one call, as the
reference program runs it, from values on the device to values on the device. The engine's time is its network
stage: tiles, transfers and all. Without a device it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import numpy as np

import record
from enlarger.engine import machine
from enlarger.engine.geometry import Size
from enlarger.engine.networks.catalogue import DEFAULT_MODEL, MODELS, ModelSpec
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine

SIZES = (Size(512, 512), Size(2560, 1440))


def engine_seconds(engine: Engine, size: Size, options: Options, rounds: int) -> list[float]:
    """Of the network stage, a warm-up excluded."""
    pixels = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    picture = Picture.from_array(pixels)
    reports = [engine.upscale(picture, options).report for _ in range(rounds + 1)]
    return [report["timings_ms"]["network"] / 1000 for report in reports[1:]]


def eager_seconds(spec: ModelSpec, device: str, size: Size, rounds: int) -> list[float] | str:
    """Of the peer, a warm-up excluded; or why there is none."""
    import torch

    from torch_reference import reference_net

    net = reference_net(spec, device)
    values = torch.rand(1, 3, size.height, size.width, device=device)

    def run() -> None:
        with torch.inference_mode():
            net(values)
        torch.cuda.synchronize(device)

    try:
        run()
        return [record.seconds(run) for _ in range(rounds)]
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "unmeasured: the whole picture does not fit into the device's memory"


def measured(
    engine: Engine, spec: ModelSpec, options: Options, device: str, size: Size, rounds: int
) -> dict[str, Any]:
    ours = statistics.median(engine_seconds(engine, size, options, rounds))
    peer = eager_seconds(spec, device, size, rounds)
    return {
        "size": list(size),
        "seconds": round(ours, 4),
        "input_megapixels_per_second": round(size.pixels / 1e6 / ours, 3),
        "teraflops": round(size.pixels * spec.mflops_per_pixel / 1e6 / ours, 2),
        "eager_f32_seconds": peer if isinstance(peer, str) else round(statistics.median(peer), 4),
        "eager_over_engine": None if isinstance(peer, str) else round(statistics.median(peer) / ours, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    seen = machine.sight(arguments.device)
    if not seen.is_usable:
        print(json.dumps({"bench": "gpu", "unmeasured": f"{arguments.device}: {seen.text}"}, indent=2))
        return
    spec = MODELS[arguments.model]
    options = Options(model=spec.name, precision=arguments.precision)
    engine = Engine(device=arguments.device)
    record.write(
        "gpu",
        {
            "device": seen.text,
            "model": spec.name,
            "precision": engine.plan(SIZES[0], options).precision,
            "sizes": [
                measured(engine, spec, options, arguments.device, size, arguments.rounds) for size in SIZES
            ],
        },
    )


if __name__ == "__main__":
    main()
