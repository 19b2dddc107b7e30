from __future__ import annotations

import asyncio

import pytest

from enlarger.jobs.store import Store
from enlarger.jobs.turns import takes_turn

pytestmark = pytest.mark.anyio


async def test_one_of_many_takes_the_turn_and_may_keep_it(store: Store) -> None:
    database = store.database
    taken = await asyncio.gather(*(takes_turn(database, "sweep", f"h{n}", 10.0, 60.0) for n in range(8)))
    assert sum(taken) == 1
    holder = f"h{taken.index(True)}"
    assert await takes_turn(database, "sweep", holder, 20.0, 60.0)
    assert not await takes_turn(database, "sweep", "other", 79.9, 60.0)


async def test_turn_of_the_dead_passes_on_when_it_has_run_out(store: Store) -> None:
    database = store.database
    assert await takes_turn(database, "sweep", "dead", 10.0, 60.0)
    assert await takes_turn(database, "sweep", "heir", 70.0, 60.0)
    assert not await takes_turn(database, "sweep", "dead", 71.0, 60.0)
    assert await takes_turn(database, "other thing", "dead", 71.0, 60.0)
