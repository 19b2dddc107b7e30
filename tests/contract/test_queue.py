from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from pgqueuer import PgQueuer
from pgqueuer.adapters.inmemory import InMemoryDriver, InMemoryQueries

from enlarger.jobs.queue import SLOTS, Entry, Queue, RunJob, Terms

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 20


@asynccontextmanager
async def running(queue: Queue, run_job: RunJob) -> AsyncGenerator[asyncio.Task[None]]:
    task = asyncio.create_task(queue.run(run_job))
    try:
        yield task
    finally:
        await queue.stop(0)
        await asyncio.wait_for(task, WAIT_SECONDS)


async def test_ids_are_handed_out_in_order(queue: Queue) -> None:
    seen: asyncio.Queue[Entry] = asyncio.Queue()
    for n in range(10):
        await queue.enqueue([Entry(f"{n}")])
    async with running(queue, seen.put):
        await queue.enqueue([Entry("late")])
        got = [await asyncio.wait_for(seen.get(), WAIT_SECONDS) for _ in range(11)]
    assert [entry.ticket for entry in got] == [*(f"{n}" for n in range(10)), "late"]


async def test_id_that_waits_or_runs_is_not_queued_twice(queue: Queue) -> None:
    runs: list[str] = []
    started, gate, other = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run_job(entry: Entry) -> None:
        job_id = entry.ticket
        if job_id == "other":
            other.set()
            return
        runs.append(job_id)
        started.set()
        await gate.wait()

    for _ in range(10):
        await queue.enqueue([Entry("same")])
    async with running(queue, run_job):
        await asyncio.wait_for(started.wait(), WAIT_SECONDS)
        for job_id in ("same", "other"):
            await queue.enqueue([Entry(job_id)])
        await asyncio.wait_for(other.wait(), WAIT_SECONDS)
        gate.set()
    assert runs == ["same"]


async def test_no_more_than_the_slots_are_in_hand(queue: Queue) -> None:
    busy = most = 0
    full, gate, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    left = 3 * SLOTS

    async def run_job(_entry: Entry) -> None:
        nonlocal busy, most, left
        busy += 1
        most = max(most, busy)
        if busy == SLOTS:
            full.set()
        await gate.wait()
        busy -= 1
        left -= 1
        if not left:
            done.set()

    for n in range(left):
        await queue.enqueue([Entry(f"{n}")])
    async with running(queue, run_job):
        await asyncio.wait_for(full.wait(), WAIT_SECONDS)
        gate.set()
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    assert most == SLOTS


async def test_jobs_aside_leave_their_slots_to_others_and_come_back(queue: Queue) -> None:
    aside, gate, other, done = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Event()
    waiting = busy = most = 0
    left = 2 * SLOTS

    async def run_job(entry: Entry) -> None:
        job_id = entry.ticket
        nonlocal waiting, busy, most, left
        if job_id == "other":
            other.set()
            return
        async with queue.aside():
            waiting += 1
            if waiting == 2 * SLOTS:
                aside.set()
            await gate.wait()
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        left -= 1
        if not left:
            done.set()

    for n in range(2 * SLOTS):
        await queue.enqueue([Entry(f"{n}")])
    async with running(queue, run_job):
        await asyncio.wait_for(aside.wait(), WAIT_SECONDS)
        await queue.enqueue([Entry("other")])
        await asyncio.wait_for(other.wait(), WAIT_SECONDS)
        gate.set()
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    assert 1 <= most <= SLOTS


async def test_a_wait_that_fails_costs_no_slot(queue: Queue) -> None:
    failed, done = 0, asyncio.Event()

    async def run_job(entry: Entry) -> None:
        job_id = entry.ticket
        nonlocal failed
        if job_id == "last":
            done.set()
            return
        try:
            async with queue.aside():
                raise TimeoutError
        except TimeoutError:
            failed += 1

    for job_id in (*(f"{n}" for n in range(2 * SLOTS)), "last"):
        await queue.enqueue([Entry(job_id)])
    async with running(queue, run_job):
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    assert failed == 2 * SLOTS


async def test_id_is_handed_out_again_after_an_exception(queue: Queue) -> None:
    tries = 0
    done = asyncio.Event()

    async def run_job(_entry: Entry) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("disk full")
        done.set()

    await queue.enqueue([Entry("x")])
    async with running(queue, run_job):
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    assert tries == 3


@pytest.mark.parametrize("ends", [True, False])
async def test_stop_waits_for_jobs_in_hand_and_then_cancels_them(queue: Queue, ends: bool) -> None:
    started, gate = asyncio.Event(), asyncio.Event()
    outcomes: list[str] = []

    async def run_job(entry: Entry) -> None:
        job_id = entry.ticket
        started.set()
        try:
            await gate.wait()
            outcomes.append(f"{job_id} ended")
        except asyncio.CancelledError:
            outcomes.append(f"{job_id} cancelled")
            raise

    await queue.enqueue([Entry("first")])
    task = asyncio.create_task(queue.run(run_job))
    await asyncio.wait_for(started.wait(), WAIT_SECONDS)
    stopping = asyncio.create_task(queue.stop(WAIT_SECONDS if ends else 0))
    if ends:
        gate.set()
    await asyncio.wait_for(stopping, WAIT_SECONDS)
    await asyncio.wait_for(task, WAIT_SECONDS)
    await queue.enqueue([Entry("second")])
    assert outcomes == ["first ended" if ends else "first cancelled"]


async def test_memory_does_not_grow_with_the_jobs_done() -> None:
    queries = InMemoryQueries(InMemoryDriver())
    pgq = PgQueuer(queries.driver, queries=queries)
    queue = Queue(pgq, queries, Terms(retry_seconds=0.01), trim_log=queries.clear_queue_log)
    done = asyncio.Event()

    async def run_job(entry: Entry) -> None:
        job_id = entry.ticket
        if job_id == "last":
            done.set()

    for job_id in (*(f"{n}" for n in range(50)), "last"):
        await queue.enqueue([Entry(job_id)])
    async with running(queue, run_job):
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
    assert len(await queries.queue_log()) <= 3 * SLOTS


async def test_stop_hands_back_at_once_what_takes_its_time_to_end() -> None:
    queries = InMemoryQueries(InMemoryDriver())
    queue = Queue(PgQueuer(queries.driver, queries=queries), queries, Terms())
    started, may_end = asyncio.Event(), asyncio.Event()

    async def run_job(_entry: Entry) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    await queue.enqueue([Entry("slow")])
    task = asyncio.create_task(queue.run(run_job))
    await asyncio.wait_for(started.wait(), WAIT_SECONDS)
    assert [entry.status for entry in await queries.queue_size()] == ["picked"]
    await queue.stop(0)
    async with asyncio.timeout(WAIT_SECONDS):
        while [entry.status for entry in await queries.queue_size()] != ["queued"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    await asyncio.wait_for(task, WAIT_SECONDS)


@pytest.mark.parametrize("turns", range(8))
async def test_no_id_is_started_once_stop_was_called_at_whatever_turn_of_the_loop(
    queue: Queue, turns: int
) -> None:
    started: list[str] = []

    async def run_job(entry: Entry) -> None:
        job_id = entry.ticket
        started.append(job_id)
        await asyncio.Event().wait()

    for n in range(SLOTS):
        await queue.enqueue([Entry(f"{n}")])
    task = asyncio.create_task(queue.run(run_job))
    for _ in range(turns):
        await asyncio.sleep(0)
    before = len(started)
    await queue.stop(0)
    await asyncio.wait_for(task, WAIT_SECONDS)
    assert len(started) == before
