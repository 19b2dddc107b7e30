"""A 2560×1440 picture: work ratio and peak RSS of the process that computes it. Aim: ≤ 1.4 and ≤ 2.5 GiB.

A run of all windows takes 20 minutes on two cores without AMX. With `--windows N` it is stopped after as many, and a
picture of the size of the result is written to a file while all that the run took is still held: memory as in a whole
run, as all windows are alike.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

import numpy as np

import record
from enlarger.engine.options import Options
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine
from enlarger.engine.tiles import Watch
from enlarger.errors import Cancelled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="RealESRGAN_x4plus")
    parser.add_argument("--windows", type=int, default=0, help="stop after so many windows; 0 runs them all")
    parser.add_argument("--tile-mode", choices=("fast", "exact"), default="fast")
    arguments = parser.parse_args()
    pixels = np.random.default_rng(0).integers(0, 256, (1440, 2560, 3), np.uint8)
    engine, options = Engine(), Options(model=arguments.model, tile_mode=arguments.tile_mode)
    plan = engine.plan((2560, 1440), options)
    (tiles,) = plan.passes
    share = arguments.windows / tiles.tiles if arguments.windows else 1.0
    done: list[float] = []
    watch = Watch(
        finished=lambda tile: done.append(tile.done / tile.total),
        cancelled=lambda: bool(done) and share < 1.0 and done[-1] >= share * 0.9,
    )
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "result.png"
        with contextlib.suppress(Cancelled):
            engine.upscale(Picture.from_array(pixels), options, watch=watch).save(target)
        if not target.exists():
            # Here and not where it is stopped: there the unfinished result is held as well.
            enlarged = pixels.repeat(4, axis=0).repeat(4, axis=1)
            codec.encode(enlarged, target, codec.Encoding(format="png"))
    record.write(
        "memory" if arguments.tile_mode == "fast" else "memory_exact",
        {
            "model": arguments.model,
            "tile_mode": arguments.tile_mode,
            "precision": plan.precision,
            "windows": tiles.tiles,
            "window": list(tiles.window),
            "share_of_picture_computed": round(done[-1], 3),
            "work_ratio": round(plan.work_ratio, 4),
            "peak_rss_gib": round(record.peak_rss_gib(), 2),
            "aim_peak_rss_gib": 2.5,
            "planned_memory_gib": round(plan.memory_bytes / 2**30, 2),
        },
    )


if __name__ == "__main__":
    main()
