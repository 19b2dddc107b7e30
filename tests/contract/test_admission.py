"""What is taken and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from enlarger.drivers import opened_store
from enlarger.errors import IdempotencyConflict, Overloaded, RateLimited
from enlarger.jobs.admission import Limits, Repeat, fingerprint
from enlarger.jobs.job import Job, Key, State
from enlarger.jobs.limits import check_rate, wait_seconds
from enlarger.jobs.queue import Entry
from enlarger.jobs.store import Store
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio

LIMITS = Limits(max_jobs=100, max_seconds=1e6)
NewJob = Callable[..., Job]


@pytest.fixture
async def limited(store: Store) -> Key:
    key = Key(id="l" * 32, name="limited", created_at=1.0, rate_per_minute=3)
    await store.add_key(key, "hash")
    return key


async def admitted(store: Store, new_job: NewJob, key: Key, now: float, repeat: Repeat | None = None) -> Job:
    return await store.admit(new_job(key_id=key.id), key, LIMITS, repeat, now)


async def test_key_may_spend_a_minute_at_once_and_then_goes_on_at_its_rate(
    store: Store, new_job: NewJob, limited: Key
) -> None:
    for _ in range(3):
        await admitted(store, new_job, limited, 1000.0)
    with pytest.raises(RateLimited, match="3 pictures a minute") as refusal:
        await admitted(store, new_job, limited, 1000.0)
    assert refusal.value.retry_after_seconds == pytest.approx(20)
    with pytest.raises(RateLimited):
        await admitted(store, new_job, limited, 1019.9)
    await admitted(store, new_job, limited, 1020.0)
    with pytest.raises(RateLimited):
        await admitted(store, new_job, limited, 1020.0)
    assert await store.count_unfinished() == 4


async def test_many_submits_at_once_spend_no_more_than_the_rate(
    store: Store, settings: Settings, new_job: NewJob, limited: Key
) -> None:
    async with opened_store(settings) as other:
        results = await asyncio.gather(
            *(admitted((store, other)[n % 2], new_job, limited, 1000.0) for n in range(12)),
            return_exceptions=True,
        )
    assert sum(isinstance(result, Job) for result in results) == 3
    assert sum(isinstance(result, RateLimited) for result in results) == 9


@given(
    rate=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 90), max_size=60),
)
def test_no_minute_sees_more_than_twice_the_rate_and_waiting_always_helps(
    rate: int, pauses: list[float]
) -> None:
    """A minute's worth may have been saved up, and a minute's worth comes in."""
    key = Key(id="k", name="", created_at=0.0, rate_per_minute=rate)
    now, arrival_at = 1000.0, 0.0
    taken: list[float] = []
    for pause in pauses:
        now += pause
        if (seconds := wait_seconds(key, arrival_at, now)) > 1e-9:
            with pytest.raises(RateLimited):
                check_rate(key, arrival_at, now)
            check_rate(key, arrival_at, now + seconds + 1e-6)
            continue
        arrival_at = max(arrival_at, now) + 60 / rate
        taken.append(now)
    for start in taken:
        assert sum(start <= at < start + 59.999 for at in taken) <= 2 * rate


async def test_backlog_is_bounded_in_estimated_seconds(store: Store, new_job: NewJob, key: Key) -> None:
    limits = Limits(max_jobs=100, max_seconds=25.0)
    await store.add_key(key, "hash")
    finished = await store.admit(new_job(), key, limits, None, 1.0)
    claimed = await store.claim(Entry(finished.id), 1.0)
    assert claimed
    await store.finish(claimed, [], {}, 1, 2.0, device_seconds=9.0)
    jobs = [await store.admit(new_job(), key, limits, None, 3.0) for _ in range(2)]
    assert [job.cost_seconds for job in jobs] == [9.0, 9.0]
    with pytest.raises(Overloaded, match="max_backlog_seconds") as refusal:
        await store.admit(new_job(), key, limits, None, 3.0)
    assert refusal.value.retry_after_seconds == pytest.approx(2.0)
    claimed = await store.claim(Entry(jobs[0].id), 4.0)
    assert claimed
    await store.set_progress(claimed, 0.5)
    assert await store.admit(new_job(), key, limits, None, 5.0)


async def test_job_longer_than_the_whole_backlog_is_taken_by_an_idle_server(
    store: Store, new_job: NewJob, key: Key
) -> None:
    assert await store.admit(new_job(), key, Limits(max_jobs=1, max_seconds=0.1), None, 1.0)


async def test_same_idempotency_key_and_request_give_the_same_job(
    store: Store, new_job: NewJob, limited: Key
) -> None:
    repeat = Repeat("once", fingerprint(["cat.png"]))
    results = await asyncio.gather(*(admitted(store, new_job, limited, 1000.0, repeat) for _ in range(8)))
    assert len({job.id for job in results}) == 1
    assert await store.count_unfinished() == 1
    assert await store.earlier(limited, repeat, 1000.0) == results[0]


async def test_idempotency_key_with_another_request_is_a_conflict_for_24_hours(
    store: Store, new_job: NewJob, limited: Key
) -> None:
    first = await admitted(store, new_job, limited, 1000.0, Repeat("once", fingerprint(["cat.png"])))
    other = Repeat("once", fingerprint(["dog.png"]))
    with pytest.raises(IdempotencyConflict, match="'once'"):
        await admitted(store, new_job, limited, 1000.0 + 86_399, other)
    second = await admitted(store, new_job, limited, 1000.0 + 86_400, other)
    assert second.id != first.id
    assert await store.earlier(limited, other, 1000.0 + 86_401) == second


async def test_idempotency_keys_of_two_keys_have_nothing_to_do_with_each_other(
    store: Store, new_job: NewJob, key: Key, limited: Key
) -> None:
    await store.add_key(key, "another hash")
    repeat = Repeat("once", fingerprint(["cat.png"]))
    mine = await admitted(store, new_job, limited, 1000.0, repeat)
    assert await store.earlier(key, repeat, 1000.0) is None
    theirs = await admitted(store, new_job, key, 1000.0, Repeat("once", fingerprint(["dog.png"])))
    assert mine.id != theirs.id


async def test_deleted_job_is_not_repeated(store: Store, new_job: NewJob, limited: Key) -> None:
    repeat = Repeat("once", fingerprint(["cat.png"]))
    first = await admitted(store, new_job, limited, 1000.0, repeat)
    assert await store.delete([first.id], limited.id) == [first.id]
    second = await admitted(store, new_job, limited, 1001.0, repeat)
    assert second.id != first.id


@pytest.mark.parametrize(
    "limits", [Limits(max_jobs=1, max_seconds=1e9), Limits(max_jobs=9, max_seconds=10.0)]
)
async def test_refused_submit_charges_nothing(
    store: Store, new_job: NewJob, limited: Key, limits: Limits
) -> None:
    async def written() -> list[Any]:
        asked = [text("SELECT arrival_at, fair_finish FROM keys"), text("SELECT id FROM jobs")]
        return await store.database.read(
            lambda connection: [connection.execute(query).fetchall() for query in asked]
        )

    await store.admit(new_job(key_id=limited.id), limited, limits, None, 1.0)
    before = await written()
    with pytest.raises(Overloaded):
        await store.admit(new_job(key_id=limited.id), limited, limits, Repeat("once", "f"), 1.0)
    assert await written() == before
    with pytest.raises(Overloaded):
        await store.check_admission(limited, "", limits, 1.0)


async def test_admitted_job_is_on_the_disk(
    store: Store, settings: Settings, new_job: NewJob, limited: Key
) -> None:
    job = await admitted(store, new_job, limited, 5.0)
    async with opened_store(settings) as other:
        assert await other.get(job.id) == job
    assert job == replace(job, state=State.CREATED, fair_tag=0.0, cost_seconds=10.0)
