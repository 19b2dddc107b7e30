"""What makes two results the same, and what does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine.fingerprint import Parts, fingerprint
from enlarger.engine.geometry import Size, Target, plan_tiles
from enlarger.engine.options import Options, asks
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine
from enlarger.errors import ModelUnavailable

COMPACT = "realesr-animevideov3"

words = st.text("0123456789abcdef._-", min_size=1, max_size=12)
names = st.dictionaries(words, words, max_size=3)
sizes = st.builds(Size, st.integers(1, 5000), st.integers(1, 5000))
plans = st.builds(
    lambda size, overlap, most: plan_tiles(size, overlap=overlap, max_pixels=most),
    sizes,
    st.integers(0, 96),
    st.integers(100_000, 10**6),
)
options = st.builds(Options, scale=st.floats(0.1, 10), quality=st.integers(1, 100))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "source_sha256": words,
    "options": options,
    "net": words,
    "hyper": st.dictionaries(words, st.integers(1, 99), max_size=3),
    "weights": names,
    "runtime": words,
    "device": words,
    "precision": words,
    "face_precision": words,
    "passes": st.lists(plans, min_size=1, max_size=3).map(tuple),
    "target": st.builds(Target, sizes, sizes),
    "frames": st.integers(1, 1000),
    "depth": st.sampled_from([8, 16]),
    "output_format": words,
    "libraries": names,
    "engine_version": st.integers(1, 1000),
}
parts = st.fixed_dictionaries(VALUES).map(lambda values: Parts(**values))


def test_every_part_is_tried() -> None:
    assert {spec.name for spec in fields(Parts)} == set(VALUES)


@given(parts, st.data())
def test_any_other_part_gives_another_digest(one: Parts, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(VALUES)))
    value = data.draw(VALUES[name])
    other = replace(one, **{name: value})
    assert (fingerprint(other) == fingerprint(one)) == (value == getattr(one, name))


@given(parts)
def test_the_order_of_names_does_not_count(one: Parts) -> None:
    turned = {name: dict(reversed(getattr(one, name).items())) for name in ("hyper", "weights", "libraries")}
    assert fingerprint(replace(one, **turned)) == fingerprint(one)


OTHER_VALUES: dict[str, Any] = {"faces": "1", "background": "#000000", "model": "none", "face_model": "none"}


@pytest.mark.parametrize("name", list(asks()))
def test_every_option_counts(name: str) -> None:
    ask, plain = asks()[name], Options()
    default = getattr(plain, name)
    turned = not default if ask.kind == "boolean" else None
    others = [*ask.choices, ask.high, ask.low, turned, OTHER_VALUES.get(name)]
    other = next(value for value in others if value is not None and value != default)
    assert fingerprint(some_parts(replace(plain, **{name: other}))) != fingerprint(some_parts(plain))


def some_parts(chosen: Options) -> Parts:
    return Parts(
        source_sha256="ab",
        options=chosen,
        net="rrdbnet",
        hyper={"blocks": 23, "features": 64},
        weights={"one": "12", "two": "34"},
        runtime="openvino",
        device="cpu",
        precision="f32",
        face_precision="",
        passes=(plan_tiles(Size(1000, 700), overlap=18, max_pixels=100_000),),
        target=Target(Size(4000, 2800), Size(4000, 2800)),
        frames=1,
        depth=8,
        output_format="png",
        libraries={"numpy": "2.2"},
    )


ELSEWHERE = """
import importlib.util, sys
from enlarger.engine.options import Options
spec = importlib.util.spec_from_file_location("tests_of_it", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(module.fingerprint(module.some_parts(Options(scale=2.5, faces="1 2"))))
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_another_process_gives_the_same_digest(seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, __file__],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == fingerprint(some_parts(Options(scale=2.5, faces="1 2")))


def quick(**changes: Any) -> Options:
    return Options(**{"model": COMPACT, "precision": "f32", **changes})


def reported(engine: Engine, data: bytes, options: Options) -> str:
    work = engine.prepare(data, options)
    told: str = engine.compute(work).report["fingerprint"]
    assert told == work.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", told)
    return told


def test_the_report_tells_it_and_it_was_known_before(
    engine: Engine, scene: Callable[..., np.ndarray], encoded: Callable[..., bytes]
) -> None:
    small, larger = scene(20, 10), scene(21, 10)
    data = encoded(small)
    first = reported(engine, data, quick())
    assert reported(engine, data, quick()) == first
    others = [
        reported(engine, encoded(larger), quick()),
        reported(engine, encoded(small, compress_level=0), quick()),
        reported(engine, data, quick(scale=2)),
        reported(engine, data, quick(output_format="webp")),
        reported(Engine(runtime="numpy"), data, quick()),
        reported(Engine(runtime="numpy"), data, quick(precision="bf16")),
    ]
    assert len({first, *others}) == 1 + len(others)


def test_other_tiles_and_another_format_of_the_input_count(
    engine: Engine, scene: Callable[..., np.ndarray], encoded: Callable[..., bytes]
) -> None:
    data = encoded(scene(60, 50))
    assert reported(Engine(max_tile_pixels=1500), data, quick()) != reported(engine, data, quick())


def test_a_picture_without_a_file_has_none(engine: Engine, scene: Callable[..., np.ndarray]) -> None:
    picture = Picture.from_array(scene(8, 8))
    assert engine.upscale(picture, quick()).report["fingerprint"] is None
    known = engine.prepare(picture, quick(), source_sha256="ab" * 32)
    assert engine.compute(known).report["fingerprint"] == known.fingerprint != ""


def test_missing_weights_are_refused_before_anything_is_computed(
    tmp_path: Path, scene: Callable[..., np.ndarray]
) -> None:
    with pytest.raises(ModelUnavailable, match="enlarger models pull"):
        Engine(weights_dir=tmp_path).prepare(
            Picture.from_array(scene(8, 8)), Options(model="RealESRGAN_x2plus")
        )
