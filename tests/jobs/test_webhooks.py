"""The delivery loop against a receiver that fails, hangs, redirects, dies and returns. The clock is the test's."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from itertools import accumulate
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from enlarger.errors import InvalidOption, NotFound
from enlarger.jobs import guard
from enlarger.jobs.addresses import Address
from enlarger.jobs.breaker import FAILURES
from enlarger.jobs.job import Job, Key, State
from enlarger.jobs.outbox import Attempt, Delivery, DeliveryState, Outbox, new_delivery
from enlarger.jobs.store import Store
from enlarger.jobs.webhooks import (
    MAX_DELIVERIES,
    Sources,
    Webhooks,
    after,
    checked_webhook_url,
    retry_after_seconds,
)
from enlarger.settings import Settings

from ..receiver import Receiver
from .conftest import Clock
from .test_signatures import verified

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 30
HOURS = 3600


@pytest.fixture
def receiver() -> Generator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


class Bench:
    """A delivery loop over a real outbox, and jobs to tell."""

    def __init__(
        self, store: Store, settings: Settings, clock: Clock, new_job: Callable[..., Job], key: Key
    ) -> None:
        self.store, self.settings, self.clock, self.key = store, settings, clock, key
        self.outbox = Outbox(store.database)
        self.attempts: list[Delivery] = []
        self.resolver: guard.Resolver = guard.system_resolver
        self._new_job = new_job
        self._ids = iter(range(1, 10_000))

    def webhooks(self, **settings: Any) -> Webhooks:
        sources = Sources(
            job=self.store.get,
            body=lambda job: json.dumps({"id": job.id, "status": job.state.value, "note": "✓"}).encode(),
            master=b"m" * 32,
        )
        return Webhooks(
            outbox=self.outbox,
            sources=sources,
            settings=self.settings.model_copy(update=settings),
            clock=self.clock,
            random=lambda: 0.5,
            new_id=lambda: f"f{next(self._ids):031x}",
            resolver=self.resolver,
            on_attempt=self.attempts.append,
        )

    @asynccontextmanager
    async def running(self, **settings: Any) -> AsyncGenerator[Webhooks]:
        webhooks = self.webhooks(**settings)
        task = asyncio.create_task(webhooks.run())
        yield webhooks
        await webhooks.stop()
        await task

    async def ended_job(self, url: str, **values: Any) -> Job:
        """A completed job and the delivery its end made."""
        job = self._new_job(webhook_url=url, state=State.COMPLETED, **values)
        await self.store.add(job)
        await self.outbox.replace_pending(new_delivery(job, delivery_id=job.id, now=self.clock()))
        return job

    async def delivery(self, job: Job) -> Delivery:
        return (await self.outbox.of_job(job.id))[-1]

    async def until(self, look: Callable[[], Any], what: str = "it") -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found = look()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return
            assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS} s for {what}"
            await asyncio.sleep(0.01)

    async def until_attempts(self, count: int) -> None:
        await self.until(lambda: len(self.attempts) >= count, f"{count} attempts")

    async def until_state(self, job: Job, state: DeliveryState) -> Delivery:
        async def reached() -> bool:
            return (await self.delivery(job)).state is state

        await self.until(reached, f"the delivery to be {state}")
        return await self.delivery(job)


@pytest.fixture
def bench(
    store: Store,
    settings: Settings,
    clock: Clock,
    new_job: Callable[..., Job],
    key: Key,
    receiver: Receiver,
) -> Bench:
    allowed = settings.model_copy(
        update={
            "allow_private_networks": Settings(allow_private_networks="127.0.0.0/8").allow_private_networks,  # pyright: ignore
            "allow_ports": (receiver.port,),
            "webhook_seconds": 5.0,
        }
    )
    return Bench(store, allowed, clock, new_job, key)


# One message


async def test_end_of_a_job_is_told_once_with_a_signature_that_verifies(
    bench: Bench, receiver: Receiver
) -> None:
    job = await bench.ended_job(receiver.url)
    async with bench.running() as webhooks:
        delivery = await bench.until_state(job, DeliveryState.DELIVERED)
        secret = webhooks.secret(bench.key)
    (message,) = receiver.received
    assert message.path == "/hook?for=me"
    assert json.loads(message.body) == {"id": job.id, "status": "completed", "note": "✓"}
    assert message.headers["content-type"] == "application/json"
    assert message.headers["webhook-id"] == job.id
    assert verified(message.headers, message.body, secret, bench.clock())
    assert [(attempt.status, attempt.error) for attempt in delivery.attempts] == [(200, "")]


async def test_standard_webhooks_package_takes_the_message_when_set_so(
    bench: Bench, receiver: Receiver
) -> None:
    bench.clock.now = time.time()
    job = await bench.ended_job(receiver.url)
    async with bench.running(webhook_signature="standard") as webhooks:
        await bench.until_state(job, DeliveryState.DELIVERED)
        secret = webhooks.secret(bench.key)
    (message,) = receiver.received
    told = standardwebhooks.Webhook(secret).verify(message.body, dict(message.headers))
    assert told["id"] == job.id


async def test_keys_have_secrets_of_their_own(bench: Bench) -> None:
    other = replace(bench.key, id="b" * 32)
    assert bench.webhooks().secret(bench.key) != bench.webhooks().secret(other)


# Failures and the schedule


async def test_failed_message_is_sent_again_on_schedule_until_it_is_heard(
    bench: Bench, receiver: Receiver
) -> None:
    receiver.then(500, 302, 404)
    job = await bench.ended_job(receiver.url)
    async with bench.running(webhook_retry_seconds=(5.0, 300.0, 1800.0)):
        for count, pause in enumerate((5.0, 300.0, 1800.0), 1):
            await bench.until_attempts(count)
            assert (await bench.delivery(job)).due_at == bench.clock() + pause
            bench.clock.now += pause
        delivery = await bench.until_state(job, DeliveryState.DELIVERED)
    assert [attempt.status for attempt in delivery.attempts] == [500, 302, 404, 200]
    assert {message.headers["webhook-id"] for message in receiver.received} == {job.id}
    times = [int(message.headers["webhook-timestamp"]) for message in receiver.received]
    assert [later - times[0] for later in times] == [0, 5, 305, 2105]
    secret = bench.webhooks().secret(bench.key)
    assert all(verified(m.headers, m.body, secret, t) for m, t in zip(receiver.received, times, strict=True))


async def test_redirect_is_a_failure_and_not_followed(bench: Bench, receiver: Receiver) -> None:
    receiver.then(307, Location=f"http://127.0.0.1:{receiver.port}/elsewhere")
    job = await bench.ended_job(receiver.url)
    async with bench.running(webhook_retry_seconds=()):
        await bench.until_state(job, DeliveryState.FAILED)
    assert [message.path for message in receiver.received] == ["/hook?for=me"]


async def test_delivery_fails_for_good_when_the_schedule_ends(bench: Bench, receiver: Receiver) -> None:
    receiver.then(500, 500, 500, 200)
    job = await bench.ended_job(receiver.url)
    async with bench.running(webhook_retry_seconds=(0.0, 0.0)):
        delivery = await bench.until_state(job, DeliveryState.FAILED)
    assert [attempt.status for attempt in delivery.attempts] == [500, 500, 500]


async def test_receiver_that_is_gone_hears_no_more_of_this_url(bench: Bench, receiver: Receiver) -> None:
    receiver.then(410)
    first, second = await bench.ended_job(receiver.url), await bench.ended_job(receiver.url)
    async with bench.running(webhook_requests_per_host=1):
        await bench.until_state(first, DeliveryState.DISABLED)
        await bench.until_state(second, DeliveryState.DISABLED)
    assert len(receiver.received) == 1


async def test_retry_after_puts_the_next_attempt_off(bench: Bench, receiver: Receiver) -> None:
    receiver.then(429, Retry_After="120")
    job = await bench.ended_job(receiver.url)
    async with bench.running(webhook_retry_seconds=(5.0,)):
        await bench.until_attempts(1)
        assert (await bench.delivery(job)).due_at == bench.clock() + 120


async def test_receiver_that_hangs_costs_one_attempt_and_holds_up_nobody(
    bench: Bench, receiver: Receiver
) -> None:
    receiver.hold.clear()
    other = Receiver()
    try:
        hanging = await bench.ended_job(receiver.url)
        told = await bench.ended_job(other.url)
        ports = (receiver.port, other.port)
        async with bench.running(webhook_seconds=1.0, allow_ports=ports):
            await bench.until_state(told, DeliveryState.DELIVERED)
            await bench.until_attempts(2)
    finally:
        other.stop()
    delivery = await bench.delivery(hanging)
    assert delivery.state is DeliveryState.PENDING
    assert "webhook_seconds (1 s)" in delivery.attempts[0].error


async def test_receiver_that_died_is_told_once_it_is_back(bench: Bench, receiver: Receiver) -> None:
    receiver.stop()
    job = await bench.ended_job(receiver.url)
    async with bench.running(webhook_retry_seconds=(5.0, 60.0)):
        await bench.until_attempts(1)
        receiver.start()
        bench.clock.now += 5
        delivery = await bench.until_state(job, DeliveryState.DELIVERED)
    assert [attempt.status for attempt in delivery.attempts] == [0, 200]
    assert "cannot be reached" in delivery.attempts[0].error


async def test_private_address_is_never_connected_to(bench: Bench, receiver: Receiver) -> None:
    async def private(host: str, _port: int) -> list[Address]:
        return [ip_address("::1" if host == "::1" else "127.0.0.1")]

    bench.resolver = private
    jobs = [
        await bench.ended_job(url)
        for url in (receiver.url, f"http://public.test:{receiver.port}/", f"http://[::1]:{receiver.port}/")
    ]
    async with bench.running(allow_private_networks=(), webhook_retry_seconds=()):
        for job in jobs:
            delivery = await bench.until_state(job, DeliveryState.FAILED)
            assert "ENLARGER_ALLOW_PRIVATE_NETWORKS" in delivery.attempts[0].error
    assert receiver.received == []


# Many messages


async def test_no_host_gets_more_requests_at_a_time_than_the_cap(bench: Bench, receiver: Receiver) -> None:
    receiver.hold.clear()
    jobs = [await bench.ended_job(receiver.url) for _ in range(8)]
    async with bench.running(webhook_requests_per_host=3):
        await bench.until(lambda: receiver.under_way == 3)
        receiver.hold.set()
        for job in jobs:
            await bench.until_state(job, DeliveryState.DELIVERED)
    assert receiver.most_under_way == 3


async def test_host_that_keeps_failing_is_left_alone_and_forgiven(bench: Bench, receiver: Receiver) -> None:
    receiver.then(*[500] * FAILURES)
    other = Receiver()
    settings: dict[str, Any] = {"webhook_requests_per_host": 1, "webhook_retry_seconds": (1.0,)}
    try:
        jobs = [await bench.ended_job(receiver.url) for _ in range(FAILURES + 10)]
        async with bench.running(**settings, allow_ports=(receiver.port, other.port)):
            await bench.until_attempts(FAILURES)
            # Due later than all the rest, and yet it is the next to be sent.
            told = await bench.ended_job(other.url)
            await bench.until_state(told, DeliveryState.DELIVERED)
            assert len(receiver.received) == FAILURES
            bench.clock.now += 5
            for job in jobs:
                await bench.until_state(job, DeliveryState.DELIVERED)
    finally:
        other.stop()


async def test_delivery_left_by_a_dead_sender_is_made_at_the_next_start(
    bench: Bench, receiver: Receiver
) -> None:
    job = await bench.ended_job(receiver.url)
    dead = await bench.outbox.claim(bench.clock(), lease_seconds=20.0)
    assert dead is not None
    async with bench.running() as webhooks:
        bench.clock.now += 20
        webhooks.wake()
        await bench.until_state(job, DeliveryState.DELIVERED)


async def test_stop_gives_up_what_hangs_and_the_next_start_sends_it(bench: Bench, receiver: Receiver) -> None:
    receiver.hold.clear()
    job = await bench.ended_job(receiver.url)
    async with bench.running(drain_seconds=0.0):
        await bench.until(lambda: receiver.under_way == 1)
    assert (await bench.delivery(job)).state is DeliveryState.PENDING
    receiver.hold.set()
    bench.clock.now += 60
    async with bench.running():
        await bench.until_state(job, DeliveryState.DELIVERED)


async def test_deleted_prediction_is_not_told(bench: Bench, receiver: Receiver) -> None:
    job = await bench.ended_job(receiver.url)
    await bench.store.delete([job.id], job.key_id)
    delivery = new_delivery(job, delivery_id="e" * 32, now=bench.clock())
    await bench.outbox.replace_pending(delivery)
    async with bench.running():
        await bench.until_state(job, DeliveryState.DROPPED)
    assert receiver.received == []


# Log and replay


async def test_replay_sends_the_same_message_again(bench: Bench, receiver: Receiver) -> None:
    job = await bench.ended_job(receiver.url)
    async with bench.running() as webhooks:
        await bench.until_state(job, DeliveryState.DELIVERED)
        bench.clock.now += 100
        replay = await webhooks.replay(bench.key, job.id, job.id)
        assert replay.id != job.id
        await bench.until_attempts(2)
        states = [delivery.state for delivery in await webhooks.deliveries(bench.key, job.id)]
    assert states == ["delivered", "delivered"]
    first, second = receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])


async def test_log_and_replay_are_for_the_owner_alone(bench: Bench, receiver: Receiver) -> None:
    job = await bench.ended_job(receiver.url)
    other, webhooks = replace(bench.key, id="b" * 32), bench.webhooks()
    for asked in (webhooks.deliveries(other, job.id), webhooks.replay(other, job.id, job.id)):
        with pytest.raises(NotFound, match="Prediction not found"):
            await asked
    with pytest.raises(NotFound, match="Delivery not found"):
        await webhooks.replay(bench.key, job.id, "0" * 32)
    assert len(await webhooks.deliveries(bench.key, job.id)) == 1


async def test_replays_are_bounded(bench: Bench, receiver: Receiver) -> None:
    job, webhooks = await bench.ended_job(receiver.url), bench.webhooks()
    for _ in range(MAX_DELIVERIES - 1):
        await webhooks.replay(bench.key, job.id, job.id)
    with pytest.raises(InvalidOption, match=str(MAX_DELIVERIES)):
        await webhooks.replay(bench.key, job.id, job.id)


# What comes after an attempt, as a function


def delivery_after(failures: int) -> Delivery:
    failed = Attempt(at=0, duration_ms=1, status=500, error="no")
    return Delivery(
        id="d",
        job_id="j",
        key_id="k",
        url="u",
        host="h",
        due_at=0,
        created_at=0,
        attempts=(failed,) * failures,
    )


def pauses(random: float) -> list[float]:
    """Of the default schedule, until it gives up."""
    retry_seconds, found = Settings().webhook_retry_seconds, list[float]()
    for failures in range(100):
        failed = Attempt(at=0, duration_ms=1, status=503, error="no")
        then = after(
            delivery_after(failures), failed, 0.0, retry_seconds=retry_seconds, now=1000.0, random=random
        )
        if then.state is DeliveryState.FAILED:
            return found
        found.append(then.due_at - 1000.0)
    raise AssertionError("never gives up")


def test_default_schedule_is_that_of_standard_webhooks() -> None:
    assert pauses(random=0.5) == [5, 300, 1800, *(HOURS * n for n in (2, 5, 10, 14, 20, 24))]
    assert list(accumulate(pauses(random=0.5)))[-1] / HOURS == pytest.approx(75.6, abs=0.05)


@given(st.floats(0, 1, exclude_max=True))
def test_pauses_are_spread_by_a_fifth_either_way(random: float) -> None:
    for pause, middle in zip(pauses(random), pauses(0.5), strict=True):
        assert pause == pytest.approx(middle * (0.8 + 0.4 * random))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        *(("120", 120), (" 7 ", 7), ("0", 0), ("999999999999999999999", 86_400), ("86401", 86_400)),
        *(("", 0), ("-5", 0), ("soon", 0), ("1.5", 0), ("²", 0)),
        ("Tue, 14 Nov 2023 22:15:20 GMT", 120),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0),
        ("Tue, 14 Nov 2023 22:15:20", 120),
        ("Sun, 31 Dec 9999 23:59:59 GMT", 86_400),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_and_bounded(header: str, seconds: float) -> None:
    assert retry_after_seconds(header, 1_700_000_000.0) == seconds


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://hooks.test/", "http:// or https://"),
        ("hooks.test", "http:// or https://"),
        ("https://hooks.test:8443/", "ENLARGER_ALLOW_PORTS"),
        ("https://me:word@hooks.test/", "user name"),
        ("http://[::", "not valid"),
    ],
)
def test_webhook_that_could_never_be_sent_is_refused_at_once(url: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said) as caught:
        checked_webhook_url(url, Settings())
    assert caught.value.field == "webhook"


def test_usable_webhook_is_taken_as_it_is() -> None:
    assert checked_webhook_url("https://hooks.test/a?b=c%20d", Settings()) == "https://hooks.test/a?b=c%20d"


async def test_loop_goes_on_after_the_database_failed_it(
    bench: Bench, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    job = await bench.ended_job(receiver.url)
    await rename(bench.store, "deliveries", "away")
    async with bench.running():
        await bench.until(lambda: "outbox cannot be read" in caplog.text)
        await rename(bench.store, "away", "deliveries")
        await bench.until_state(job, DeliveryState.DELIVERED)


async def rename(store: Store, old: str, new: str) -> None:
    renaming = text(f"ALTER TABLE {old} RENAME TO {new}")
    await store.database.write(lambda connection: connection.execute(renaming))
