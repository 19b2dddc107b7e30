"""A 2560×1440 picture: work ratio and peak RSS of the process that computes it. Aim: ≤ 1.4 and ≤ 2.5 GiB."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import record
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="RealESRGAN_x4plus")
    arguments = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (1440, 2560, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        result = Engine().upscale(Picture.from_array(pixels), Options(model=arguments.model))
        result.save(Path(folder) / "result.png")
    record.write(
        "memory",
        {
            "model": arguments.model,
            "work_ratio": result.report["work_ratio"],
            "peak_rss_gib": round(record.peak_rss_gib(), 2),
            "report": result.report,
        },
    )


if __name__ == "__main__":
    main()
