"""A run that is cut short and continued gives the bytes of one that was not, whatever lies in its folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlarger.engine import bands as bands_module
from enlarger.engine.band_file import HEADER_BYTES, PIECE_ROWS, DamagedBand, read_band, write_band
from enlarger.engine.child import DeviceChild, Progress
from enlarger.engine.geometry import Size
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.imports import import_model
from enlarger.engine.networks.safetensors import write_safetensors
from enlarger.engine.options import Options
from enlarger.engine.pictures.animation import Animation
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine
from enlarger.engine.result import Result
from enlarger.engine.tiles import Tile, Watch
from enlarger.errors import Cancelled, DeviceCrashed

from .processes import pid_of

Scene = Callable[..., np.ndarray]

COMPACT, ANIME = "realesr-animevideov3", "RealESRGAN_x4plus_anime_6B"
FILE = "ab" * 32  # what the picture's file would hash to


@pytest.fixture
def every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of a single row of windows; so small a picture would have none."""
    monkeypatch.setattr(bands_module, "BAND_PIXELS", 1)


@dataclass
class Stop:
    """Cancels a run after so many finished tiles; never, where that is None."""

    after: int | None = None
    seen: list[Tile] = field(default_factory=list[Tile])

    def watch(self) -> Watch:
        return Watch(finished=self._finished, cancelled=lambda: len(self.seen) == self.after)

    def _finished(self, tile: Tile) -> None:
        self.seen.append(tile)
        # On a busy machine small tiles outrun what saves them, and rows would share a band by chance.
        for thread in threading.enumerate():
            if thread.name == "bands":
                thread.join()


def run(
    engine: Engine,
    picture: Picture | Animation,
    options: Options,
    folder: Path | None,
    stop: Stop | None = None,
) -> Result:
    work = engine.prepare(picture, options, source_sha256=FILE)
    return engine.compute(work, watch=(stop or Stop()).watch(), bands=folder)


def band_files(folder: Path) -> list[Path]:
    """From top to bottom, pass by pass."""

    def place(path: Path) -> list[int]:
        return [int(number) for number in path.stem.split("-")]

    return sorted(folder.glob("*.band"), key=place)


def quick(**changes: Any) -> Options:
    return Options(**{"model": COMPACT, "precision": "f32", **changes})


@dataclass(frozen=True)
class Case:
    options: Options
    size: tuple[int, int]
    channels: int = 3
    dtype: type = np.uint8
    tile_pixels: int = 1500
    runtime: str = ""

    def picture(self, scene: Scene) -> Picture:
        pixels = scene(*self.size, self.channels)
        return Picture.from_array(pixels if self.dtype is np.uint8 else pixels.astype(np.uint16) * 257 + 3)

    def engine(self) -> Engine:
        return Engine(runtime=self.runtime, max_tile_pixels=self.tile_pixels)


CASES = {
    "compact": Case(quick(), (60, 130)),
    "compact in 16 bits": Case(quick(), (40, 110), dtype=np.uint16),
    "compact in bf16": Case(quick(precision="bf16"), (20, 90), tile_pixels=1000, runtime="numpy"),
    "rrdb": Case(Options(model=ANIME, precision="f32", scale=3), (8, 400), tile_pixels=1700),
    "rrdb in 16 bits": Case(
        Options(model=ANIME, precision="f32"), (6, 300), dtype=np.uint16, tile_pixels=1200
    ),
    "two passes": Case(quick(passes=2, scale=7.5), (20, 45), tile_pixels=3000),
    "gray": Case(quick(scale=2), (50, 90), channels=1),
    "alpha, and all that comes after the network": Case(
        quick(alpha="network", strength=0.6, colour_lock=True, scale=2.5), (40, 100), channels=4
    ),
}


