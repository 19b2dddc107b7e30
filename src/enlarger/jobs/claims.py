"""Claims: how a worker takes a job, keeps it and lets it go. Plain functions of a connection, for the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Executable

from enlarger.jobs import history, statements
from enlarger.jobs.job import Job
from enlarger.jobs.queue import Entry
from enlarger.jobs.rows import job_of


def claim(connection: Connection, entry: Entry, now: float) -> Job | None:
    """Take the job that runs under this ticket, else the one of its route to serve next: processing, epoch + 1.

    None when there is none, or all that wait belong to keys with as much in work as they may have.
    """
    asked = {"hand_ticket": entry.ticket, "now": now}
    if again := _job(connection, statements.CLAIM_AGAIN, asked):
        return again
    with connection.begin_nested() as attempt:
        job = _job(connection, statements.CLAIM_FAIREST, asked | {"serve_route": entry.route})
        if job and _is_one_too_many(connection, job):
            # Somebody else claimed for the same key at the same moment.
            attempt.rollback()
            return None
    return job


def end(connection: Connection, statement: Executable, values: Mapping[str, Any], now: float) -> Job | None:
    """Run an update that ends a job, and record the end; the job, or None when the update reached no row."""
    job = _job(connection, statement, values)
    if job is not None:
        history.record_end(connection, job, now)
    return job


def held_up(connection: Connection, ended: Job) -> list[Entry]:
    """An entry for a job of the same key, now that one less is in work; none for keys without a limit.

    Under a name of its own: the entry of that job may be spent at this moment, on nothing.
    """
    rows = connection.execute(statements.HELD_UP, {"held_key": ended.key_id})
    return [Entry(f"next-{ended.id[len('next-') :]}", row.route) for row in rows]


def of_claim(job: Job) -> dict[str, Any]:
    """The parameters of a statement on a claim."""
    return {"job_id": job.id, "job_epoch": job.epoch}


def _is_one_too_many(connection: Connection, job: Job) -> bool:
    # SQLite has one writer at a time, and the claim itself has counted.
    if connection.dialect.name == "sqlite":
        return False
    held = {"held_key": job.key_id}
    limit = connection.execute(statements.LIMIT_OF, held).scalar_one_or_none()
    return bool(limit) and connection.execute(statements.IN_WORK, held).scalar_one() > (limit or 0)


def _job(connection: Connection, statement: Executable, values: Mapping[str, Any]) -> Job | None:
    row = connection.execute(statement, dict(values)).mappings().one_or_none()
    return job_of(row) if row else None
