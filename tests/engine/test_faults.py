"""What happens to the pixels when a tile goes wrong: through real networks, with faults put into the session."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from enlarger.engine.geometry import Size, plan_tiles
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS, ModelSpec
from enlarger.engine.networks.ops import Array, Hyper, Net, Weights
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture, open_canvas
from enlarger.engine.pipeline import Engine
from enlarger.engine.runtime import RUNTIMES, RuntimeRow, Session, open_runtime
from enlarger.engine.runtime.numpy import NumPy
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


# Through a whole engine


def no_numbers_at_two(call, stage, result):
    return np.where(call == 2, np.float32("nan"), result)


def no_memory_at_one(call, stage, result):
    if call == 1:
        raise OutOfMemory("injected")
    return result


class Unsound:
    """The reference runtime; in bf16 its second call gives values that are no numbers."""

    fault = staticmethod(no_numbers_at_two)

    def __init__(self, device: str) -> None:
        self.device = device

    def precisions(self) -> tuple[str, ...]:
        return ("bf16", "f32")

    def open_session(
        self, net: Net, hyper: Hyper, weights: Weights, *, precision: str, threads: int
    ) -> Session:
        session = NumPy().open_session(net, hyper, weights, precision=precision, threads=threads)
        return session if precision == "f32" else Faulty(session, self.fault, precision)


class Short(Unsound):
    """The same with too little memory for its first tile."""

    fault = staticmethod(no_memory_at_one)


@pytest.fixture
def engine_of(monkeypatch):
    """engine_of(class of a runtime, or its name, pixels of a tile) → an engine."""

    def made(runtime: type | str, max_tile_pixels: int = 1600) -> Engine:
        if not isinstance(runtime, str):
            row = RuntimeRow(
                module=__name__, cls=runtime.__name__, kinds=("cpu",), package="numpy", install=""
            )
            monkeypatch.setitem(RUNTIMES, runtime.__name__, row)
            runtime = runtime.__name__
        return Engine(runtime=runtime, max_tile_pixels=max_tile_pixels)

    return made


def test_a_device_that_gave_no_numbers_computes_that_model_in_f32_from_then_on(engine_of, scene):
    picture, options = Picture.from_array(scene(60, 40)), Options(model=COMPACT.name)
    unsound = engine_of(Unsound)
    assert unsound.plan(picture.size, options).precision == "bf16"
    first, second = (unsound.upscale(picture, options) for _ in range(2))
    assert first.report["tiles"] == 2, "the fault is put into the second"
    assert (first.report["precision"], second.report["precision"]) == ("f32", "f32")
    assert len(first.report["fallbacks"]) == 1
    assert "no numbers in bf16" in first.report["fallbacks"][0]
    assert second.report["fallbacks"] == []
    assert any("an earlier picture" in note for note in second.report["choices"])
    sound = engine_of("numpy").upscale(picture, Options(model=COMPACT.name, precision="f32"))
    assert np.array_equal(second.pixels, sound.pixels)


def test_what_is_planned_after_such_a_fault_is_the_plan_of_f32(engine_of, scene):
    options = Options(model=COMPACT.name)
    unsound = engine_of(Unsound)
    size = Size(60, 40)
    before = unsound.plan(size, options)
    unsound.upscale(Picture.from_array(scene(*size)), options)
    asked = engine_of(Unsound).plan(size, Options(model=COMPACT.name, precision="f32"))
    found = unsound.plan(size, options)
    assert replace(found, notes=(), seconds=0) == replace(asked, notes=(), seconds=0)
    assert found.memory_bytes > before.memory_bytes
    # It was that model, not the device as a whole.
    assert unsound.plan(size, Options(model=ANIME.name)).precision == "bf16"


def test_the_report_names_a_tile_that_was_cut_for_want_of_memory(engine_of, scene):
    picture = Picture.from_array(scene(70, 66))
    options = Options(model=COMPACT.name, precision="bf16")
    found, whole = (engine_of(kind, 10_000).upscale(picture, options) for kind in (Short, "numpy"))
    assert np.array_equal(found.pixels, whole.pixels)
    assert ["too little memory" in note for note in found.report["fallbacks"]] == [True]
    assert found.report["precision"] == whole.report["precision"]
