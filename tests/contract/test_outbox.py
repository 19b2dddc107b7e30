from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from enlarger.jobs.job import Job, State
from enlarger.jobs.outbox import Attempt, Delivery, DeliveryState, Outbox, delivery_for, new_delivery
from enlarger.jobs.store import Store

from .conftest import Clock

pytestmark = pytest.mark.anyio


@pytest.fixture
def outbox(store: Store) -> Outbox:
    return Outbox(store.database)


@pytest.fixture
def add(outbox: Outbox, new_job: Callable[..., Job], clock: Clock) -> Callable[..., object]:
    """Put a delivery into the outbox; keywords replace its fields."""

    async def add(url: str = "https://hooks.test/x", **values: object) -> Delivery:
        job = new_job(webhook_url=url, state=State.COMPLETED)
        delivery = replace(new_delivery(job, delivery_id=job.id, now=clock()), **values)
        await outbox.replace_pending(delivery)
        return delivery

    return add


@pytest.mark.parametrize("state", [state for state in State if state.is_terminal])
def test_every_end_of_a_job_with_a_webhook_is_told(new_job: Callable[..., Job], state: State) -> None:
    job = new_job(webhook_url="https://Hooks.Test:8443/x?y=1", state=state)
    row = delivery_for(job, 7.0)
    assert row is not None
    assert (row["id"], row["job_id"], row["key_id"]) == (job.id, job.id, job.key_id)
    assert (row["url"], row["host"]) == ("https://Hooks.Test:8443/x?y=1", "https://hooks.test:8443")
    assert (row["state"], row["due_at"], row["attempts"]) == ("pending", 7.0, [])


def test_no_webhook_or_no_end_is_no_delivery(new_job: Callable[..., Job]) -> None:
    assert delivery_for(new_job(state=State.COMPLETED), 7.0) is None
    assert delivery_for(new_job(webhook_url="https://hooks.test/", state=State.PROCESSING), 7.0) is None


async def test_what_is_due_longest_is_claimed_first(outbox: Outbox, add: Callable[..., object]) -> None:
    second, first = await add(due_at=20.0), await add(due_at=10.0)
    future = await add(due_at=99.0)
    claimed = [await outbox.claim(30.0, 60.0) for _ in range(3)]
    assert [delivery and delivery.id for delivery in claimed] == [first.id, second.id, None]
    assert await outbox.next_due_at() == 90.0
    assert await outbox.next_due_at([future.host]) is None


async def test_claimed_delivery_falls_due_again_when_its_lease_ends(
    outbox: Outbox, add: Callable[..., object]
) -> None:
    await add(due_at=10.0)
    first = await outbox.claim(10.0, 60.0)
    assert await outbox.claim(69.9, 60.0) is None
    second = await outbox.claim(70.0, 60.0)
    assert first is not None
    assert second is not None
    assert (first.id, first.epoch + 1) == (second.id, second.epoch)


async def test_expired_claim_cannot_write(outbox: Outbox, add: Callable[..., object]) -> None:
    await add(due_at=10.0)
    slow = await outbox.claim(10.0, 60.0)
    quick = await outbox.claim(70.0, 60.0)
    assert slow is not None
    assert quick is not None
    failed = Attempt(at=70.0, duration_ms=3, status=500, error="no")
    assert await outbox.record(quick, replace(quick, due_at=99.0, attempts=(failed,)))
    assert not await outbox.record(slow, replace(slow, state=DeliveryState.DELIVERED))
    (kept,) = await outbox.of_job(slow.job_id)
    assert (kept.state, kept.due_at, kept.attempts) == (DeliveryState.PENDING, 99.0, (failed,))


async def test_ended_delivery_cannot_be_written_or_claimed(
    outbox: Outbox, add: Callable[..., object]
) -> None:
    await add(due_at=10.0)
    claimed = await outbox.claim(10.0, 60.0)
    assert claimed is not None
    assert await outbox.record(claimed, replace(claimed, state=DeliveryState.DELIVERED, ended_at=11.0))
    assert not await outbox.record(claimed, claimed)
    assert await outbox.claim(1e9, 60.0) is None
    assert await outbox.next_due_at() is None


async def test_hosts_left_aside_are_not_claimed(outbox: Outbox, add: Callable[..., object]) -> None:
    await add("https://dead.test/", due_at=1.0)
    alive = await add("https://alive.test/", due_at=2.0)
    claimed = await outbox.claim(10.0, 60.0, ["https://dead.test"])
    assert claimed is not None
    assert claimed.id == alive.id
    assert await outbox.claim(10.0, 60.0, ["https://dead.test"]) is None


async def test_disabling_ends_what_the_same_key_has_for_the_same_url(
    outbox: Outbox, add: Callable[..., object]
) -> None:
    gone = [await add("https://hooks.test/gone", due_at=1.0) for _ in range(2)]
    others = [await add("https://hooks.test/here"), await add("https://hooks.test/gone", key_id="b" * 32)]
    assert await outbox.disable("a" * 32, "https://hooks.test/gone", 5.0) == 2
    states = [(await outbox.of_job(delivery.job_id))[0].state for delivery in [*gone, *others]]
    assert states == ["disabled", "disabled", "pending", "pending"]


async def test_replay_takes_the_place_of_what_is_pending(outbox: Outbox, add: Callable[..., object]) -> None:
    old = await add(due_at=1.0)
    replay = replace(old, id="f" * 32, created_at=old.created_at + 1)
    await outbox.replace_pending(replay)
    assert [(d.id, d.state) for d in await outbox.of_job(old.job_id)] == [
        (old.id, DeliveryState.REPLACED),
        (replay.id, DeliveryState.PENDING),
    ]
