from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from enlarger.errors import FeatureUnavailable, InvalidPicture, Overloaded, StorageFull
from enlarger.jobs.blobs import LocalBlobs, input_key
from enlarger.jobs.job import MAX_COMPUTE_STARTS, Job, Key, Output, State
from enlarger.jobs.queue import Entry, Queue
from enlarger.jobs.s3_blobs import Bucket, S3Blobs
from enlarger.jobs.store import Store
from enlarger.jobs.worker import Worker
from enlarger.settings import Settings

from ..one_step import make_worker
from ..services.proxy import Proxy
from ..services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 20
InlineJob = Callable[..., Any]


async def ended(store: Store, job_id: str) -> Job:
    """The job as soon as it is in a terminal state."""
    return await reached(store, job_id, *(state for state in State if state.is_terminal))


async def reached(store: Store, job_id: str, *states: State) -> Job:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            job = await store.get(job_id)
            if job and job.state in states:
                return job
            await asyncio.sleep(0.01)


def stored_files(settings: Settings) -> list[str]:
    root = settings.data_dir / "blobs"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_job_completes_with_its_result_described(
    worker: Worker, store: Store, blobs: LocalBlobs, inline_job: InlineJob
) -> None:
    job = await inline_job(b"cat")
    await worker.run_job(Entry(job.id))
    done = await store.get(job.id)
    assert done
    data = b"upscaled cat"
    [output] = done.outputs
    assert output == Output(
        blob_key=f"outputs/{job.id}/1/1.png",
        media_type="image/png",
        width=4,
        height=2,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    async with blobs.local(output.blob_key) as path:
        assert path.read_bytes() == data
    assert (done.state, done.compute_starts, done.compute_ms) == (State.COMPLETED, 1, 12)
    assert done.report == {"timings_ms": {"network": 12.4}, "fingerprint": done.fingerprint}


@pytest.mark.parametrize(
    ("timings_ms", "compute_ms"),
    [({"decode": 3.0, "detect": 5.2, "restore": 20.4, "network": 10.0, "enlarge_faces": 1.0}, 37), ({}, 0)],
)
async def test_inference_is_the_time_of_whatever_networks_ran(
    worker: Worker,
    store: Store,
    device: Any,
    inline_job: InlineJob,
    timings_ms: dict[str, float],
    compute_ms: int,
) -> None:
    device.timings_ms = timings_ms
    job = await inline_job()
    await worker.run_job(Entry(job.id))
    done = await store.get(job.id)
    assert done
    assert (done.state, done.compute_ms) == (State.COMPLETED, compute_ms)


@pytest.mark.parametrize(("name", "extension"), [("jpeg", "jpg"), ("webp", "webp"), ("png", "png")])
async def test_result_is_stored_under_the_extension_of_its_format(
    worker: Worker, store: Store, inline_job: InlineJob, name: str, extension: str
) -> None:
    job = await inline_job(options={"output_format": name})
    await worker.run_job(Entry(job.id))
    done = await ended(store, job.id)
    assert done.outputs[0].blob_key == f"outputs/{job.id}/1/1.{extension}"


async def test_picture_of_a_url_is_fetched_and_kept(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    device: Any,
    settings: Settings,
    clock: Any,
    pictures: Any,
    new_job: Callable[..., Job],
) -> None:
    pictures.answer("/cat.png", b"fetched")
    allowing = settings.model_copy(
        update={"allow_private_networks": (ip_network("127.0.0.0/8"),), "allow_ports": (pictures.port,)}
    )
    worker = make_worker(
        store=store, blobs=blobs, queue=queue, compute=device, settings=allowing, clock=clock
    )
    job = new_job(source_url=pictures.url("/cat.png"))
    await store.add(job)
    await worker.run_job(Entry(job.id))
    done = await ended(store, job.id)
    content = hashlib.sha256(b"fetched").hexdigest()
    assert (done.state, done.source_blob) == (State.COMPLETED, input_key(job.id, content))
    assert device.pictures == [b"fetched"]


async def test_url_that_leads_inside_fails_the_job_without_a_compute_start(
    worker: Worker, store: Store, device: Any, new_job: Callable[..., Job]
) -> None:
    job = new_job(source_url="http://127.0.0.1/")
    await store.add(job)
    await worker.run_job(Entry(job.id))
    failed = await ended(store, job.id)
    assert (failed.state, failed.error_code) == (State.FAILED, "address_refused")
    assert "ENLARGER_ALLOW_PRIVATE_NETWORKS" in failed.error_message
    assert (failed.compute_starts, device.pictures) == (0, [])


@pytest.mark.parametrize("error", [InvalidPicture("not a picture"), FeatureUnavailable("no faces yet")])
async def test_error_of_the_engine_becomes_code_and_message(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob, error: Any
) -> None:
    device.raises = error
    job = await inline_job()
    await worker.run_job(Entry(job.id))
    failed = await ended(store, job.id)
    assert (failed.state, failed.error_code, failed.error_message) == (
        State.FAILED,
        error.code,
        error.message,
    )


async def test_bug_fails_the_job_with_a_plain_sentence_and_a_logged_traceback(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob, caplog: pytest.LogCaptureFixture
) -> None:
    device.raises = ZeroDivisionError("secret detail")
    job = await inline_job()
    await worker.run_job(Entry(job.id))
    failed = await ended(store, job.id)
    assert failed.error_code == "internal_error"
    assert "secret detail" not in failed.error_message
    assert "ZeroDivisionError: secret detail" in caplog.text


async def test_lost_input_fails_the_job(
    worker: Worker, store: Store, blobs: LocalBlobs, inline_job: InlineJob
) -> None:
    job = await inline_job()
    await blobs.delete(input_key(job.id))
    await worker.run_job(Entry(job.id))
    assert (await ended(store, job.id)).error_code == "not_found"


async def test_computation_over_its_time_fails_and_lets_the_device_go(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    device: Any,
    settings: Settings,
    clock: Any,
    inline_job: InlineJob,
) -> None:
    hasty = settings.model_copy(update={"max_job_seconds": 0.05})
    worker = make_worker(store=store, blobs=blobs, queue=queue, compute=device, settings=hasty, clock=clock)
    device.gate.clear()
    job = await inline_job()
    await worker.run_job(Entry(job.id))
    failed = await ended(store, job.id)
    assert (failed.error_code, device.busy) == ("timed_out", 0)
    assert "max_job_seconds (0.05 s)" in failed.error_message
    device.gate.set()
    second = await inline_job()
    await worker.run_job(Entry(second.id))
    assert (await ended(store, second.id)).state is State.COMPLETED


async def test_crashed_device_costs_one_more_attempt(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    device.crashes = 1
    job = await inline_job()
    await worker.run_job(Entry(job.id))
    done = await ended(store, job.id)
    assert (done.state, done.epoch, done.compute_starts) == (State.COMPLETED, 2, 2)
    assert done.outputs[0].blob_key == f"outputs/{job.id}/2/1.png"


async def test_job_that_crashes_every_time_fails_after_five_starts_and_spares_the_others(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    device.crashes = MAX_COMPUTE_STARTS
    job, innocent = await inline_job(), await inline_job()
    await worker.run_job(Entry(job.id))
    failed = await ended(store, job.id)
    assert (failed.state, failed.error_code) == (State.FAILED, "device_crashed")
    assert failed.compute_starts == len(device.pictures) == 5
    await worker.run_job(Entry(innocent.id))
    assert (await ended(store, innocent.id)).state is State.COMPLETED


async def test_job_that_killed_the_server_every_time_is_not_started_again(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    job = await inline_job(state=State.PROCESSING, epoch=5, compute_starts=5)
    await worker.run_job(Entry(job.id))
    assert (await ended(store, job.id)).error_code == "device_crashed"
    assert device.pictures == []


async def test_ended_and_unknown_jobs_are_dropped(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    job = await inline_job(state=State.FAILED)
    await worker.run_job(Entry(job.id))
    await worker.run_job(Entry("f" * 32))
    assert await store.get(job.id) == job
    assert device.pictures == []


async def test_ten_runs_of_one_job_at_once_give_one_result(
    worker: Worker, store: Store, device: Any, settings: Settings, inline_job: InlineJob
) -> None:
    job = await inline_job()
    await asyncio.gather(*(worker.run_job(Entry(job.id)) for _ in range(10)))
    done = await ended(store, job.id)
    assert stored_files(settings) == [input_key(job.id), done.outputs[0].blob_key]
    assert done.epoch == 10
    assert device.most_busy == 1


async def test_overtaken_claim_cannot_finish_and_leaves_no_file(
    worker: Worker, store: Store, device: Any, settings: Settings, inline_job: InlineJob
) -> None:
    device.gate.clear()
    job = await inline_job()
    running = asyncio.create_task(worker.run_job(Entry(job.id)))
    await asyncio.wait_for(device.started.wait(), WAIT_SECONDS)
    newer = await store.claim(Entry(job.id), 5.0)
    device.gate.set()
    await running
    assert await store.get(job.id) == newer
    assert stored_files(settings) == [input_key(job.id)]


async def test_claim_overtaken_in_the_line_for_the_device_is_not_computed(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    device.gate.clear()
    first, second = await inline_job(b"first"), await inline_job(b"second")
    running = [asyncio.create_task(worker.run_job(Entry(first.id)))]
    await asyncio.wait_for(device.started.wait(), WAIT_SECONDS)
    running.append(asyncio.create_task(worker.run_job(Entry(second.id))))
    await reached(store, second.id, State.PROCESSING)
    newer = await store.claim(Entry(second.id), 5.0)
    device.gate.set()
    await asyncio.gather(*running)
    assert device.pictures == [b"first"]
    assert await store.get(second.id) == newer


async def test_every_unfinished_job_is_taken_up_at_the_start(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    jobs = [
        *[await inline_job(b"new") for _ in range(3)],
        *[
            await inline_job(b"cut short", state=State.PROCESSING, epoch=1, compute_starts=1)
            for _ in range(3)
        ],
    ]
    device.seconds = 0.02
    task = asyncio.create_task(worker.run())
    states = [(await ended(store, job.id)).state for job in jobs]
    await worker.stop()
    await asyncio.wait_for(task, WAIT_SECONDS)
    assert states == [State.COMPLETED] * 6
    assert (len(device.pictures), device.most_busy) == (6, 1)


async def test_same_id_queued_ten_times_is_computed_once(
    worker: Worker, store: Store, queue: Queue, device: Any, inline_job: InlineJob
) -> None:
    job = await inline_job()
    task = asyncio.create_task(worker.run())
    for _ in range(10):
        await queue.enqueue([Entry(job.id)])
    done = await ended(store, job.id)
    await worker.stop()
    await asyncio.wait_for(task, WAIT_SECONDS)
    assert (done.state, done.compute_starts, len(device.pictures)) == (State.COMPLETED, 1, 1)


async def test_stopped_worker_leaves_its_job_for_the_next_start(
    store: Store,
    blobs: LocalBlobs,
    worker: Worker,
    device: Any,
    settings: Settings,
    clock: Any,
    inline_job: InlineJob,
) -> None:
    device.gate.clear()
    job = await inline_job()
    task = asyncio.create_task(worker.run())
    await asyncio.wait_for(device.started.wait(), WAIT_SECONDS)
    await worker.stop()
    await asyncio.wait_for(task, WAIT_SECONDS)
    left = await store.get(job.id)
    assert left
    assert (left.state, device.busy) == (State.PROCESSING, 0)

    device.gate.set()
    queue = Queue.in_memory()
    successor = make_worker(
        store=store, blobs=blobs, queue=queue, compute=device, settings=settings, clock=clock
    )
    task = asyncio.create_task(successor.run())
    done = await ended(store, job.id)
    await successor.stop()
    await asyncio.wait_for(task, WAIT_SECONDS)
    assert done == replace(
        left,
        state=State.COMPLETED,
        epoch=2,
        compute_starts=2,
        progress=1.0,
        outputs=done.outputs,
        compute_ms=12,
        finished_at=clock.now,
        report=done.report,
        fingerprint=done.fingerprint,
    )


async def test_slow_picture_server_does_not_hold_the_device(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    device: Any,
    settings: Settings,
    clock: Any,
    pictures: Any,
    new_job: Callable[..., Job],
    inline_job: InlineJob,
) -> None:
    pictures.routes["/"] = lambda _: pictures.closing.wait() and None
    allowing = settings.model_copy(
        update={"allow_private_networks": (ip_network("127.0.0.0/8"),), "allow_ports": (pictures.port,)}
    )
    worker = make_worker(
        store=store, blobs=blobs, queue=queue, compute=device, settings=allowing, clock=clock
    )
    stuck = new_job(source_url=pictures.url("/"), created_at=1.0)
    await store.add(stuck)
    quick = await inline_job()
    task = asyncio.create_task(worker.run())
    assert (await ended(store, quick.id)).state is State.COMPLETED
    waiting = await store.get(stuck.id)
    await worker.stop()
    await asyncio.wait_for(task, WAIT_SECONDS)
    assert waiting
    assert waiting.state is State.PROCESSING


async def test_scratch_is_empty_after_every_ending(
    worker: Worker, device: Any, settings: Settings, inline_job: InlineJob
) -> None:
    for error in (None, InvalidPicture("bad"), RuntimeError("bug")):
        device.raises = error
        await worker.run_job(Entry((await inline_job()).id))
    scratch: Path = settings.data_dir / "blobs" / ".scratch"
    assert scratch.is_dir()
    assert list(scratch.iterdir()) == []


async def test_result_is_computed_once_however_long_the_object_store_is_away(
    store: Store,
    queue: Queue,
    device: Any,
    settings: Settings,
    clock: Any,
    new_job: Callable[..., Job],
    s3: SeaweedS3,
    s3_proxy: Proxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    blobs = s3_blobs(s3, s3_proxy, tmp_path)
    worker = make_worker(
        store=store, blobs=blobs, queue=queue, compute=device, settings=settings, clock=clock
    )
    job = new_job()
    await blobs.put(input_key(job.id), b"picture")
    await store.add(job := replace(job, source_blob=input_key(job.id)))
    device.gate.clear()
    running = asyncio.create_task(worker.run_job(Entry(job.id)))
    await asyncio.wait_for(device.started.wait(), WAIT_SECONDS)
    s3_proxy.resets_after_bytes = 0
    s3_proxy.reset_all()
    device.gate.set()
    async with asyncio.timeout(WAIT_SECONDS):
        while "waits for the store" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert (await reached(store, job.id, State.PROCESSING)).compute_starts == 1
    s3_proxy.resets_after_bytes = None
    await running
    done = await ended(store, job.id)
    assert (done.state, device.pictures) == (State.COMPLETED, [b"picture"])
    async with blobs.local(done.outputs[0].blob_key) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == done.outputs[0].sha256


async def test_picture_that_cannot_be_had_now_costs_the_job_nothing(
    store: Store,
    device: Any,
    settings: Settings,
    clock: Any,
    new_job: Callable[..., Job],
    s3: SeaweedS3,
    s3_proxy: Proxy,
    tmp_path: Path,
) -> None:
    blobs, queue = s3_blobs(s3, s3_proxy, tmp_path), Queue.in_memory(retry_seconds=0.01)
    worker = make_worker(
        store=store, blobs=blobs, queue=queue, compute=device, settings=settings, clock=clock
    )
    job = new_job()
    await blobs.put(input_key(job.id), b"picture")
    await store.add(job := replace(job, source_blob=input_key(job.id)))
    s3_proxy.resets_after_bytes = 0
    s3_proxy.reset_all()
    running = asyncio.create_task(worker.run())
    async with asyncio.timeout(WAIT_SECONDS):
        while (await reached(store, job.id, *State)).epoch < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    s3_proxy.resets_after_bytes = None
    done = await ended(store, job.id)
    assert (done.state, done.compute_starts) == (State.COMPLETED, 1)
    await worker.stop()
    await running


async def test_worker_whose_database_is_away_at_its_start_works_once_it_is_back(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    device: Any,
    settings: Settings,
    clock: Any,
    inline_job: InlineJob,
) -> None:
    async def away(_at_most: int | None) -> list[Entry]:
        raise Overloaded("The database is away")

    worker = make_worker(
        store=store, blobs=blobs, queue=queue, compute=device, settings=settings, clock=clock, lost=away
    )
    running = asyncio.create_task(worker.run())
    job = await inline_job()
    await queue.enqueue([Entry(job.id)])
    assert (await ended(store, job.id)).state is State.COMPLETED
    await worker.stop()
    await running


@pytest.mark.parametrize(
    ("min_free_bytes", "states"),
    [(0, [State.FAILED]), (1 << 60, [State.CREATED, State.PROCESSING])],
    ids=["too large for this disk", "disk full without it"],
)
async def test_picture_that_fills_the_disk_fails_unless_the_disk_is_full_without_it(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    settings: Settings,
    clock: Any,
    inline_job: InlineJob,
    min_free_bytes: int,
    states: list[State],
) -> None:
    class Full:
        async def upscale(self, *_: Any) -> None:
            raise StorageFull("No space left on device")

    worker = make_worker(
        store=store,
        blobs=blobs,
        queue=queue,
        compute=Full(),
        settings=settings.model_copy(update={"min_free_bytes": min_free_bytes}),
        clock=clock,
    )
    job = await inline_job()
    with suppress(StorageFull):
        await worker.run_job(Entry(job.id))
    left = await reached(store, job.id, *State)
    assert left.state in states
    assert left.error_code == ("storage_full" if left.state is State.FAILED else "")


def s3_blobs(s3: SeaweedS3, proxy: Proxy, tmp_path: Path) -> S3Blobs:
    """S3 through a proxy, with little patience."""
    bucket = Bucket(
        name=s3.create_bucket(),
        endpoint=f"http://127.0.0.1:{proxy.port}",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )
    return S3Blobs(bucket, tmp_path / "scratch", seconds=0.5)


async def test_progress_is_in_the_row_while_the_job_goes_on(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    device.gate.clear()
    job = await inline_job()
    running = asyncio.create_task(worker.run_job(Entry(job.id)))
    seen = job
    async with asyncio.timeout(WAIT_SECONDS):
        while not seen.progress:
            await asyncio.sleep(0.05)
            seen = await reached(store, job.id, State.PROCESSING)
    assert seen.progress == 0.5
    device.gate.set()
    await running
    assert (await ended(store, job.id)).progress == 1.0


async def test_cancel_in_the_store_alone_reaches_the_device(
    worker: Worker, store: Store, device: Any, inline_job: InlineJob
) -> None:
    """As when another process answers the request: nothing tells this one but the row."""
    device.gate.clear()
    job = await inline_job()
    running = asyncio.create_task(worker.run_job(Entry(job.id)))
    await asyncio.wait_for(device.started.wait(), WAIT_SECONDS)
    assert await store.cancel(job.id, job.key_id, 5.0)
    await asyncio.wait_for(running, WAIT_SECONDS)
    assert device.busy == 0
    assert (await ended(store, job.id)).state is State.CANCELLED


async def test_cancel_ends_a_fetch(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    device: Any,
    settings: Settings,
    clock: Any,
    pictures: Any,
    new_job: Callable[..., Job],
) -> None:
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def silent(_: Any) -> None:
        loop.call_soon_threadsafe(asked.set)
        pictures.closing.wait()

    pictures.routes["/"] = silent
    allowing = settings.model_copy(
        update={"allow_private_networks": (ip_network("127.0.0.0/8"),), "allow_ports": (pictures.port,)}
    )
    worker = make_worker(
        store=store, blobs=blobs, queue=queue, compute=device, settings=allowing, clock=clock
    )
    job = new_job(source_url=pictures.url("/"))
    await store.add(job)
    running = asyncio.create_task(worker.run_job(Entry(job.id)))
    await asyncio.wait_for(asked.wait(), WAIT_SECONDS)
    assert await store.cancel(job.id, job.key_id, 5.0)
    await asyncio.wait_for(running, WAIT_SECONDS)
    assert stored_files(settings) == []


async def test_jobs_of_a_key_at_its_concurrency_all_run_in_the_end(
    worker: Worker, store: Store, device: Any, key: Key, inline_job: InlineJob
) -> None:
    """Their tickets come while there is nothing to draw, and are spent."""
    await store.add_key(replace(key, max_concurrency=1), "hash")
    jobs = [await inline_job() for _ in range(8)]
    task = asyncio.create_task(worker.run())
    most = 0
    async with asyncio.timeout(WAIT_SECONDS):
        while await store.count_unfinished():
            rows = [await store.get(job.id) for job in jobs]
            most = max(most, sum(row is not None and row.state is State.PROCESSING for row in rows))
            await asyncio.sleep(0.01)
    await worker.stop()
    await asyncio.wait_for(task, WAIT_SECONDS)
    assert most == 1
    assert len(device.pictures) == 8


async def test_refused_result_fails_the_job_and_is_not_kept(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    device: Any,
    settings: Settings,
    clock: Any,
    inline_job: InlineJob,
) -> None:
    device.nsfw_score = 0.9
    outcomes: list[tuple[State, str]] = []
    for refuse in (False, True):
        strict = settings.model_copy(update={"nsfw_refuse": refuse})
        worker = make_worker(
            store=store, blobs=blobs, queue=queue, compute=device, settings=strict, clock=clock
        )
        job = await inline_job()
        await worker.run_job(Entry(job.id))
        done = await ended(store, job.id)
        outcomes.append((done.state, done.error_code))
        assert [output.nsfw_score for output in done.outputs] == ([] if refuse else [0.9])
    assert outcomes == [(State.COMPLETED, ""), (State.FAILED, "content_refused")]
    assert f"outputs/{job.id}/1/1.png" not in stored_files(settings)
