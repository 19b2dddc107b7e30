"""The device child, a real process, started, used, hurt and left alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import numpy as np
import pytest

from enlarger.engine import child as child_module
from enlarger.engine import safety
from enlarger.engine.child import ChildConfig, DeviceChild, Finished, Progress
from enlarger.engine.options import Options
from enlarger.engine.pipeline import Engine
from enlarger.errors import (
    DeviceCrashed,
    EnlargerError,
    InvalidOption,
    InvalidPicture,
    PictureTooLarge,
    UnsupportedFormat,
)

from .processes import become_busy, has_ended, pid_of

pytestmark = pytest.mark.anyio

QUICK = Options(model="realesr-animevideov3", scale=2.5)
# About a minute of work: long enough to be interrupted, however fast the machine.
LONG = Options(model="RealESRGAN_x4plus", scale=1, precision="f32")
LONG_SIZE = (700, 600)


@pytest.fixture(scope="module")
def pictures(
    tmp_path_factory: pytest.TempPathFactory,
    scene: Callable[..., np.ndarray],
    encoded: Callable[..., bytes],
) -> Path:
    """A folder with small.png, large.png and text.png, which is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "small.png").write_bytes(encoded(scene(40, 30, 4)))
    (folder / "large.png").write_bytes(encoded(scene(*LONG_SIZE)))
    (folder / "text.png").write_bytes(b"not a picture")
    (folder / "cut.png").write_bytes(encoded(scene(40, 30))[:900])
    return folder


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def child() -> AsyncGenerator[DeviceChild]:
    """One child for the tests of this module; each leaves it able to work."""
    one = DeviceChild(ChildConfig(max_input_megapixels=1))
    yield one
    await one.close()


async def upscale(child: DeviceChild, source: Path, target: Path, options: Options = QUICK) -> Finished:
    return await child.upscale(source, target, options, lambda fraction: None)


