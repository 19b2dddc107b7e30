from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from enlarger.jobs.fleet import SILENT_SECONDS, Fleet, Member, Membership
from enlarger.jobs.store import Store

pytestmark = pytest.mark.anyio

MEMBER = Member(
    id="w1",
    name="host:1",
    version="1",
    routes=("any.small",),
    devices=2,
    idle=1,
    started_at=5.0,
    seen_at=10.0,
)


@pytest.fixture
def fleet(store: Store, clock: Any) -> Fleet:
    clock.now = 10.0
    return Fleet(store.database, clock)


async def test_worker_is_known_as_it_last_spoke_until_it_is_silent(fleet: Fleet, clock: Any) -> None:
    assert (await fleet.members(), await fleet.devices()) == ([], 1)
    await fleet.keep(MEMBER)
    busy = replace(MEMBER, idle=0, seen_at=12.0)
    await fleet.keep(busy)
    assert (await fleet.members(), await fleet.devices()) == ([busy], 2)
    clock.now = 12.0 + SILENT_SECONDS
    assert await fleet.members() == []


async def test_idle_device_is_one_of_another_worker_that_serves_the_route(fleet: Fleet) -> None:
    await fleet.keep(MEMBER)
    asked = [("any.small", "w1"), ("any.small", "w2"), ("gpu.small", "w2")]
    assert [await fleet.has_idle(route, besides=me) for route, me in asked] == [False, True, False]
    await fleet.keep(replace(MEMBER, idle=0))
    assert not await fleet.has_idle("any.small", besides="w2")


async def test_member_speaks_while_it_runs_and_takes_leave(fleet: Fleet, clock: Any) -> None:
    membership = Membership(fleet, MEMBER, lambda: 2, clock)
    running = asyncio.create_task(membership.run())
    async with asyncio.timeout(20):
        while not (members := await fleet.members()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert members == [replace(MEMBER, idle=2, seen_at=10.0)]
    await membership.stop()
    await asyncio.wait_for(running, 20)
    assert await fleet.members() == []
