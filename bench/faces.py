"""Faces: finding them in 2560×1440, and restoring one in a 512² photo against one run of the restorer's graph.

The ratio has both sides in the same run, alternated: the engine, pixels to pixels, with YuNet, crop, GFPGAN and paste
at scale 1; and GFPGAN alone on one crop. The weights are seeded random values: they cost what official ones do. Aims:
at most 150 ms on two cores, and at most 1.1 times the graph. Needs the shared pictures and the detector's file.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pyvips

import record
from enlarger.engine.faces.detector import FaceFinder
from enlarger.engine.faces.restorer import NetworkRestorer
from enlarger.engine.faces.yunet import YuNet
from enlarger.engine.machine import default_threads
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import FACE_DETECTOR, FACE_MODELS
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture, Pixels
from enlarger.engine.pipeline import Engine
from enlarger.engine.runtime import Session
from enlarger.engine.runtime.openvino import OpenVino

ONLY_FACES = Options(model="realesr-animevideov3", scale=1, strength=0.0, face_enhance=True, precision="f32")


def photo(name: str) -> Pixels:
    return pyvips.Image.new_from_file(str(record.PHOTOS / name)).numpy()[:, :, :3]


def full_picture() -> Picture:
    """One face of 300 px in 2560×1440."""
    canvas = np.full((1440, 2560, 3), 128, np.uint8)
    canvas[300:812, 500:1012] = photo("lr-face.jpg")
    return Picture.from_array(canvas)


def random_session() -> Session:
    spec = FACE_MODELS["GFPGANv1.4"]
    net, random = ARCHITECTURES[spec.net], np.random.default_rng(0)
    weights = {
        name: random.standard_normal(shape, np.float32) * np.float32(0.02)
        for name, shape in net.shapes(spec.hyper).items()
    }
    return OpenVino().open_session(net, spec.hyper, weights, precision="f32", threads=default_threads())


def median_ms(taken: list[float]) -> float:
    return round(statistics.median(taken) * 1000, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    detector_file = record.PHOTOS.parent / "weights" / FACE_MODELS[FACE_DETECTOR].files[0].name
    finder = FaceFinder(YuNet(detector_file.read_bytes(), default_threads()))
    wide = full_picture()
    found = finder.detect(wide)
    detection = [record.seconds(lambda: finder.detect(wide)) for _ in range(4 * rounds)]

    session = random_session()
    engine = Engine(detector=finder, restorer=NetworkRestorer(session))
    face = Picture.from_array(photo("lr-face.jpg"))
    crop = np.random.default_rng(0).random((1, 3, 512, 512), np.float32)
    reports: list[dict[str, Any]] = []
    runs: dict[str, Callable[[], object]] = {
        "engine": lambda: reports.append(engine.upscale(face, ONLY_FACES).report),
        "graph": lambda: session.run("restore", crop),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            taken = record.seconds(run)
            if turn:  # the first compiles
                times[name].append(taken)
    record.write(
        "faces",
        {
            "threads": default_threads(),
            "detection_1440p_ms": {"median": median_ms(detection), "best": round(min(detection) * 1000, 1)},
            "faces_found": len(found),
            "one_face_ms": {name: median_ms(taken) for name, taken in times.items()},
            "engine_over_graph": round(min(times["engine"]) / min(times["graph"]), 3),
            "stages_ms": reports[-1]["timings_ms"],
        },
    )


if __name__ == "__main__":
    main()
