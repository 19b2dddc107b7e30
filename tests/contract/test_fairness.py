"""Whose turn it is. The oracle is the share of the device each key gets, counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text, update

from enlarger.jobs import tables
from enlarger.jobs.admission import Limits, admit
from enlarger.jobs.job import Job, Key
from enlarger.jobs.postgres import open_postgres
from enlarger.jobs.queue import Entry
from enlarger.jobs.store import Store

pytestmark = pytest.mark.anyio

PLENTY = Limits(max_jobs=10_000, max_seconds=1e12)
NewJob = Callable[..., Job]


async def with_keys(store: Store, *keys: Key) -> None:
    for key in keys:
        await store.add_key(key, key.id)


def named(name: str, **limits: Any) -> Key:
    return Key(id=name, name=name, created_at=1.0, **limits)


async def submit(store: Store, new_job: NewJob, key: Key, count: int) -> list[Job]:
    return [await store.admit(new_job(key_id=key.id), key, PLENTY, None, 1.0) for _ in range(count)]


async def serve(store: Store, ticket: str = "t") -> Job | None:
    """Serve the next job from claim to end."""
    job = await store.claim(Entry(ticket), 1.0)
    if job:
        assert await store.finish(job, [], {}, 1, 2.0)
    return job


async def served(store: Store, count: int) -> list[str]:
    return [job.key_id for _ in range(count) if (job := await serve(store))]


async def test_jobs_of_one_key_are_served_in_the_order_of_their_submits(
    store: Store, new_job: NewJob
) -> None:
    key = named("a")
    await with_keys(store, key)
    jobs = await submit(store, new_job, key, 5)
    assert [job.id for _ in range(5) if (job := await serve(store))] == [job.id for job in jobs]


async def test_submits_of_one_key_at_the_same_moment_count_one_after_the_other(
    database_url: str, new_job: NewJob
) -> None:
    store, key = Store(open_postgres(database_url)), named("a")
    await store.migrate()
    await with_keys(store, key)
    tags: list[float] = []
    first = store.database.writer.connect()
    try:
        before = admit(first, new_job(key_id="a"), key, PLENTY, None, 1.0)
        second = asyncio.create_task(store.admit(new_job(key_id="a"), key, PLENTY, None, 1.0))
        # It has looked, and now waits for the row that the first holds.
        waits = text(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while not await store.database.read(lambda connection: connection.execute(waits).scalar_one()):
            assert not second.done()
        first.commit()
        tags = [before.fair_tag, (await second).fair_tag]
    finally:
        first.close()
        await store.close()
    assert tags == [0.0, before.cost_seconds]


async def test_flood_of_one_key_delays_another_by_one_job(store: Store, new_job: NewJob) -> None:
    flooding, modest = named("a"), named("b")
    await with_keys(store, flooding, modest)
    await submit(store, new_job, flooding, 60)
    assert await served(store, 20) == ["a"] * 20
    await submit(store, new_job, modest, 1)
    assert "b" in await served(store, 2)


async def test_weights_divide_the_device(store: Store, new_job: NewJob) -> None:
    heavy, light = named("a", weight=3.0), named("b")
    await with_keys(store, heavy, light)
    for key in (heavy, light):
        await submit(store, new_job, key, 40)
    assert Counter(await served(store, 40)) == {"a": 30, "b": 10}


async def test_idle_time_earns_no_credit(store: Store, new_job: NewJob) -> None:
    busy, late = named("a"), named("b")
    await with_keys(store, busy, late)
    await submit(store, new_job, busy, 20)
    await served(store, 20)
    for key in (busy, late):
        await submit(store, new_job, key, 10)
    assert Counter(await served(store, 10)) == {"a": 5, "b": 5}


async def test_order_survives_ten_thousand_million_jobs_of_virtual_time(
    store: Store, new_job: NewJob
) -> None:
    keys = named("a"), named("b")
    await with_keys(store, *keys)
    far_ahead = update(tables.keys).values(fair_finish=1e10 * 100)
    await store.database.write(lambda connection: connection.execute(far_ahead))
    for key in keys:
        await submit(store, new_job, key, 10)
    order = await served(store, 20)
    assert all({order[n], order[n + 1]} == {"a", "b"} for n in range(0, 20, 2)), order


async def test_key_at_its_concurrency_waits_while_others_go_on(store: Store, new_job: NewJob) -> None:
    limited, free = named("a", max_concurrency=2), named("b")
    await with_keys(store, limited, free)
    await submit(store, new_job, limited, 3)
    running = [await store.claim(Entry(f"t{n}"), 1.0) for n in range(3)]
    assert [job.key_id for job in running if job] == ["a", "a"]
    await submit(store, new_job, free, 1)
    other = await store.claim(Entry("t3"), 1.0)
    assert other
    assert other.key_id == "b"
    assert running[0]
    assert await store.fail(running[0], "timed_out", "", 2.0)
    third = await store.claim(Entry("t4"), 1.0)
    assert third
    assert third.key_id == "a"
