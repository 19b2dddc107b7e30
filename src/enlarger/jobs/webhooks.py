"""Webhooks: tell the end of a job to the URL its owner named, at least once, until it is heard or the schedule ends.

outbox row ──claim──▶ sign ──guard.post──▶ 2xx delivered · 410 disabled · else due again, later each time
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from structlog.contextvars import bound_contextvars

from enlarger.errors import EnlargerError, InvalidOption, NotFound, Overloaded
from enlarger.jobs import guard
from enlarger.jobs.breaker import Breaker
from enlarger.jobs.job import Job, Key
from enlarger.jobs.outbox import Attempt, Delivery, DeliveryState, Outbox, new_delivery
from enlarger.jobs.signatures import secret_of, signed_headers
from enlarger.settings import Settings

logger = logging.getLogger(__name__)

MAX_DELIVERIES = 50
"""Of one job: the first and its replays."""
_JITTER = 0.2
_LONGEST_RETRY_AFTER_SECONDS = 86_400.0
_UNDER_WAY = 32
"""Requests to all hosts together."""
_LOOK_SECONDS = 1.0
"""Between two looks at the outbox when nothing wakes the loop."""
_LEASE_MARGIN_SECONDS = 5.0
_BREAKERS = 1000
"""Failing hosts remembered; beyond that the one remembered longest is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a message is made from."""

    job: Callable[[str, str], Awaitable[Job | None]]
    """The job of an id, if it is the key's: `(job id, key id)`."""
    body: Callable[[Job], bytes]
    """The message: the prediction as JSON."""
    master: bytes
    """The server's own secret, from which the secret of each key is derived."""


class Webhooks:
    """Deliveries of one server: a loop that sends them, and what their owner may ask about them.

    clock: Unix seconds. random: uniform in [0, 1). new_id: 32 lower-case hex characters.
    on_attempt: called with the delivery as it stands after each request, for counting.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        sources: Sources,
        settings: Settings,
        clock: Callable[[], float],
        random: Callable[[], float],
        new_id: Callable[[], str],
        resolver: guard.Resolver = guard.system_resolver,
        on_attempt: Callable[[Delivery], None] = lambda _: None,
    ) -> None:
        self._outbox = outbox
        self._sources = sources
        self._settings = settings
        self._clock = clock
        self._random = random
        self._new_id = new_id
        self._resolver = resolver
        self._on_attempt = on_attempt
        self._limits = webhook_limits(settings)
        self._breakers: dict[str, Breaker] = {}
        self._hosts: Counter[str] = Counter()
        self._under_way: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._stopping = False

    # What the owner of a job may ask

    def secret(self, key: Key) -> str:
        """The text `whsec_…` by which the owner of the key knows our messages."""
        return secret_of(self._sources.master, key.id)

    async def deliveries(self, key: Key, job_id: str) -> list[Delivery]:
        """The delivery log of a job, oldest first. Raises NotFound when the job is not the key's."""
        await self._owned(key, job_id)
        return await self._outbox.of_job(job_id)

    async def replay(self, key: Key, job_id: str, delivery_id: str) -> Delivery:
        """Send the message of a delivery again, now; the new delivery takes the place of one still pending.

        Raises NotFound, and InvalidOption when the job has MAX_DELIVERIES already.
        """
        job = await self._owned(key, job_id)
        known = await self._outbox.of_job(job_id)
        if delivery_id not in {delivery.id for delivery in known}:
            raise NotFound(f"Delivery not found: {delivery_id[:64]}")
        if len(known) >= MAX_DELIVERIES:
            raise InvalidOption(f"the prediction has {len(known)} deliveries, as many as one may have")
        delivery = new_delivery(job, delivery_id=self._new_id(), now=self._clock())
        await self._outbox.replace_pending(delivery)
        self.wake()
        return delivery

    async def _owned(self, key: Key, job_id: str) -> Job:
        job = await self._sources.job(job_id, key.id)
        if job is None:
            raise NotFound(f"Prediction not found: {job_id[:64]}")
        return job

    # The loop

    def wake(self) -> None:
        """Look at the outbox now: a job has ended, or a request has."""
        self._woken.set()

    async def run(self) -> None:
        """Send what is due until `stop`. Failures of the store are logged, and tried again."""
        while not self._stopping:
            self._woken.clear()
            try:
                seconds = await self._send_due()
            except Overloaded as error:
                logger.warning("The outbox cannot be read: %s", error)
                seconds = _LOOK_SECONDS
            except Exception:
                logger.exception("The outbox cannot be read; trying again")
                seconds = _LOOK_SECONDS
            if seconds > 0:
                await self._rest(seconds)

    async def stop(self) -> None:
        """Start nothing more; requests not answered within `drain_seconds` are made again at the next start."""
        self._stopping = True
        self.wake()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=self._settings.drain_seconds)
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _rest(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), min(seconds, _LOOK_SECONDS))
        except TimeoutError:
            return

    async def _send_due(self) -> float:
        """Start the request that has been due longest, if one may; seconds until it is worth looking again."""
        if len(self._under_way) >= _UNDER_WAY:
            return _LOOK_SECONDS
        now, full = self._clock(), self._full_hosts()
        due_at = await self._outbox.next_due_at(full)
        if due_at is None:
            return _LOOK_SECONDS
        if due_at > now:
            return due_at - now
        delivery = await self._outbox.claim(now, self._limits.total_seconds + _LEASE_MARGIN_SECONDS, full)
        # None: another process was quicker.
        if delivery is not None:
            self._start(delivery)
        return 0.0 if delivery is not None else _LOOK_SECONDS

    def _full_hosts(self) -> list[str]:
        """Hosts that may get no further request now."""
        now, cap = self._clock(), self._settings.webhook_requests_per_host
        hosts = {*self._breakers, *self._hosts}
        return [
            host
            for host in hosts
            if not self._breakers.get(host, Breaker()).allows(now, self._hosts[host], cap)
        ]

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._deliver(delivery), name=f"webhook {delivery.id}")
        self._hosts[delivery.host] += 1
        self._under_way.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            self._hosts[delivery.host] -= 1
            # Counter keeps zeros, and hosts are as many as users care to name.
            self._hosts += Counter()
            self.wake()

        task.add_done_callback(done)

    async def _deliver(self, delivery: Delivery) -> None:
        with bound_contextvars(job_id=delivery.job_id, delivery_id=delivery.id):
            try:
                await self._attempt(delivery)
            except Exception:
                logger.exception("A webhook could not be sent; it is due again when its lease ends")

    async def _attempt(self, delivery: Delivery) -> None:
        job = await self._sources.job(delivery.job_id, delivery.key_id)
        if job is None:
            gone = replace(delivery, state=DeliveryState.DROPPED, ended_at=self._clock())
            await self._outbox.record(delivery, gone)
            return
        attempt, retry_after = await self._request(delivery, self._sources.body(job))
        changed = after(
            delivery,
            attempt,
            retry_after,
            retry_seconds=self._settings.webhook_retry_seconds,
            now=self._clock(),
            random=self._random(),
        )
        self._remember(delivery.host, attempt)
        await self._outbox.record(delivery, changed)
        if changed.state is DeliveryState.DISABLED:
            await self._outbox.disable(delivery.key_id, delivery.url, self._clock())
        logger.info(
            "Webhook attempt %d: %s", len(changed.attempts), attempt.error or f"status {attempt.status}"
        )
        self._on_attempt(changed)

    async def _request(self, delivery: Delivery, body: bytes) -> tuple[Attempt, float]:
        """One request: what came of it, and the seconds its answer asks to wait."""
        at, loop = self._clock(), asyncio.get_running_loop()
        began = loop.time()
        secret = secret_of(self._sources.master, delivery.key_id)
        headers = signed_headers(self._settings.webhook_signature, secret, delivery.job_id, int(at), body) | {
            "Content-Type": "application/json"
        }
        status, retry_after, error = 0, 0.0, ""
        try:
            answer = await guard.post(delivery.url, body, headers, self._limits, self._resolver)
        except EnlargerError as failure:
            error = failure.message
        else:
            status, retry_after = answer.status, retry_after_seconds(answer.retry_after, self._clock())
            if not 200 <= status < 300:
                error = f"The receiver answered status {status} instead of one from 200 to 299"
        spent = round((loop.time() - began) * 1000)
        return Attempt(at=at, duration_ms=spent, status=status, error=error), retry_after

    def _remember(self, host: str, attempt: Attempt) -> None:
        breaker = self._breakers.pop(host, Breaker())
        # 410 is a clear answer of a host that works.
        success = not attempt.error or attempt.status == HTTPStatus.GONE
        breaker = breaker.after(success=success, now=self._clock())
        if breaker.failures:
            self._breakers[host] = breaker
            while len(self._breakers) > _BREAKERS:
                del self._breakers[next(iter(self._breakers))]


