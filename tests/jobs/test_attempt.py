"""What an attempt does beside computing: results had before, bands, routes, databases that are away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from enlarger.errors import Overloaded
from enlarger.jobs import devices as devices_module
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Job, Key, State
from enlarger.jobs.queue import Entry, HandBack, Queue
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.worker import Worker
from enlarger.settings import Settings

from ..one_step import InSteps, make_worker

pytestmark = pytest.mark.anyio

InlineJob = Callable[..., Awaitable[Job]]


@pytest.fixture
def work(
    store: Store, blobs: LocalBlobs, queue: Queue, device: Any, settings: Settings, clock: Any
) -> Callable[..., Worker]:
    """A worker; keywords are settings, and `compute`, `is_idle_elsewhere` are its own."""

    def make(compute: Any = None, is_idle_elsewhere: Any = None, **chosen: Any) -> Worker:
        means = {} if is_idle_elsewhere is None else {"is_idle_elsewhere": is_idle_elsewhere}
        return make_worker(
            store=store,
            blobs=blobs,
            queue=queue,
            compute=compute or device,
            settings=settings.model_copy(update=chosen),
            clock=clock,
            **means,
        )

    return make


async def row(store: Store, job: Job) -> Job:
    found = await store.get(job.id)
    assert found
    return found


async def test_repeated_request_gets_the_earlier_result_without_the_device(
    work: Callable[..., Worker], store: Store, blobs: LocalBlobs, device: Any, inline_job: InlineJob
) -> None:
    worker = work(reuse_results=True)
    first, again, other = await inline_job(b"cat"), await inline_job(b"cat"), await inline_job(b"dog")
    for job in (first, again, other):
        await worker.run_job(Entry(job.id))
    assert device.pictures == [b"cat", b"dog"]
    done = await row(store, again)
    assert (done.state, done.compute_starts, done.compute_ms) == (State.COMPLETED, 0, 0)
    assert done.report["reused_from"] == first.id
    [mine], [earlier] = done.outputs, (await row(store, first)).outputs
    assert mine == replace(earlier, blob_key=f"outputs/{again.id}/1/1.png")
    async with blobs.local(mine.blob_key) as path:
        assert path.read_bytes() == b"upscaled cat"


async def test_deleted_result_is_computed_again_and_a_reused_one_outlives_it(
    work: Callable[..., Worker],
    service: Service,
    store: Store,
    blobs: LocalBlobs,
    device: Any,
    key: Key,
    inline_job: InlineJob,
) -> None:
    worker = work(reuse_results=True)
    first, second, third = [await inline_job(b"cat") for _ in range(3)]
    await worker.run_job(Entry(first.id))
    await worker.run_job(Entry(second.id))
    await service.delete(key, [first.id])
    [output] = (await row(store, second)).outputs
    async with blobs.local(output.blob_key) as path:
        assert path.read_bytes() == b"upscaled cat"
    await service.delete(key, [second.id])
    await worker.run_job(Entry(third.id))
    assert device.pictures == [b"cat", b"cat"]
    assert "reused_from" not in (await row(store, third)).report


async def test_no_key_gets_the_result_of_another(
    work: Callable[..., Worker], device: Any, inline_job: InlineJob
) -> None:
    worker = work(reuse_results=True)
    for key_id in ("a" * 32, "b" * 32):
        await worker.run_job(Entry((await inline_job(b"cat", key_id=key_id)).id))
    assert device.pictures == [b"cat", b"cat"]


async def test_reused_result_is_refused_where_the_operator_refuses_such(
    work: Callable[..., Worker], store: Store, device: Any, inline_job: InlineJob
) -> None:
    device.nsfw_score = 0.9
    first, again = await inline_job(b"cat"), await inline_job(b"cat")
    await work(reuse_results=True).run_job(Entry(first.id))
    await work(reuse_results=True, nsfw_refuse=True).run_job(Entry(again.id))
    assert (await row(store, again)).error_code == "content_refused"


async def test_bands_of_a_crashed_attempt_are_there_for_the_next_and_gone_in_the_end(
    work: Callable[..., Worker],
    store: Store,
    blobs: LocalBlobs,
    device: Any,
    inline_job: InlineJob,
) -> None:
    steps = InSteps(device, megapixels=5.0)
    job = await inline_job(b"large", compute_starts=1)
    await blobs.put(f"checkpoints/{job.id}/0-0-64.band", b"rows")
    await work(compute=steps, checkpoint_megapixels=4.0).run_job(Entry(job.id))
    assert steps.bands_seen == [["0-0-64.band"]]
    assert (await row(store, job)).state is State.COMPLETED
    assert [blob async for page in blobs.pages("checkpoints") for blob in page] == []


@pytest.mark.parametrize("limit", [0.0, 6.0])
async def test_small_picture_keeps_no_bands(
    work: Callable[..., Worker], device: Any, inline_job: InlineJob, limit: float
) -> None:
    steps = InSteps(device, megapixels=5.0)
    await work(compute=steps, checkpoint_megapixels=limit).run_job(Entry((await inline_job()).id))
    assert steps.bands_seen == []


async def test_large_picture_goes_to_workers_that_take_such(
    work: Callable[..., Worker], store: Store, device: Any, inline_job: InlineJob
) -> None:
    steps = InSteps(device, megapixels=20.0)
    job = await inline_job()
    await work(compute=steps, worker_sizes=("small",)).run_job(Entry(job.id))
    waiting = await row(store, job)
    assert (waiting.state, waiting.route, waiting.compute_starts) == (State.CREATED, "any.large", 0)
    assert await store.unfinished() == [Entry(job.id, "any.large")]
    await work(compute=steps).run_job(Entry(job.id, "any.large"))
    assert (await row(store, job)).state is State.COMPLETED


async def test_worker_of_both_sizes_keeps_what_turns_out_large(
    work: Callable[..., Worker], store: Store, device: Any, inline_job: InlineJob
) -> None:
    job = await inline_job()
    await work(compute=InSteps(device, megapixels=20.0)).run_job(Entry(job.id))
    assert (await row(store, job)).state is State.COMPLETED


async def test_job_that_would_wait_while_another_worker_is_idle_waits_for_that_one(
    work: Callable[..., Worker],
    store: Store,
    device: Any,
    inline_job: InlineJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices_module, "PATIENCE_SECONDS", 0.01)
    asked: list[str] = []

    async def is_idle(route: str) -> bool:
        asked.append(route)
        return True

    worker = work(is_idle_elsewhere=is_idle)
    device.gate.clear()
    first, second = await inline_job(b"first"), await inline_job(b"second")
    running = asyncio.create_task(worker.run_job(Entry(first.id)))
    await asyncio.wait_for(device.started.wait(), 20)
    with pytest.raises(HandBack):
        await worker.run_job(Entry(second.id))
    waiting = await row(store, second)
    assert (waiting.state, waiting.compute_starts, asked) == (State.CREATED, 0, ["any.small"])
    device.gate.set()
    await running
    assert (await row(store, first)).state is State.COMPLETED


async def test_two_devices_compute_two_jobs_at_once(
    work: Callable[..., Worker], store: Store, device: Any, inline_job: InlineJob
) -> None:
    worker = work(compute=[device, device])
    device.gate.clear()
    jobs = [await inline_job(b"%d" % n) for n in range(2)]
    running = [asyncio.create_task(worker.run_job(Entry(job.id))) for job in jobs]
    async with asyncio.timeout(20):
        while device.busy < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    device.gate.set()
    await asyncio.gather(*running)
    assert [(await row(store, job)).state for job in jobs] == [State.COMPLETED] * 2


async def test_result_waits_for_a_database_that_is_away(
    work: Callable[..., Worker],
    store: Store,
    device: Any,
    inline_job: InlineJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The answer to the first commit is lost: nobody knows whether it was made, and it was."""
    finish, tries = store.finish, 0

    async def lose_the_answer(*arguments: Any) -> bool:
        nonlocal tries
        tries += 1
        ended = await finish(*arguments)
        if tries == 1:
            raise Overloaded("away", 0.01)
        return ended

    monkeypatch.setattr(store, "finish", lose_the_answer)
    job = await inline_job(b"cat")
    await work().run_job(Entry(job.id))
    done = await row(store, job)
    assert (tries, done.state, done.compute_starts) == (2, State.COMPLETED, 1)
    assert device.pictures == [b"cat"]
