"""Outbox: what is still to be told to webhooks, and what has been. One row a delivery, in the database of the jobs.

The row is written in the transaction that ends the job, so no end is ever forgotten. A claim moves `due_at` ahead by
the lease and raises `epoch`: a sender that dies leaves a row that falls due again, and one that was only slow can no
longer change it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update

from enlarger.jobs.database import LONG_PATIENCE_SECONDS, Database
from enlarger.jobs.job import Job
from enlarger.jobs.tables import deliveries


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Every attempt of the schedule was in vain."""
    DISABLED = "disabled"
    """The receiver answered 410: it wants no more."""
    DROPPED = "dropped"
    """The prediction was deleted before it could be told."""
    REPLACED = "replaced"
    """A replay took its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One request to a receiver."""

    at: float
    """When it began, Unix seconds."""
    duration_ms: int
    status: int
    """HTTP status of the answer; 0 when there was none."""
    error: str = ""
    """What went wrong; empty for a delivery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message to one webhook. Times are Unix seconds."""

    id: str
    job_id: str
    """Also the `webhook-id` of every attempt: receivers know a repetition by it."""
    key_id: str
    url: str
    host: str
    """Scheme, host and port: what cap and breaker go by."""
    state: DeliveryState = DeliveryState.PENDING
    epoch: int = 0
    due_at: float
    """When the next attempt is due; while one is under way, when its lease ends."""
    created_at: float
    ended_at: float | None = None
    attempts: tuple[Attempt, ...] = ()


def delivery_for(job: Job, now: float) -> dict[str, Any] | None:
    """The row that tells the end of `job`, due now; None when nobody asked for it or the job goes on.

    Insert it in the transaction that ends the job. Its id is the job's: a second end could not be written.
    """
    if not job.webhook_url or not job.state.is_terminal:
        return None
    return columns(new_delivery(job, delivery_id=job.id, now=now))


def new_delivery(job: Job, *, delivery_id: str, now: float) -> Delivery:
    """A delivery of the job's end, due at once."""
    parts = urlsplit(job.webhook_url)
    return Delivery(
        id=delivery_id,
        job_id=job.id,
        key_id=job.key_id,
        url=job.webhook_url,
        host=f"{parts.scheme}://{parts.netloc}".lower()[:300],
        due_at=now,
        created_at=now,
    )


def columns(delivery: Delivery) -> dict[str, Any]:
    """The delivery as its row."""
    attempts = [asdict(attempt) for attempt in delivery.attempts]
    return asdict(delivery) | {"state": delivery.state.value, "attempts": attempts}


class Outbox:
    """The deliveries in a database. Safe to use from many tasks, and from many processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace_pending(self, delivery: Delivery) -> None:
        """Add a delivery; one of the same job that is still pending ends."""
        older = (
            update(deliveries)
            .where(deliveries.c.job_id == delivery.job_id)
            .where(deliveries.c.state == DeliveryState.PENDING.value)
            .values(state=DeliveryState.REPLACED.value, ended_at=delivery.created_at)
        )

        def replace(connection: Connection) -> None:
            connection.execute(older)
            connection.execute(insert(deliveries), columns(delivery))

        await self._database.write(replace)

    async def next_due_at(self, except_hosts: Collection[str] = ()) -> float | None:
        """When the next delivery falls due, hosts in `except_hosts` aside; None when there is none."""
        query = select(func.min(deliveries.c.due_at)).where(_pending(except_hosts))
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    async def claim(
        self, now: float, lease_seconds: float, except_hosts: Collection[str] = ()
    ) -> Delivery | None:
        """Take the delivery that has been due longest; nobody else gets it before `now + lease_seconds`."""
        oldest = (
            select(deliveries.c.id)
            .where(_pending(except_hosts), deliveries.c.due_at <= now)
            .order_by(deliveries.c.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(deliveries)
            .where(deliveries.c.id == oldest.scalar_subquery())
            .values(epoch=deliveries.c.epoch + 1, due_at=now + lease_seconds)
            .returning(*deliveries.c)
        )
        row = await self._database.write(lambda connection: connection.execute(statement).one_or_none())
        return _delivery(row) if row else None

    async def record(self, claimed: Delivery, changed: Delivery) -> bool:
        """Write what became of a claimed delivery; False, and nothing changed, when a newer claim exists."""
        statement = (
            update(deliveries)
            .where(deliveries.c.id == claimed.id, deliveries.c.epoch == claimed.epoch)
            .where(deliveries.c.state == DeliveryState.PENDING.value)
            .values(**columns(changed))
        )
        # Refused, it would be sent again.
        changes = await self._database.write(
            lambda connection: connection.execute(statement).rowcount, patience_seconds=LONG_PATIENCE_SECONDS
        )
        return changes == 1

    async def disable(self, key_id: str, url: str, now: float) -> int:
        """End whatever the key still has for this URL; how many deliveries that were."""
        statement = (
            update(deliveries)
            .where(deliveries.c.key_id == key_id, deliveries.c.url == url)
            .where(deliveries.c.state == DeliveryState.PENDING.value)
            .values(state=DeliveryState.DISABLED.value, ended_at=now)
        )
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def of_job(self, job_id: str) -> list[Delivery]:
        """The deliveries of a job, oldest first."""
        query = select(deliveries).where(deliveries.c.job_id == job_id).order_by(deliveries.c.created_at)
        return await self._database.read(
            lambda connection: [_delivery(row) for row in connection.execute(query)]
        )


def _pending(except_hosts: Collection[str] = ()) -> ColumnElement[bool]:
    pending = deliveries.c.state == DeliveryState.PENDING.value
    return pending & deliveries.c.host.not_in(except_hosts) if except_hosts else pending


def _delivery(row: Row[Any]) -> Delivery:
    values = dict(row._mapping)  # pyright: ignore[reportPrivateUsage]  (public, despite its name)
    values["state"] = DeliveryState(values["state"])
    values["attempts"] = tuple(Attempt(**attempt) for attempt in values["attempts"])
    return Delivery(**values)