async def test_the_result_is_that_of_an_engine_in_this_process(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    seen: list[Progress] = []
    finished = await child.upscale(pictures / "small.png", tmp_path / "child.png", QUICK, seen.append)
    Engine().upscale((pictures / "small.png").read_bytes(), QUICK).save(tmp_path / "here.png")
    assert (tmp_path / "child.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    assert (finished.media_type, finished.width, finished.height) == ("image/png", 100, 75)
    assert finished.report["output"] == [100, 75]
    assert set(finished.report["timings_ms"]) >= {"decode", "network", "encode"}
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1].fraction == 1.0
    assert (seen[-1].left, seen[-1].top, seen[-1].width, seen[-1].height) == (0, 0, 100, 75)


async def test_a_plan_tells_what_the_run_then_does(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    planned = await child.plan(pictures / "small.png", QUICK)
    finished = await upscale(child, pictures / "small.png", tmp_path / "out.png")
    told = {name: finished.report[name] for name in ("model", "precision", "input", "output", "tiles")}
    assert {name: planned[name] for name in told} == told
    assert planned["seconds"] > 0
    assert planned["memory_bytes"] > 10**8


async def test_a_plan_is_refused_as_the_run_would_be(child: DeviceChild, pictures: Path) -> None:
    with pytest.raises(InvalidOption, match="more than 10 times"):
        await child.plan(pictures / "small.png", Options(width=100_000))


async def test_every_result_says_whether_it_was_checked(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    report = (await upscale(child, pictures / "small.png", tmp_path / "out.png")).report
    assert safety.is_available() == (report["nsfw_score"] is not None)
    assert report["nsfw_check"] in ("open_nsfw", "not installed: no check ran")


async def test_it_starts_at_the_first_job_and_stays(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    fresh = DeviceChild()
    assert fresh.pid is None
    await fresh.close()
    await upscale(child, pictures / "small.png", tmp_path / "a.png")
    pid = pid_of(child)
    assert pid != os.getpid()
    await upscale(child, pictures / "small.png", tmp_path / "b.png")
    assert child.pid == pid


async def test_requests_take_turns(child: DeviceChild, pictures: Path, tmp_path: Path) -> None:
    scales = (1, 2, 3.5)
    finished = await asyncio.gather(
        *(
            upscale(
                child,
                pictures / "small.png",
                tmp_path / f"{scale}.png",
                Options(model=QUICK.model, scale=scale),
            )
            for scale in scales
        )
    )
    assert [one.width for one in finished] == [40, 80, 140]


@pytest.mark.parametrize(
    ("source", "options", "kind", "said"),
    [
        ("text.png", QUICK, UnsupportedFormat, "this is not a png"),
        ("cut.png", QUICK, InvalidPicture, "damaged or incomplete"),
        ("small.png", Options(face_enhance=True, face_model="none"), InvalidOption, "face_model must be one"),
    ],
)
async def test_errors_cross_the_pipe_by_their_codes(
    child: DeviceChild, pictures: Path, tmp_path: Path, source: str, options: Options,
    kind: type[EnlargerError], said: str,
) -> None:  # fmt: skip
    await upscale(child, pictures / "small.png", tmp_path / "warm.png")
    pid = child.pid
    with pytest.raises(kind, match=said) as caught:
        await upscale(child, pictures / source, tmp_path / "out", options)
    assert type(caught.value) is kind
    assert not (tmp_path / "out").exists()
    assert child.pid == pid


async def test_the_limits_are_those_of_its_configuration(
    child: DeviceChild, encoded: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "large.png").write_bytes(encoded(np.zeros((1001, 1000), np.uint8)))
    with pytest.raises(PictureTooLarge, match="the limit is 1;"):
        await upscale(child, tmp_path / "large.png", tmp_path / "out.png")


async def test_a_file_that_cannot_be_written_is_an_error_and_no_crash(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    await upscale(child, pictures / "small.png", tmp_path / "warm.png")
    pid = child.pid
    for source, target in (("small.png", tmp_path / "none" / "out.png"), ("none.png", tmp_path / "out.png")):
        with pytest.raises(EnlargerError) as caught:
            await upscale(child, pictures / source, target)
        assert caught.value.code == "internal_error"
    assert child.pid == pid


async def test_a_killed_child_is_a_crash_and_the_next_job_gets_a_new_one(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    await upscale(child, pictures / "small.png", tmp_path / "warm.png")
    pid = pid_of(child)
    job = asyncio.create_task(upscale(child, pictures / "large.png", tmp_path / "large.png", LONG))
    await become_busy(pid)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(DeviceCrashed, match="exit code -9"):
        await job
    assert child.pid is None
    assert (await upscale(child, pictures / "small.png", tmp_path / "small.png")).width == 100
    assert child.pid not in (None, pid)


async def test_a_child_killed_between_jobs_is_replaced(
    child: DeviceChild, pictures: Path, tmp_path: Path
) -> None:
    await upscale(child, pictures / "small.png", tmp_path / "warm.png")
    pid = pid_of(child)
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(60):
        while child.pid is not None:  # noqa: ASYNC110 -- another process sets no event
            await asyncio.sleep(0.01)
    assert (await upscale(child, pictures / "small.png", tmp_path / "small.png")).width == 100
    assert child.pid not in (None, pid)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_job_leaves_a_child_that_works(
    child: DeviceChild, pictures: Path, tmp_path: Path, times: int
) -> None:
    await upscale(child, pictures / "small.png", tmp_path / "warm.png")
    pid = child.pid
    job = asyncio.create_task(upscale(child, pictures / "small.png", tmp_path / "a.png"))
    for _ in range(times):
        await asyncio.sleep(0)
        job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert (await upscale(child, pictures / "small.png", tmp_path / "b.png", QUICK)).width == 100
    assert child.pid == pid


@pytest.mark.parametrize("times", [1, 2])
async def test_a_child_that_does_not_stop_is_killed_and_replaced(
    child: DeviceChild, pictures: Path, tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "CANCEL_GRACE_SECONDS", 0.2)
    await upscale(child, pictures / "small.png", tmp_path / "warm.png")
    pid = pid_of(child)
    os.kill(pid, signal.SIGSTOP)  # as stuck as a process can be
    job = asyncio.create_task(upscale(child, pictures / "small.png", tmp_path / "a.png"))
    for _ in range(times):
        await asyncio.sleep(0.01)
        job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    next_one = await upscale(child, pictures / "small.png", tmp_path / "b.png")
    assert next_one.width == 100
    assert has_ended(pid)
    assert child.pid != pid


async def test_closing_ends_the_child_and_its_job(pictures: Path, tmp_path: Path) -> None:
    one = DeviceChild()
    await upscale(one, pictures / "small.png", tmp_path / "warm.png")
    pid = pid_of(one)
    job = asyncio.create_task(upscale(one, pictures / "large.png", tmp_path / "large.png", LONG))
    await become_busy(pid)
    await one.close()
    assert has_ended(pid)
    with pytest.raises(DeviceCrashed):
        await job
    await one.close()


PARENT = """
import asyncio, sys
from pathlib import Path
from enlarger.engine.child import DeviceChild
from enlarger.engine.options import Options

async def main(small, large, target):
    child = DeviceChild()
    await child.upscale(small, target, Options(model="realesr-animevideov3"), lambda fraction: None)
    heavy = {"numpy", "openvino", "pyvips", "torch"} & {name.partition(".")[0] for name in sys.modules}
    print(child.pid, *sorted(heavy), flush=True)
    await child.upscale(large, target, Options(), lambda fraction: None)

if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:])))
"""


async def test_the_child_ends_with_its_parent_even_in_the_middle_of_a_tile(
    pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    arguments = [str(tmp_path / "parent.py"), *(str(pictures / name) for name in ("small.png", "large.png"))]
    with subprocess.Popen(  # noqa: ASYNC220 -- nothing else runs in this loop
        [sys.executable, *arguments, str(tmp_path / "out.png")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid, *heavy = parent.stdout.readline().split()
        assert heavy == []  # what computes is loaded by the child alone
        await become_busy(int(pid))
        parent.kill()
    deadline = time.monotonic() + 60
    while not has_ended(int(pid)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
