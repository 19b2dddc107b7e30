"""History: the jobs a key has had, and what they have used."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from enlarger.jobs import outbox
from enlarger.jobs.database import inserts_or_updates
from enlarger.jobs.job import Job, State
from enlarger.jobs.tables import deliveries, jobs, used

DAY_SECONDS = 86_400
MAX_PAGE_SIZE = 100

_ADDED = ("completed", "failed", "cancelled", "compute_ms")
_ADD_USE = inserts_or_updates(used, lambda more: {name: used.c[name] + more[name] for name in _ADDED})
_ADD_DELIVERY = insert(deliveries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which jobs to list. An empty word or None: all. Times are Unix seconds."""

    model: str = ""
    status: str = ""
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a key has used of one model on one day."""

    day: int
    """Days since 1970-01-01 (UTC)."""
    model: str
    completed: int
    failed: int
    cancelled: int
    compute_ms: int


def page_of(key_id: str, asked: Asked, page: int, page_size: int) -> Select[Any]:
    """Jobs of the key, newest first; `page` counts from 1."""
    query = select(jobs).where(jobs.c.key_id == key_id)
    if asked.model:
        query = query.where(jobs.c.model == asked.model)
    if asked.status:
        query = query.where(jobs.c.state == asked.status)
    if asked.created_after is not None:
        query = query.where(jobs.c.created_at >= asked.created_after)
    if asked.created_before is not None:
        query = query.where(jobs.c.created_at <= asked.created_before)
    newest = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    return newest.limit(page_size).offset((page - 1) * page_size)


def used_of(key_id: str, first_day: int, last_day: int) -> Select[Any]:
    """Rows of Used, by day and model."""
    columns = [column for column in used.c if column is not used.c.key_id]
    mine = select(*columns).where(used.c.key_id == key_id, used.c.day.between(first_day, last_day))
    return mine.order_by(used.c.day, used.c.model)


def record_end(connection: Connection, job: Job, now: float) -> None:
    """What belongs to the end of a job, in the transaction that ends it: its use, and the news for its webhook."""
    use = Used(
        day=int(now // DAY_SECONDS),
        model=job.model,
        completed=int(job.state is State.COMPLETED),
        failed=int(job.state is State.FAILED),
        cancelled=int(job.state is State.CANCELLED),
        compute_ms=job.compute_ms,
    )
    connection.execute(_ADD_USE[connection.dialect.name], asdict(use) | {"key_id": job.key_id})
    if row := outbox.delivery_for(job, now):
        connection.execute(_ADD_DELIVERY, row)
