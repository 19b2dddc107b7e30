"""Jobs whose weights are not on the machine: the real folder, and a real server in place of the official one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enlarger.engine.networks.catalogue import FACE_MODELS, FACE_SET, MODELS, AnyModel
from enlarger.engine.networks.downloads import Pace
from enlarger.engine.networks.weights_folder import WeightsFolder
from enlarger.engine.options import Options
from enlarger.errors import ModelUnavailable
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Job, State
from enlarger.jobs.line import Line
from enlarger.jobs.preflight import Preflight
from enlarger.jobs.queue import SLOTS, Entry, Queue
from enlarger.jobs.sources import InlineSource, fetch_limits
from enlarger.jobs.store import Store
from enlarger.jobs.weights import SharedDownloads
from enlarger.jobs.worker import Worker
from enlarger.settings import Settings

from ..one_step import make_worker
from ..publisher import Publisher

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 20
CONTENT = bytes(range(256)) * 4000
MODEL = "RealESRGAN_x2plus"
NEEDY = {"scale": 2.0, "model": MODEL}


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    publisher = Publisher(CONTENT)
    yield publisher
    publisher.stop()


@pytest.fixture
def rows(publisher: Publisher) -> dict[str, AnyModel]:
    """A catalogue of one model, whose file is at the publisher's."""
    spec = MODELS[MODEL]
    return {MODEL: replace(spec, files=(publisher.published(spec.files[0]),))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


@pytest.fixture
def downloads_of(
    settings: Settings, folder: Path, rows: dict[str, AnyModel]
) -> Callable[..., SharedDownloads]:
    """The shared downloads of a server with these settings."""

    def make(**values: Any) -> SharedDownloads:
        chosen = settings.model_copy(update={"auto_download": True, **values})
        pace = Pace(attempts=1, pause_seconds=0.0, silence_seconds=WAIT_SECONDS)
        return SharedDownloads(WeightsFolder(folder, rows=lambda _: rows, pace=pace), chosen)

    return make


@pytest.fixture
def worker_of(
    store: Store, blobs: LocalBlobs, queue: Queue, device: Any, settings: Settings, clock: Any
) -> Callable[[SharedDownloads], Worker]:
    def make(weights: SharedDownloads) -> Worker:
        return make_worker(
            store=store,
            blobs=blobs,
            queue=queue,
            compute=device,
            settings=settings,
            clock=clock,
            weights=weights,
        )

    return make


@asynccontextmanager
async def working(worker: Worker) -> AsyncGenerator[None]:
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await worker.stop()
        await asyncio.wait_for(task, WAIT_SECONDS)


async def until(store: Store, job_id: str, reached: Callable[[Job], bool]) -> Job:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            job = await store.get(job_id)
            if job and reached(job):
                return job
            await asyncio.sleep(0.01)


async def ended(store: Store, job_id: str) -> Job:
    return await until(store, job_id, lambda job: job.state.is_terminal)


async def test_jobs_that_miss_the_same_weights_share_one_download_and_all_complete(
    downloads_of: Any, worker_of: Any, store: Store, publisher: Publisher, folder: Path, inline_job: Any
) -> None:
    jobs = [await inline_job(options=NEEDY) for _ in range(3)]
    async with working(worker_of(downloads_of())):
        for job in jobs:
            await until(store, job.id, lambda job: "fetching weights" in job.stage)
        publisher.gate.set()
        states = [(await ended(store, job.id)).state for job in jobs]
    assert states == [State.COMPLETED] * 3
    assert publisher.starts == [0]
    assert (folder / "weights.pth").read_bytes() == CONTENT


async def test_the_row_tells_what_it_waits_for_how_far_it_is_and_for_how_long(
    downloads_of: Any,
    worker_of: Any,
    store: Store,
    publisher: Publisher,
    inline_job: Any,
    clock: Any,
    device: Any,
) -> None:
    device.gate.clear()
    job = await inline_job(options=NEEDY, cost_seconds=7.0)
    async with working(worker_of(downloads_of())):
        waiting = await until(store, job.id, lambda job: job.stage_seconds > 0)
        assert waiting.stage == "fetching weights: weights.pth, 0.5 of 1.0 MB"
        assert (waiting.state, waiting.progress, waiting.compute_starts) == (State.PROCESSING, 0.0, 0)
        standing = await Line(store, clock).standing(waiting)
        assert standing.position == 0
        assert standing.eta_seconds == pytest.approx(7.0 + waiting.stage_seconds, rel=0.5)
        publisher.gate.set()
        await asyncio.wait_for(device.started.wait(), WAIT_SECONDS)
        computing = await store.get(job.id)
        device.gate.set()
        assert (await ended(store, job.id)).state is State.COMPLETED
    assert computing
    assert (computing.stage, computing.stage_seconds, computing.compute_starts) == ("", 0.0, 1)


async def test_cancelled_job_leaves_the_download_to_the_other(
    downloads_of: Any, worker_of: Any, store: Store, publisher: Publisher, inline_job: Any
) -> None:
    first, second = [await inline_job(options=NEEDY) for _ in range(2)]
    async with working(worker_of(downloads_of())):
        for job in (first, second):
            await until(store, job.id, lambda job: bool(job.stage))
        assert await store.cancel(first.id, first.key_id, 5.0)
        await until(store, second.id, lambda job: job.stage_seconds > 0)
        publisher.gate.set()
        assert (await ended(store, second.id)).state is State.COMPLETED
        assert (await ended(store, first.id)).state is State.CANCELLED
    assert publisher.starts == [0]


async def test_download_that_nobody_waits_for_stops_and_the_next_job_continues_it(
    downloads_of: Any, worker_of: Any, store: Store, publisher: Publisher, folder: Path, inline_job: Any
) -> None:
    worker = worker_of(downloads_of())
    job, again = [await inline_job(options=NEEDY) for _ in range(2)]
    running = asyncio.create_task(worker.run_job(Entry(job.id)))
    await until(store, job.id, lambda job: job.stage_seconds > 0)
    assert await store.cancel(job.id, job.key_id, 5.0)
    await asyncio.wait_for(running, WAIT_SECONDS)
    # The download notices with the next bytes.
    publisher.gate.set()
    await asyncio.wait_for(worker.run_job(Entry(again.id)), WAIT_SECONDS)
    assert (await ended(store, again.id)).state is State.COMPLETED
    assert [start >= publisher.half for start in publisher.starts] == [False, True]
    assert (folder / "weights.pth").read_bytes() == CONTENT


async def test_jobs_that_need_nothing_pass_any_number_that_wait(
    downloads_of: Any, worker_of: Any, store: Store, publisher: Publisher, inline_job: Any, device: Any
) -> None:
    needy = [await inline_job(b"needy", options=NEEDY) for _ in range(2 * SLOTS)]
    quick = await inline_job(b"quick", created_at=2e9)
    async with working(worker_of(downloads_of())):
        assert (await ended(store, quick.id)).state is State.COMPLETED
        assert device.pictures == [b"quick"]
        for job in needy:
            await until(store, job.id, lambda job: bool(job.stage))
        publisher.gate.set()
        states = {(await ended(store, job.id)).state for job in needy}
    assert states == {State.COMPLETED}


async def test_without_auto_download_a_job_fails_at_once_with_the_command(
    downloads_of: Any,
    worker_of: Any,
    store: Store,
    publisher: Publisher,
    pictures: Any,
    new_job: Callable[..., Job],
    device: Any,
) -> None:
    # Its picture is not even fetched.
    job = new_job(options=NEEDY, source_url=pictures.url("/cat.png"))
    await store.add(job)
    await worker_of(downloads_of(auto_download=False)).run_job(Entry(job.id))
    failed = await ended(store, job.id)
    assert (failed.error_code, failed.compute_starts) == ("model_unavailable", 0)
    assert failed.error_message.endswith(f"get them with: enlarger models pull {MODEL}")
    assert (publisher.starts, pictures.requests, device.pictures) == ([], [], [])


async def test_weights_that_do_not_come_in_time_fail_the_job_with_the_command(
    downloads_of: Any, worker_of: Any, store: Store, publisher: Publisher, inline_job: Any
) -> None:
    job = await inline_job(options=NEEDY)
    await worker_of(downloads_of(download_timeout_seconds=0.2)).run_job(Entry(job.id))
    failed = await ended(store, job.id)
    assert failed.error_code == "model_unavailable"
    assert "download_timeout_seconds (0.2 s)" in failed.error_message
    assert failed.error_message.endswith(f"get them with: enlarger models pull {MODEL}")


async def test_address_that_has_no_weights_fails_every_job_that_waits_with_the_command(
    downloads_of: Any,
    worker_of: Any,
    store: Store,
    publisher: Publisher,
    rows: dict[str, AnyModel],
    inline_job: Any,
) -> None:
    file = replace(rows[MODEL].files[0], url=f"{publisher.url}/gone.pth")
    rows[MODEL] = replace(rows[MODEL], files=(file,))
    jobs = [await inline_job(options=NEEDY) for _ in range(2)]
    worker = worker_of(downloads_of())
    await asyncio.gather(*(worker.run_job(Entry(job.id)) for job in jobs))
    for job in jobs:
        failed = await ended(store, job.id)
        assert failed.error_code == "model_unavailable"
        assert "HTTP 404" in failed.error_message
        assert failed.error_message.endswith(f"enlarger models pull {MODEL}")


async def test_worker_stopped_in_a_download_leaves_job_and_bytes_to_the_next_start(
    downloads_of: Any,
    worker_of: Any,
    store: Store,
    blobs: LocalBlobs,
    publisher: Publisher,
    device: Any,
    settings: Settings,
    clock: Any,
    folder: Path,
    inline_job: Any,
) -> None:
    job = await inline_job(options=NEEDY)
    async with working(worker_of(downloads_of())):
        await until(store, job.id, lambda job: job.stage_seconds > 0)
    left = await store.get(job.id)
    assert left
    assert left.state is State.PROCESSING
    publisher.gate.set()
    successor = make_worker(
        store=store,
        blobs=blobs,
        queue=Queue.in_memory(),
        compute=device,
        settings=settings,
        clock=clock,
        weights=downloads_of(),
    )
    async with working(successor):
        done = await ended(store, job.id)
    assert (done.state, done.epoch, done.compute_starts) == (State.COMPLETED, 2, 1)
    assert [start >= publisher.half for start in publisher.starts] == [False, True]
    assert (folder / "weights.pth").read_bytes() == CONTENT


async def test_the_mask_is_brought_along_and_a_job_goes_on_without_it(
    downloads_of: Any, publisher: Publisher, rows: dict[str, AnyModel], folder: Path
) -> None:
    publisher.gate.set()
    for name in FACE_SET:
        file = publisher.published(FACE_MODELS[name].files[0], f"{name}.pth")
        rows[name] = replace(FACE_MODELS[name], files=(file,))
    gone = replace(rows["ParseNet"].files[0], url=f"{publisher.url}/gone.pth")
    rows["ParseNet"] = replace(rows["ParseNet"], files=(gone,))
    downloads, options = downloads_of(), Options(face_enhance=True)
    missing = await downloads.missing(options)
    assert [one.name for one in missing] == ["GFPGANv1.4.pth", "YuNet.pth", "ParseNet.pth"]
    await downloads.bring(missing, lambda stage: None)
    assert sorted(path.name for path in folder.glob("*.pth")) == ["GFPGANv1.4.pth", "YuNet.pth"]
    assert await downloads.missing(options) == ()
    (folder / "YuNet.pth").unlink()
    with pytest.raises(ModelUnavailable, match=r"get them with: enlarger models pull faces$"):
        await downloads_of(auto_download=False).missing(options)


async def test_preflight_tells_the_bytes_to_fetch_or_the_refusal(
    downloads_of: Any, blobs: LocalBlobs, settings: Settings
) -> None:
    class Ruler:
        async def plan(self, source: Path, options: Options) -> dict[str, Any]:
            return {"seconds": 1.0}

    def preflight(**values: Any) -> Preflight:
        return Preflight(Ruler(), downloads_of(**values), blobs, fetch_limits(settings))

    source = InlineSource(b"picture")
    assert (await preflight().plan(source, Options(model=MODEL)))["download_bytes"] == len(CONTENT)
    assert (await preflight().plan(source, Options()))["download_bytes"] == 0
    with pytest.raises(ModelUnavailable, match=f"enlarger models pull {MODEL}"):
        await preflight(auto_download=False).plan(source, Options(model=MODEL))