@pytest.mark.usefixtures("every_row")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_run_may_be_cut_short_anywhere(case: Case, scene: Scene, tmp_path: Path) -> None:
    picture, engine = case.picture(scene), case.engine()
    whole = Stop()
    expected = run(engine, picture, case.options, None, whole)
    assert expected.report["resumed"] is None
    rows = sum(len(tiles.rows) for tiles in engine.plan(Size(*case.size), case.options).passes)
    assert rows >= 3
    for after in range(1, len(whole.seen), max(1, len(whole.seen) // 4)):
        folder, stop, rest = tmp_path / str(after), Stop(after), Stop()
        with pytest.raises(Cancelled):
            run(engine, picture, case.options, folder, stop)
        saved = len(band_files(folder))
        found = run(engine, picture, case.options, folder, rest)
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        assert found.report["fingerprint"] == expected.report["fingerprint"]
        resumed = found.report["resumed"]
        assert (resumed["rows"] > 0) == (saved > 0)
        assert resumed["notes"] == []
        done = [tile.done for tile in rest.seen]
        assert done == sorted(done)
        assert done[-1] == rest.seen[-1].total == whole.seen[-1].total
        assert len(rest.seen) <= len(whole.seen)
        # Whoever came further has saved more than the first row of windows.
        assert saved or after < len(whole.seen) // 2


@pytest.mark.usefixtures("every_row")
def test_rows_that_are_there_count_as_done_and_are_shown(scene: Scene, tmp_path: Path) -> None:
    case = CASES["compact"]
    picture, engine, whole, rest = case.picture(scene), case.engine(), Stop(), Stop()
    run(engine, picture, case.options, tmp_path, whole)
    found = run(engine, picture, case.options, tmp_path, rest)
    rows = found.report["resumed"]["rows"]
    assert found.report["resumed"]["of"] == 4 * 130
    first = rest.seen[0]
    assert (first.left, first.top, first.width, first.height) == (0, 0, 4 * 60, rows)
    assert first.done == 60 * rows // 4
    tops = [tile.top for tile in rest.seen[1:]]
    assert tops
    assert min(tops) == rows
    assert rest.seen[1:] == [tile for tile in whole.seen if tile.top >= rows]


@pytest.mark.usefixtures("every_row")
def test_a_finished_pass_is_not_computed_again(scene: Scene, tmp_path: Path) -> None:
    case = CASES["two passes"]
    picture, engine = case.picture(scene), case.engine()
    first, second = engine.plan(Size(*case.size), case.options).passes
    rest = Stop()
    with pytest.raises(Cancelled):
        run(engine, picture, case.options, tmp_path, Stop(first.tiles + len(second.columns)))
    found = run(engine, picture, case.options, tmp_path, rest)
    assert found.report["resumed"]["of"] == 4 * 45 + 16 * 45
    assert found.report["resumed"]["rows"] > 4 * 45
    assert rest.seen[0].done == 20 * 45
    assert len(rest.seen) <= 2 + second.tiles - len(second.columns)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[(HEADER_BYTES + len(data)) // 2] ^= 4
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a bit is another": flipped,
    "the end is missing": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "there is only a header": lambda path: path.write_bytes(path.read_bytes()[:HEADER_BYTES]),
    "it is empty": lambda path: path.write_bytes(b""),
    "it is something else": lambda path: path.write_bytes(b"[" * 5000),
    "it is longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}
ABSENCES: dict[str, Callable[[Path], object]] = {
    "it is another": lambda path: shutil.copy(band_files(path.parent)[0], path),
    "it is missing": Path.unlink,
}


@pytest.mark.usefixtures("every_row")
@pytest.mark.parametrize("name", [*DAMAGES, *ABSENCES])
def test_a_damaged_band_ends_what_is_taken_over(name: str, scene: Scene, tmp_path: Path) -> None:
    case = CASES["compact"]
    picture, engine = case.picture(scene), case.engine()
    expected = run(engine, picture, case.options, tmp_path)
    files = band_files(tmp_path)
    assert len(files) >= 2
    (DAMAGES | ABSENCES)[name](files[1])
    found = run(engine, picture, case.options, tmp_path)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.report["resumed"]["rows"] == int(files[1].stem.split("-")[1])
    notes = found.report["resumed"]["notes"]
    assert len(notes) == (name in DAMAGES)
    assert all(f"{files[1].name} is damaged" in note for note in notes)
    again = run(engine, picture, case.options, tmp_path)
    assert again.report["resumed"]["rows"] > found.report["resumed"]["rows"]
    assert again.report["resumed"]["notes"] == []


@pytest.mark.usefixtures("every_row")
def test_bands_of_another_run_are_left_alone_and_said(scene: Scene, tmp_path: Path) -> None:
    case = CASES["compact"]
    picture, engine = case.picture(scene), case.engine()
    run(engine, picture, case.options, tmp_path)
    (tmp_path / "0-0-8.band.part").write_bytes(b"cut short by a crash")
    other = quick(tile_mode="exact")
    expected = run(engine, picture, other, None)
    count = len(band_files(tmp_path))
    found = run(engine, picture, other, tmp_path)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.report["resumed"]["rows"] == 0
    (note,) = found.report["resumed"]["notes"]
    assert note.startswith(f"{count} checkpoints of another picture, plan or engine were found")
    assert list(tmp_path.glob("*.part")) == []
    assert run(engine, picture, other, tmp_path).report["resumed"]["notes"] == []


@pytest.mark.usefixtures("every_row")
def test_a_folder_that_takes_no_more_costs_the_checkpoints_only(scene: Scene, tmp_path: Path) -> None:
    case = CASES["compact"]
    picture, engine = case.picture(scene), case.engine()
    expected = run(engine, picture, case.options, None)
    folder = tmp_path / "bands"
    seen: list[Tile] = []

    def finished(tile: Tile) -> None:
        seen.append(tile)
        shutil.rmtree(folder, ignore_errors=True)

    work = engine.prepare(picture, case.options, source_sha256=FILE)
    found = engine.compute(work, watch=Watch(finished=finished), bands=folder)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    (note,) = found.report["resumed"]["notes"]
    assert note.startswith("checkpoints could not be written any more")


def test_only_pictures_that_can_be_named_and_cut_are_resumed(
    engine: Engine, scene: Scene, tmp_path: Path
) -> None:
    small = Engine(max_tile_pixels=1500)
    picture = Picture.from_array(scene(40, 90))
    animation = Animation(frames=(picture, picture), delays_ms=(100, 100), loop=0)
    assert small.prepare(picture, quick(), source_sha256=FILE).can_resume
    refused = [
        small.prepare(picture, quick()),
        small.prepare(animation, quick(), source_sha256=FILE),
        small.prepare(picture, quick(strength=0), source_sha256=FILE),
        engine.prepare(picture, quick(), source_sha256=FILE),  # one window
    ]
    assert [work.can_resume for work in refused] == [False] * 4
    assert small.compute(refused[0], bands=tmp_path / "none").report["resumed"] is None
    assert not (tmp_path / "none").exists()


def test_small_rows_of_windows_share_a_band(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["compact"]
    monkeypatch.setattr(bands_module, "BAND_PIXELS", 60 * 50)
    run(case.engine(), case.picture(scene), case.options, tmp_path)
    files = band_files(tmp_path)
    assert files
    for path in files:
        _, top, bottom = map(int, path.stem.split("-"))
        assert bottom - top >= 4 * 50


OVERFLOWING = {"convs": 1, "features": 4, "scale": 4}


@pytest.fixture
def overflowing(tmp_path: Path) -> Path:
    """A weights folder with the model "loud": red that is full is too much for bf16 there, and nothing else is.

    The red channel becomes 3.38e38 · red + 2.2e36. The largest bf16 is 3.39e38, the largest f32 3.403e38.
    """
    shapes = ARCHITECTURES["compact"].shapes(OVERFLOWING)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    for name in ("body.0.weight", "body.2.weight"):
        tensors[name][0, 0, 1, 1] = 1
    for name in ("body.1.weight", "body.3.weight"):
        tensors[name][:] = 1
    tensors["body.4.weight"][:16, 0, 1, 1] = 3.38e38
    tensors["body.4.bias"][:16] = 2.2e36
    path = tmp_path / "loud.safetensors"
    path.write_bytes(write_safetensors(tensors))
    import_model(path, tmp_path / "weights", name="loud", licence="CC0-1.0")
    return tmp_path / "weights"


@pytest.mark.usefixtures("every_row")
def test_a_precision_that_fails_on_the_way_fails_there_again(
    overflowing: Path, scene: Scene, tmp_path: Path
) -> None:
    def fresh() -> Engine:
        return Engine(runtime="numpy", weights_dir=overflowing, max_tile_pixels=600)

    pixels = scene(20, 120) // 2
    pixels[70, 10, 0] = 255
    picture, options = Picture.from_array(pixels), Options(model="loud", precision="bf16")
    whole = Stop()
    expected = run(fresh(), picture, options, None, whole)
    assert "no numbers in bf16" in expected.report["fallbacks"][0]
    assert expected.report["fingerprint"] is None
    folder = tmp_path / "bands"
    with pytest.raises(Cancelled):
        run(fresh(), picture, options, folder, Stop(len(whole.seen) - 1))
    below = [int(path.stem.split("-")[2]) for path in band_files(folder)]
    assert below
    assert max(below) <= 4 * 70  # nothing is kept from the fault on
    found = run(fresh(), picture, options, folder)
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.report["resumed"]["rows"] == max(below)
    assert found.report["fallbacks"] == expected.report["fallbacks"]
    # The engine that met the fault computes in f32 from the start, and starts over.
    assert band_files(folder)
    engine = fresh()
    run(engine, picture, options, None)
    pinned = run(engine, picture, options, folder)
    assert pinned.report["precision"] == "f32"
    assert pinned.report["resumed"]["rows"] == 0
    assert "another picture, plan or engine" in pinned.report["resumed"]["notes"][0]


shapes = st.tuples(st.integers(1, 2 * PIECE_ROWS + 3), st.integers(1, 40), st.integers(1, 4))


@given(shapes, st.sampled_from([np.uint8, np.uint16]), st.integers(0, 2**32 - 1), st.booleans())
def test_rows_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    dtype: type,
    seed: int,
    is_layer: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.band"
    height, width, channels = shape
    random = np.random.default_rng(seed)
    pixels = random.integers(0, np.iinfo(dtype).max + 1, (height, width, channels + is_layer), dtype)
    rows = pixels[:, :, :channels]
    write_band(path, {"fingerprint": "x"}, rows)
    into = np.zeros_like(pixels)
    read_band(path, into[:, :, :channels])
    np.testing.assert_array_equal(into[:, :, :channels], rows)
    data = bytearray(path.read_bytes())
    data[random.integers(HEADER_BYTES, len(data))] ^= 1 << random.integers(8)
    path.write_bytes(data)
    with pytest.raises(DamagedBand):
        read_band(path, into[:, :, :channels])


def test_a_band_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    write_band(tmp_path / "0-0-9.band", {}, np.zeros((9, 9, 3), np.uint8), stopped=lambda: True)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tall(tmp_path: Path, scene: Scene, encoded: Callable[..., bytes]) -> Path:
    """A picture in two windows of the usual size, one below the other."""
    path = tmp_path / "tall.png"
    path.write_bytes(encoded(scene(420, 2740)))
    return path


@pytest.mark.anyio
async def test_a_picture_goes_on_where_a_killed_child_was(tall: Path, tmp_path: Path) -> None:
    options, folder = Options(model=COMPACT, scale=1, precision="f32"), tmp_path / "bands"
    child = DeviceChild()
    try:
        async with child.prepared(tall, tmp_path, options) as ready:
            assert ready.can_resume
            computing = asyncio.create_task(child.compute(ready, lambda progress: None, folder))
            async with asyncio.timeout(300):
                while not band_files(folder):  # noqa: ASYNC110 -- another process sets no event
                    await asyncio.sleep(0.01)
            os.kill(pid_of(child), signal.SIGKILL)
            with pytest.raises(DeviceCrashed):
                await computing
        seen: list[Progress] = []
        async with child.prepared(tall, tmp_path, options) as again:
            assert again.fingerprint == ready.fingerprint
            await child.compute(again, seen.append, folder)
            finished = await child.encode(again, tmp_path / "resumed.png")
        whole = await child.upscale(tall, tmp_path / "whole.png", options, lambda progress: None)
    finally:
        await child.close()
    assert (tmp_path / "resumed.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    assert finished.report["resumed"]["rows"] > 0
    assert 0 < seen[0].fraction < 1
    assert whole.report["resumed"] is None
    assert finished.report["fingerprint"] == whole.report["fingerprint"] == ready.fingerprint