def after(
    delivery: Delivery,
    attempt: Attempt,
    retry_after: float,
    *,
    retry_seconds: Sequence[float],
    now: float,
    random: float,
) -> Delivery:
    """The delivery after one more attempt. retry_seconds: pauses before the second, third … attempt.

    random: in [0, 1), spreads each pause by ±20 %. retry_after: seconds the receiver asks for, if more.
    """
    attempts = (*delivery.attempts, attempt)
    if not attempt.error:
        return replace(delivery, attempts=attempts, state=DeliveryState.DELIVERED, ended_at=now)
    if attempt.status == HTTPStatus.GONE:
        return replace(delivery, attempts=attempts, state=DeliveryState.DISABLED, ended_at=now)
    if len(attempts) > len(retry_seconds):
        return replace(delivery, attempts=attempts, state=DeliveryState.FAILED, ended_at=now)
    pause = retry_seconds[len(attempts) - 1] * (1 + _JITTER * (2 * random - 1))
    return replace(delivery, attempts=attempts, due_at=now + max(pause, retry_after))


def retry_after_seconds(text: str, now: float) -> float:
    """The seconds a Retry-After header asks for, by number or by date, at most a day; 0 when it says nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Ten digits are 300 years; int() would take a megabyte of them.
        return min(float(text[:10]), _LONGEST_RETRY_AFTER_SECONDS)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    return min(max(at - now, 0.0), _LONGEST_RETRY_AFTER_SECONDS)


def webhook_limits(settings: Settings) -> guard.Limits:
    """What one request to a receiver may cost and where it may lead."""
    return guard.Limits(
        max_bytes=0,
        total_seconds=settings.webhook_seconds,
        read_seconds=settings.webhook_seconds,
        allow_private_networks=settings.allow_private_networks,
        allow_ports=settings.allow_ports,
        subject="webhook",
        time_setting="webhook_seconds",
    )


def checked_webhook_url(text: str, settings: Settings) -> str:
    """The URL, if its form is one this server would send to; the address behind it is judged at each attempt.

    Raises InvalidOption(field="webhook").
    """
    try:
        # As it goes on the wire, so that outbox and guard never read it differently.
        return str(guard.checked_url(text, webhook_limits(settings)))
    except EnlargerError as error:
        raise InvalidOption(f"webhook is not usable: {error.message}", "webhook") from error
