"""Several pictures in the device child at a time: one is decoded, one computed, one written."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.engine import child as child_module
from enlarger.engine.child import ChildConfig, DeviceChild, Finished, Prepared, Progress
from enlarger.engine.options import Options
from enlarger.errors import DeviceCrashed, EnlargerError, InvalidOption, PictureTooLarge, UnsupportedFormat

from .processes import become_busy, nameless_files, pid_of

pytestmark = pytest.mark.anyio

QUICK = Options(model="realesr-animevideov3", scale=2.5)
# About a minute in one tile.
LONG = Options(model="RealESRGAN_x4plus", scale=1, precision="f32")
# No network runs, and 16 megapixels of noise take seconds to write.
LARGE = Options(model="realesr-animevideov3", scale=10, strength=0)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def pictures(
    tmp_path_factory: pytest.TempPathFactory,
    scene: Callable[..., np.ndarray],
    encoded: Callable[..., bytes],
) -> Path:
    """A folder with small.png, other.png, large.png, noise.png, and text.png, which is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "small.png").write_bytes(encoded(scene(40, 30)))
    (folder / "other.png").write_bytes(encoded(scene(50, 70)))
    (folder / "large.png").write_bytes(encoded(scene(700, 600)))
    noise = np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8)
    (folder / "noise.png").write_bytes(encoded(noise))
    (folder / "text.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture
async def child() -> AsyncGenerator[DeviceChild]:
    one = DeviceChild(ChildConfig(max_input_megapixels=1))
    yield one
    await one.close()


def ignored(progress: Progress) -> None:
    del progress


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


async def finished(child: DeviceChild, ready: Prepared, target: Path) -> Finished:
    await child.compute(ready, ignored)
    return await child.encode(ready, target)


async def test_what_was_prepared_is_what_the_result_then_is(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    async with child.prepared(pictures / "small.png", tmp_path, QUICK) as ready:
        assert ready.megapixels == pytest.approx(40 * 30 / 1e6)
        assert ready.plan == await child.plan(pictures / "small.png", QUICK)
        done = await finished(child, ready, tmp_path / "out.png")
    assert done.report["fingerprint"] == ready.fingerprint
    assert (done.width, done.height) == size_of(tmp_path / "out.png") == (100, 75)
    began, ended = done.report["device_busy"]
    assert 1000 * (ended - began) >= done.report["timings_ms"]["network"] - 2


async def test_a_picture_is_decoded_while_another_is_computed(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    async with child.prepared(pictures / "large.png", tmp_path, LONG) as first:
        computing = asyncio.create_task(child.compute(first, ignored))
        await become_busy(pid_of(child))
        async with child.prepared(pictures / "small.png", tmp_path, QUICK) as second:
            assert second.plan["input"] == [40, 30]
            assert (await child.plan(pictures / "other.png", QUICK))["input"] == [50, 70]
            assert not computing.done()
        await child.close()
        with pytest.raises(DeviceCrashed):
            await computing


async def test_a_result_is_written_while_the_next_picture_is_computed(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    async with (
        child.prepared(pictures / "noise.png", tmp_path, LARGE) as first,
        child.prepared(pictures / "small.png", tmp_path, QUICK) as second,
    ):
        await child.compute(first, ignored)
        writing = asyncio.create_task(child.encode(first, tmp_path / "first.png"))
        await child.compute(second, ignored)
        assert not writing.done()
        # What is written takes turns too, in order.
        assert (await child.encode(second, tmp_path / "second.png")).width == 100
        assert writing.done()
        assert size_of(tmp_path / "first.png") == (4000, 4000)
        assert (await writing).report["input"] == [400, 400]


async def test_pictures_are_computed_in_the_order_of_the_calls(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    names = ("other.png", "small.png", "noise.png")
    ended: list[str] = []
    async with (
        child.prepared(pictures / names[2], tmp_path, QUICK) as third,
        child.prepared(pictures / names[0], tmp_path, QUICK) as first,
        child.prepared(pictures / names[1], tmp_path, QUICK) as second,
    ):

        async def computed(name: str, ready: Prepared) -> None:
            await child.compute(ready, ignored)
            ended.append(name)

        await asyncio.gather(*map(computed, names, (first, second, third)))
        reports = [
            (await child.encode(ready, tmp_path / "out.png")).report for ready in (first, second, third)
        ]
    assert ended == list(names)
    busy = [moment for report in reports for moment in report["device_busy"]]
    assert busy == sorted(busy)


async def test_a_crash_ends_what_is_prepared_too_and_all_of_it_works_again(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    async with (
        child.prepared(pictures / "large.png", tmp_path, LONG) as first,
        child.prepared(pictures / "small.png", tmp_path, QUICK) as second,
    ):
        computing = asyncio.create_task(child.compute(first, ignored))
        waiting = asyncio.create_task(child.compute(second, ignored))
        pid = pid_of(child)
        await become_busy(pid)
        os.kill(pid, signal.SIGKILL)
        for task in (computing, waiting):
            with pytest.raises(DeviceCrashed, match="exit code -9"):
                await task
        for call in (child.compute(second, ignored), child.encode(second, tmp_path / "out.png")):
            with pytest.raises(DeviceCrashed, match="had prepared the picture has ended"):
                await call
        assert child.pid is None
    for name in ("small.png", "other.png"):
        async with child.prepared(pictures / name, tmp_path, QUICK) as again:
            await finished(child, again, tmp_path / name)
    assert child.pid not in (None, pid)


async def test_a_cancelled_decoding_leaves_the_picture_alone_that_is_computed(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    async with child.prepared(pictures / "noise.png", tmp_path, QUICK) as first:
        pid = child.pid
        seen: list[Progress] = []
        computing = asyncio.create_task(child.compute(first, seen.append))

        async def prepare() -> None:
            async with child.prepared(pictures / "large.png", tmp_path, QUICK):
                pytest.fail("it was cancelled before it could be prepared")

        for _ in range(5):
            preparing = asyncio.create_task(prepare())
            await asyncio.sleep(0)
            preparing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await preparing
        await computing
        assert seen[-1].fraction == 1
        assert (await child.encode(first, tmp_path / "out.png")).width == 1000
        assert child.pid == pid


async def test_a_run_that_waits_is_cancelled_at_once(
    child: DeviceChild, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "CANCEL_GRACE_SECONDS", 600.0)  # nothing is stopped by force
    async with (
        child.prepared(pictures / "large.png", tmp_path, LONG) as first,
        child.prepared(pictures / "small.png", tmp_path, QUICK) as second,
    ):
        computing = asyncio.create_task(child.compute(first, ignored))
        await become_busy(pid_of(child))
        waiting = asyncio.create_task(child.compute(second, ignored))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not computing.done()
        await child.close()
        with pytest.raises(DeviceCrashed):
            await computing


async def test_a_file_that_nobody_wants_any_more_is_not_written_to_its_end(
    child: DeviceChild, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "CANCEL_GRACE_SECONDS", 600.0)
    target = tmp_path / "large.png"
    async with child.prepared(pictures / "noise.png", tmp_path, LARGE) as first:
        pid = child.pid
        await child.compute(first, ignored)
        writing = asyncio.create_task(child.encode(first, target))
        async with asyncio.timeout(60):
            while not target.exists():  # noqa: ASYNC110 -- another process sets no event
                await asyncio.sleep(0.005)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    with pytest.raises(OSError, match="truncated"), Image.open(target) as written:
        written.load()
    async with child.prepared(pictures / "small.png", tmp_path, QUICK) as second:
        assert (await finished(child, second, tmp_path / "small.png")).width == 100
    assert child.pid == pid


async def test_what_would_be_refused_is_refused_before_it_waits_for_the_device(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    refused = [
        ("text.png", QUICK, UnsupportedFormat),
        ("noise.png", Options(width=100_000), InvalidOption),
        ("noise.png", Options(lossless=True, output_format="jpeg"), InvalidOption),
    ]
    for name, options, kind in refused:
        with pytest.raises(kind):
            async with child.prepared(pictures / name, tmp_path, options):
                pytest.fail("it was prepared")
    tight = DeviceChild(ChildConfig(max_output_megapixels=0.001))
    with pytest.raises(PictureTooLarge, match="the result"):
        async with tight.prepared(pictures / "small.png", tmp_path, QUICK):
            pytest.fail("it was prepared")
    await tight.close()


async def test_the_child_forgets_a_picture_that_is_done_with(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    await child.plan(pictures / "small.png", QUICK)
    pid = pid_of(child)
    before = nameless_files(pid)
    async with child.prepared(pictures / "small.png", tmp_path, QUICK) as ready:
        assert nameless_files(pid) == before + 1
        with pytest.raises(EnlargerError, match="was not computed"):
            await child.encode(ready, tmp_path / "out.png")
    await child.plan(pictures / "small.png", QUICK)  # the answer comes after it has forgotten
    assert nameless_files(pid) == before
