from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import Connection

from enlarger.jobs.admission import Limits
from enlarger.jobs.job import TRANSITIONS, Job, Key, Output, State
from enlarger.jobs.queue import Entry, Queue
from enlarger.jobs.store import Store

pytestmark = pytest.mark.anyio

PLENTY = Limits(max_jobs=10_000, max_seconds=1e12)

NewJob = Callable[..., Job]
OUTPUT = Output(blob_key="outputs/1/1/1.png", media_type="image/png", width=8, height=4, bytes=9, sha256="ab")


@dataclass
class Recording:
    """A queue whose `record` is another's."""

    record: Callable[[Connection, Sequence[Entry]], None]
    queue: Queue

    async def announce(self, entries: Sequence[Entry]) -> None:
        await self.queue.announce(entries)


async def test_job_comes_back_as_it_was_added(store: Store, new_job: NewJob) -> None:
    job = new_job(
        input={"image": "ü", "scale": 2.5}, source_url="http://a/b", outputs=(OUTPUT,), report={"a": [1]}
    )
    await store.add(job)
    assert await store.get(job.id) == job


async def test_job_of_another_key_is_not_found(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    assert await store.get(job.id, job.key_id) == job
    assert await store.get(job.id, "b" * 32) is None


async def test_claim_raises_the_epoch_and_keeps_the_first_start(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    first, second = await store.claim(Entry(job.id), 10.0), await store.claim(Entry(job.id), 20.0)
    taken = replace(job, state=State.PROCESSING, ticket=job.id, started_at=10.0)
    assert (first, second) == (replace(taken, epoch=1), replace(taken, epoch=2))


@pytest.mark.parametrize("state", State)
async def test_only_unfinished_jobs_can_be_claimed(store: Store, new_job: NewJob, state: State) -> None:
    job = new_job(state=state)
    await store.add(job)
    claimed = await store.claim(Entry(job.id), 1.0)
    assert (claimed is not None) == (State.PROCESSING in TRANSITIONS[state])


async def test_any_ticket_draws_a_waiting_job_and_none_when_there_is_none(
    store: Store, new_job: NewJob
) -> None:
    assert await store.claim(Entry("f" * 32), 1.0) is None
    job = new_job()
    await store.add(job)
    drawn = await store.claim(Entry("f" * 32), 1.0)
    assert drawn
    assert (drawn.id, drawn.ticket) == (job.id, "f" * 32)
    assert await store.claim(Entry(job.id), 2.0) is None
    assert await store.claim(Entry("f" * 32), 2.0) == replace(drawn, epoch=2)


async def test_finish_records_the_result(store: Store, new_job: NewJob) -> None:
    await store.add(new_job())
    [entry] = await store.unfinished()
    claimed = await store.claim(entry, 1.0)
    assert claimed
    assert await store.finish(claimed, [OUTPUT], {"tiles": 3}, 250, 2.0)
    assert await store.get(entry.ticket) == replace(
        claimed,
        state=State.COMPLETED,
        outputs=(OUTPUT,),
        report={"tiles": 3},
        compute_ms=250,
        progress=1.0,
        finished_at=2.0,
    )


async def test_older_claim_can_change_nothing(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    older, newer = await store.claim(Entry(job.id), 1.0), await store.claim(Entry(job.id), 2.0)
    assert older
    assert newer
    assert await store.start_compute(older) == 0
    assert not await store.set_source_blob(older, "inputs/x")
    assert not await store.finish(older, [OUTPUT], {}, 1, 3.0)
    assert not await store.fail(older, "timed_out", "late", 3.0)
    assert await store.get(job.id) == newer


async def test_ended_job_cannot_end_again(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    claimed = await store.claim(Entry(job.id), 1.0)
    assert claimed
    assert await store.fail(claimed, "timed_out", "too slow", 2.0)
    assert not await store.finish(claimed, [OUTPUT], {}, 1, 3.0)
    ended = await store.get(job.id)
    assert ended
    assert (ended.state, ended.error_code, ended.error_message) == (State.FAILED, "timed_out", "too slow")


async def test_compute_starts_are_counted_over_claims(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    counts: list[int] = []
    for _ in range(3):
        claimed = await store.claim(Entry(job.id), 1.0)
        assert claimed
        counts.append(await store.start_compute(claimed))
    assert counts == [1, 2, 3]


async def test_of_many_claims_at_once_each_gets_its_own_epoch(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    claims = await asyncio.gather(*(store.claim(Entry(job.id), 1.0) for _ in range(20)))
    epochs = sorted(claim.epoch for claim in claims if claim)
    # One that comes in the moment of the first claim may find nothing to claim.
    assert epochs == list(range(1, len(epochs) + 1))
    row = await store.get(job.id)
    assert row
    assert row.epoch == len(epochs) > 0


async def test_unfinished_jobs_are_listed_oldest_first(store: Store, new_job: NewJob) -> None:
    late, early = new_job(created_at=2.0), new_job(created_at=1.0, state=State.PROCESSING)
    for job in (late, early, new_job(state=State.COMPLETED), new_job(state=State.FAILED)):
        await store.add(job)
    assert await store.unfinished() == [Entry(early.id), Entry(late.id)]
    assert await store.count_unfinished() == 2


async def test_cancelled_write_leaves_the_store_usable(store: Store, new_job: NewJob) -> None:
    for delay in (0.0, 0.0005, 0.002):
        writing = asyncio.create_task(store.add(new_job()))
        await asyncio.sleep(delay)
        writing.cancel()
        await asyncio.wait([writing])
    job = new_job()
    await store.add(job)
    assert await store.get(job.id) == job


async def test_migrating_again_keeps_the_rows(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    await store.migrate()
    assert await store.get(job.id) == job


async def test_key_is_found_by_the_hash_of_its_secret_until_revoked(store: Store, key: Key) -> None:
    await store.add_key(key, "c0ffee")
    assert await store.key_by_hash("c0ffee") == key
    assert await store.key_by_hash("decaf") is None
    assert await store.revoke_key(key.id, 5.0)
    assert not await store.revoke_key(key.id, 6.0)
    assert await store.keys() == [replace(key, revoked_at=5.0)]


async def test_secret_is_made_once(store: Store) -> None:
    assert await store.secret("links", b"first") == b"first"
    assert await store.secret("links", b"second") == b"first"
    assert await store.secret("other", b"second") == b"second"


async def test_row_and_entry_are_written_together_or_not_at_all(
    store: Store, queue: Queue, new_job: NewJob, key: Key
) -> None:
    await store.add_key(key, "hash")
    admitted, refused, told = new_job(), new_job(), list[Entry]()
    record = queue.record

    def fail_for_refused(connection: Connection, entries: Sequence[Entry]) -> None:
        record(connection, entries)
        if entries[0].ticket == refused.id:
            raise InterruptedError

    store.queue = Recording(fail_for_refused, queue)
    await store.admit(admitted, key, PLENTY, None, 1.0)
    with pytest.raises(InterruptedError):
        await store.admit(refused, key, PLENTY, None, 1.0)
    assert await store.unfinished() == [Entry(admitted.id)]
    await queue.enqueue([Entry("last")])
    ran = asyncio.Event()

    async def run_job(entry: Entry) -> None:
        told.append(entry)
        if entry.ticket == "last":
            ran.set()

    running = asyncio.create_task(queue.run(run_job))
    await asyncio.wait_for(ran.wait(), 20)
    await queue.stop(5)
    await running
    assert told == [Entry(admitted.id), Entry("last")]


async def test_job_let_go_is_claimed_again_and_its_older_claim_is_worthless(
    store: Store, new_job: NewJob
) -> None:
    job = new_job()
    await store.add(job)
    first = await store.claim(Entry(job.id), 1.0)
    assert first
    assert await store.let_go(first)
    assert not await store.let_go(first)
    assert not await store.finish(first, [OUTPUT], {}, 1, 2.0)
    second = await store.claim(Entry("another"), 3.0)
    assert second
    assert (second.id, second.epoch, second.ticket, second.started_at) == (job.id, 2, "another", 1.0)


async def test_ticket_of_one_route_draws_no_job_of_another(store: Store, new_job: NewJob) -> None:
    await store.add(new_job(route="gpu.small"))
    assert await store.claim(Entry("t"), 1.0) is None
    drawn = await store.claim(Entry("t", "gpu.small"), 1.0)
    assert drawn
    assert await store.let_go(drawn, "gpu.large")
    assert await store.claim(Entry("t", "gpu.small"), 1.0) is None
    assert await store.claim(Entry("t", "gpu.large"), 1.0)


async def test_result_like_is_the_newest_completed_one_of_the_same_key(store: Store, new_job: NewJob) -> None:
    async def ended(fingerprint: str, now: float, **values: Any) -> Job:
        await store.add(new_job(**values))
        claimed = await store.claim(Entry("t"), now)
        assert claimed
        assert await store.finish(claimed, [OUTPUT], {}, 1, now, fingerprint=fingerprint)
        done = await store.get(claimed.id)
        assert done
        return done

    await ended("f1", 1.0)
    newest = await ended("f1", 2.0)
    await ended("f2", 3.0)
    await ended("f1", 4.0, key_id="b" * 32)
    asking = new_job()
    assert await store.result_like(asking, "f1", 0.0) == newest
    assert await store.result_like(asking, "f1", 2.0) is None
    assert await store.result_like(asking, "f3", 0.0) is None
    await store.delete([newest.id], newest.key_id)
    older = await store.result_like(asking, "f1", 0.0)
    assert older
    assert older.finished_at == 1.0


async def test_claims_at_once_keep_to_the_limit_of_their_key(store: Store, new_job: NewJob, key: Key) -> None:
    await store.add_key(replace(key, max_concurrency=2), "hash")
    for _ in range(8):
        await store.add(new_job())
    claims = await asyncio.gather(*(store.claim(Entry(f"t{n}"), 1.0) for n in range(8)))
    assert 1 <= sum(claim is not None for claim in claims) <= 2


async def test_higher_priority_is_served_first_whatever_the_shares(store: Store, new_job: NewJob) -> None:
    ordinary, urgent = new_job(fair_tag=0.0), new_job(fair_tag=1e9, rank=-1)
    for job in (ordinary, urgent):
        await store.add(job)
    claims = [await store.claim(Entry(f"t{n}"), 1.0) for n in range(2)]
    assert [claim.id for claim in claims if claim] == [urgent.id, ordinary.id]
