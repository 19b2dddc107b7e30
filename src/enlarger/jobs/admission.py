"""Admission: whether a new job is taken, and its place in the line. One transaction decides and records it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select

from enlarger.errors import IdempotencyConflict, InvalidOption, Overloaded
from enlarger.jobs import fairness, statements, tables
from enlarger.jobs.job import Job, Key
from enlarger.jobs.limits import charge, check_rate
from enlarger.jobs.rows import UNFINISHED, columns_of_job, job_of

REPEAT_SECONDS = 86_400
"""How long an Idempotency-Key is remembered."""

_MAX_KEY_CHARACTERS = 255
_UNKNOWN_COST_SECONDS = 10.0
"""Taken for the cost of a job of a network that has never run here."""


def _outlook() -> Select[*tuple[Any, ...]]:
    remaining = tables.jobs.c.cost_seconds * (1.0 - tables.jobs.c.progress)
    backlog = (
        select(func.count().label("jobs"), func.sum(remaining).label("seconds"))
        .where(tables.jobs.c.state.in_(UNFINISHED))
        .subquery()
    )
    pace = select(tables.paces.c.seconds).where(tables.paces.c.network == bindparam("network"))
    mine = tables.keys.c.id == bindparam("key_id")
    return select(
        backlog.c.jobs,
        backlog.c.seconds,
        pace.scalar_subquery().label("pace"),
        fairness.virtual_time().label("virtual_time"),
        select(tables.keys.c.fair_finish).where(mine).scalar_subquery().label("key_finish"),
        select(tables.keys.c.arrival_at).where(mine).scalar_subquery().label("arrival_at"),
    )


_OUTLOOK = _outlook()
"""Built once: putting it together takes longer than SQLite takes to answer it."""


_LOCK_KEY = select(tables.keys.c.id).where(tables.keys.c.id == bindparam("locked_id")).with_for_update()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most unfinished work the server holds."""

    max_jobs: int
    max_seconds: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """An Idempotency-Key, and what the request under it looked like."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a decision on a new job rests on."""

    jobs: int
    seconds: float
    """Of device time, all unfinished jobs together."""
    cost_seconds: float
    """Estimate for the new job: what jobs of its network took lately."""
    virtual_time: float
    key_finish: float
    arrival_at: float


def repeat_of(idempotency_key: str, job: Job, image: str) -> Repeat:
    """What a submit under an Idempotency-Key is known by. Takes a while for a large `image`. Raises InvalidOption."""
    if len(idempotency_key) > _MAX_KEY_CHARACTERS:
        raise InvalidOption(
            f"Idempotency-Key must have at most {_MAX_KEY_CHARACTERS} characters", "Idempotency-Key"
        )
    # The picture has a hash of its own: other threads can run meanwhile, as they cannot while JSON is written.
    picture = sha256(image.encode("utf-8", "surrogatepass")).hexdigest()
    request = [job.model, picture, job.options, job.webhook_url, job.base64_output]
    return Repeat(idempotency_key, fingerprint(request))


def fingerprint(request: Sequence[Any]) -> str:
    """Equal for requests that are equal as JSON, whatever the order of the fields in their objects."""
    return sha256(json.dumps(request, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def outlook(connection: Connection, key: Key, network: str) -> Outlook:
    row = connection.execute(_OUTLOOK, {"key_id": key.id, "network": network}).one()
    return Outlook(
        jobs=row.jobs,
        seconds=row.seconds or 0.0,
        cost_seconds=_UNKNOWN_COST_SECONDS if row.pace is None else row.pace,
        virtual_time=row.virtual_time,
        key_finish=row.key_finish or 0.0,
        arrival_at=row.arrival_at or 0.0,
    )


def check(key: Key, outlook: Outlook, limits: Limits, now: float) -> None:
    """Raises RateLimited or Overloaded."""
    check_rate(key, outlook.arrival_at, now)
    if outlook.jobs >= limits.max_jobs:
        raise Overloaded(
            f"The server holds {outlook.jobs} unfinished jobs, as many as it takes (max_backlog_jobs): "
            "try again later",
            outlook.seconds / outlook.jobs,
        )
    # A single job is taken however long it is: refusing it would be for ever.
    if outlook.jobs and outlook.seconds + outlook.cost_seconds > limits.max_seconds:
        excess = outlook.seconds + outlook.cost_seconds - limits.max_seconds
        raise Overloaded(
            f"The server holds {outlook.seconds:.0f} s of estimated work, as much as it takes "
            f"({limits.max_seconds:g} s, max_backlog_seconds): try again later",
            excess,
        )


def earlier(connection: Connection, key: Key, repeat: Repeat, now: float) -> Job | None:
    """The job of the same request under the same Idempotency-Key. Raises IdempotencyConflict when it was another."""
    query = (
        select(tables.idempotency.c.fingerprint.label("asked"), *tables.jobs.c)
        .join(tables.jobs, tables.jobs.c.id == tables.idempotency.c.job_id)
        .where(
            tables.idempotency.c.key_id == key.id,
            tables.idempotency.c.idempotency_key == repeat.key,
            tables.idempotency.c.created_at > now - REPEAT_SECONDS,
        )
    )
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    columns = dict(row)
    if columns.pop("asked") != repeat.fingerprint:
        raise IdempotencyConflict(
            f"The Idempotency-Key {repeat.key[:64]!r} was used within 24 h with another request: use a new one"
        )
    return job_of(columns)


def admit(
    connection: Connection, job: Job, key: Key, limits: Limits, repeat: Repeat | None, now: float
) -> Job:
    """Take the job: the row as it was written, or the earlier job that this submit repeats.

    Raises as `check` and `earlier`; nothing is written then.
    """
    if repeat and connection.dialect.name != "sqlite":
        # Repetitions go one by one, each seeing the last. SQLite has one writer at a time as it is.
        connection.execute(_LOCK_KEY, {"locked_id": key.id})
    if repeat and (found := earlier(connection, key, repeat, now)):
        return found
    seen = outlook(connection, key, _network(job))
    check(key, seen, limits, now)
    tag, finish = fairness.tagged(seen.virtual_time, seen.key_finish, seen.cost_seconds, key.weight)
    share = seen.cost_seconds / key.weight
    charged = charge(connection, key, now, seen.virtual_time, share)
    if charged is None:
        # Another server spent the last of the rate between the look and the charge.
        check_rate(key, now + 60.0, now)
    elif charged != finish:
        # Another submit of the key was charged in between: this job's turn comes after that one's.
        tag = charged - share
    job = replace(job, fair_tag=tag, cost_seconds=seen.cost_seconds)
    connection.execute(statements.ADD, columns_of_job(job))
    if repeat:
        _remember(connection, job, repeat, now)
    return job


def _remember(connection: Connection, job: Job, repeat: Repeat, now: float) -> None:
    mine = (
        tables.idempotency.c.key_id == job.key_id,
        tables.idempotency.c.idempotency_key == repeat.key,
    )
    connection.execute(delete(tables.idempotency).where(*mine))
    values = {
        "key_id": job.key_id,
        "idempotency_key": repeat.key,
        "fingerprint": repeat.fingerprint,
        "job_id": job.id,
        "created_at": now,
    }
    connection.execute(insert(tables.idempotency).values(**values))


def network_of(options: Mapping[str, Any]) -> str:
    """The name whose pace estimates the job."""
    return str(options.get("model", ""))[:100]


def _network(job: Job) -> str:
    return network_of(job.options)
