from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from enlarger.jobs.job import Job
from enlarger.jobs.line import Line, Standing, seen
from enlarger.jobs.rows import Waiting
from enlarger.jobs.store import Store

pytestmark = pytest.mark.anyio


def looks_of(store: Store, meanwhile: Callable[[], None] = lambda: None) -> list[str]:
    """Every query from now on; `meanwhile` happens during each."""
    looks: list[str] = []

    def look(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        looks.append(statement)
        meanwhile()

    event.listen(store.database.reader, "before_cursor_execute", look)
    return looks


@given(in_work=st.lists(st.floats(0, 1e4), max_size=4), waiting=st.lists(st.floats(0, 1e4), max_size=20))
def test_eta_is_the_sum_of_everything_before_and_position_counts_who_waits(
    in_work: list[float], waiting: list[float]
) -> None:
    line = [Waiting(str(n), n < len(in_work), cost) for n, cost in enumerate([*in_work, *waiting])]
    found = seen(line)
    for n, job in enumerate(line):
        position = max(0, n - len(in_work) + 1)
        eta = sum(before.remaining_seconds for before in line[: n + 1])
        assert found.standing(job.id) == Standing(position, pytest.approx(eta))
    assert found.waiting == len(waiting)


def test_a_job_that_waits_for_weights_is_later_itself_and_nobody_else() -> None:
    line = [
        Waiting("waits", True, 10.0, stage_seconds=30.0),
        Waiting("next", True, 5.0),
        Waiting("soon", True, 5.0, stage_seconds=2.0),
    ]
    found = seen(line)
    etas = {job.id: standing.eta_seconds for job in line if (standing := found.standing(job.id))}
    assert etas == {"waits": 40.0, "next": 15.0, "soon": 20.0}


async def test_all_who_ask_while_the_line_is_looked_at_get_that_look(
    store: Store, clock: Any, new_job: Callable[..., Job]
) -> None:
    job = new_job(cost_seconds=10.0)
    await store.add(job)
    looks = looks_of(store)
    line = Line(store, clock)
    impatient = asyncio.create_task(line.standing(job))
    asking = [asyncio.create_task(line.standing(job)) for _ in range(50)]
    await asyncio.sleep(0)
    impatient.cancel()
    assert await asyncio.gather(*asking) == [(1, 10)] * 50
    assert len(looks) == 1


async def test_line_is_looked_at_once_a_second_however_many_ask(
    store: Store, clock: Any, new_job: Callable[..., Job]
) -> None:
    jobs = [new_job(cost_seconds=10.0, created_at=clock.now + n) for n in range(3)]
    for job in jobs[:2]:
        await store.add(job)
    looks = looks_of(store)
    line = Line(store, clock)
    for _ in range(50):
        assert await line.standing(jobs[1]) == (2, 20)
    assert len(looks) == 1
    await store.add(jobs[2])
    assert await line.standing(jobs[2]) == (3, 30)
    assert len(looks) == 1
    clock.now += 1
    assert await line.standing(jobs[2]) == (3, 30)
    assert len(looks) == 2


async def test_a_look_that_ages_is_repeated_while_nobody_waits_for_it(
    store: Store, clock: Any, new_job: Callable[..., Job]
) -> None:
    jobs = [new_job(cost_seconds=10.0, created_at=clock.now + n) for n in range(2)]
    await store.add(jobs[0])
    line = Line(store, clock)
    assert (await line.look()).waiting == 1
    await store.add(jobs[1])
    clock.now += 0.8
    assert (await line.look()).waiting == 1
    [looking] = [task for task in asyncio.all_tasks() if task.get_name() == "line"]
    await looking
    assert (await line.look()).waiting == 2


async def test_a_look_that_took_long_serves_for_twenty_times_as_long(
    store: Store, clock: Any, new_job: Callable[..., Job]
) -> None:
    job = new_job(cost_seconds=10.0)
    await store.add(job)

    def take_two_seconds() -> None:
        clock.now += 2

    looks = looks_of(store, take_two_seconds)
    line = Line(store, clock)
    await line.look()
    clock.now += 0.7 * 40 - 0.1
    assert await line.standing(job) == (1, 10)
    assert len(looks) == 1
    clock.now += 0.7 * 40
    assert await line.standing(job) == (1, 10)
    assert len(looks) == 2
