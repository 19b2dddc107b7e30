"""What happens to the pixels when a tile goes wrong: through real networks, with faults put into the session."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from enlarger.engine.geometry import Size, plan_tiles
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS, ModelSpec
from enlarger.engine.networks.ops import Array
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.pictures.picture import Picture, open_canvas
from enlarger.engine.runtime import Session, open_runtime
from enlarger.engine.tiles import Outcome, Pass, Tile, Watch, run_tiles
from enlarger.errors import Cancelled, NumericFault, OutOfMemory

COMPACT = MODELS["realesr-animevideov3"]
ANIME = MODELS["RealESRGAN_x4plus_anime_6B"]


@dataclass
class Faulty:
    """A real session that fails at chosen calls: `fault(call number, stage, result)` may raise or spoil."""

    inner: Session
    fault: object
    precision: str = "f32"
    calls: int = 0
    shapes: list[tuple[int, int]] = field(default_factory=list)

    def run(self, stage: str, x_nchw: Array) -> Array:
        self.calls += 1
        self.shapes.append(x_nchw.shape[2:])
        return self.fault(self.calls, stage, self.inner.run(stage, x_nchw))


def session_of(spec: ModelSpec, precision: str = "f32") -> Session:
    weights = load_weights(spec).tensors
    return open_runtime("openvino" if precision == "f32" else "numpy").open_session(
        ARCHITECTURES[spec.net], spec.hyper, weights, precision=precision, threads=0
    )


@pytest.fixture(scope="module")
def compact() -> Session:
    return session_of(COMPACT)


def run(
    spec: ModelSpec,
    session: Session,
    pixels: np.ndarray,
    *,
    max_pixels: int = 10**6,
    safe: Session | None = None,
    watch: Watch | None = None,
) -> tuple[np.ndarray, Outcome]:
    picture = Picture.from_array(pixels)
    canvas = open_canvas(
        Size(picture.size.width * spec.scale, picture.size.height * spec.scale), picture.colours, 8
    )
    plan = plan_tiles(picture.size, overlap=spec.overlap_fast, max_pixels=max_pixels, unit=spec.unit)
    work = Pass(
        session=session,
        safe_session=lambda: safe or session,
        net=ARCHITECTURES[spec.net],
        scale=spec.scale,
        plan=plan,
    )
    outcome = run_tiles(work, picture, canvas, watch or Watch())
    return canvas.array, outcome


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_tile_without_memory_is_halved_and_a_compact_net_gives_the_same_bytes(compact, scene, failing):
    pixels = scene(150, 110)
    expected, _ = run(COMPACT, compact, pixels, max_pixels=6000)

    def exhausted(call, stage, result):
        if call == failing:
            raise OutOfMemory("injected")
        return result

    faulty = Faulty(compact, exhausted)
    found, outcome = run(COMPACT, faulty, pixels, max_pixels=6000)
    assert np.array_equal(found, expected)
    assert len(outcome.notes) == 1
    assert "too little memory" in outcome.notes[0]
    failed, parts = faulty.shapes[failing - 1], faulty.shapes[failing : failing + 2]
    assert all(height * width < failed[0] * failed[1] for height, width in parts)


def test_only_the_tile_that_failed_is_computed_in_smaller_ones(compact, scene):
    plain = Faulty(compact, lambda call, stage, result: result)
    run(COMPACT, plain, scene(150, 110), max_pixels=6000)

    def exhausted(call, stage, result):
        if call == 2:
            raise OutOfMemory("injected")
        return result

    faulty = Faulty(compact, exhausted)
    run(COMPACT, faulty, scene(150, 110), max_pixels=6000)
    whole = plain.shapes[0]
    assert faulty.shapes.count(whole) == plain.shapes.count(whole)


def test_memory_that_never_suffices_is_an_error_with_the_size(compact, scene):
    def exhausted(call, stage, result):
        raise OutOfMemory("injected")

    with pytest.raises(OutOfMemory, match=r"a tile of \d+×\d+ does not fit"):
        run(COMPACT, Faulty(compact, exhausted), scene(150, 110))


def test_a_tail_without_memory_is_redone_within_the_bounds_of_tiling(scene):
    session = session_of(ANIME)
    pixels = scene(210, 70)
    expected, _ = run(ANIME, session, pixels)

    def exhausted(call, stage, result):
        if stage == "tail" and call == 2:
            raise OutOfMemory("injected")
        return result

    found, outcome = run(ANIME, Faulty(session, exhausted), pixels)
    off = np.abs(found.astype(int) - expected.astype(int))
    assert outcome.notes
    assert off.max() <= 8
    assert (off <= 1).mean() >= 0.999


def test_values_that_are_no_numbers_are_computed_again_in_f32(compact, scene):
    pixels = scene(150, 110)
    expected, _ = run(COMPACT, compact, pixels, max_pixels=6000)

    def poisoned(call, stage, result):
        return np.where(call == 2, np.float32("nan"), result)

    broken = Faulty(compact, poisoned, precision="bf16")
    found, outcome = run(COMPACT, broken, pixels, max_pixels=6000, safe=compact)
    assert np.array_equal(found, expected)
    assert outcome.precision == "f32"
    assert broken.calls == 2, "the first fault pins the run to the f32 session"
    assert "no numbers in bf16" in outcome.notes[0]


def test_one_infinite_sample_at_the_edge_of_a_tile_is_noticed(compact, scene):
    def poisoned(call, stage, result):
        spoiled = result.copy()
        spoiled[0, 2, 0, 0] = np.inf
        return spoiled

    _, outcome = run(COMPACT, Faulty(compact, poisoned, precision="bf16"), scene(40, 30), safe=compact)
    assert outcome.precision == "f32"


def test_values_that_are_no_numbers_in_f32_are_an_error_not_a_picture(compact, scene):
    def poisoned(call, stage, result):
        return np.full_like(result, np.nan)

    with pytest.raises(NumericFault, match="even in f32"):
        run(COMPACT, Faulty(compact, poisoned), scene(40, 30))


def test_progress_counts_every_pixel_once_even_when_tiles_are_redone(compact, scene):
    def exhausted(call, stage, result):
        if call in (1, 4):
            raise OutOfMemory("injected")
        return result

    seen: list[Tile] = []
    run(
        COMPACT,
        Faulty(compact, exhausted),
        scene(150, 110),
        max_pixels=6000,
        watch=Watch(finished=seen.append),
    )
    counted = [tile.done for tile in seen]
    assert counted == sorted(counted)
    assert counted[-1] == seen[-1].total == 150 * 110
    covered = np.zeros((440, 600), int)
    for tile in seen:
        covered[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert (covered == 1).all()


def test_cancelling_stops_before_the_next_tile(compact, scene):
    seen: list[Tile] = []
    watch = Watch(finished=seen.append, cancelled=lambda: len(seen) == 2)
    counting = Faulty(compact, lambda call, stage, result: result)
    with pytest.raises(Cancelled):
        run(COMPACT, counting, scene(150, 110), max_pixels=6000, watch=watch)
    assert counting.calls == 2
