"""Statements: what the store asks of its database most often, each built once.

Putting a statement together takes several times longer than SQLite takes to run it. The parameters of a statement are
named where they are not columns; the columns an UPDATE sets are its other parameters.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, Update, bindparam, case, func, insert, select, update

from enlarger.jobs import fairness
from enlarger.jobs.database import inserts_or_updates
from enlarger.jobs.job import State
from enlarger.jobs.rows import UNFINISHED
from enlarger.jobs.tables import jobs, keys, paces

_OLD_PACE_WEIGHT = 0.8
_NO_STAGE = {"stage": "", "stage_seconds": 0.0}


def _poll() -> Select[*tuple[Any, ...]]:
    mine = (jobs.c.key_id == keys.c.id) & (jobs.c.id == bindparam("job_id"))
    return (
        select(keys, *(column.label(f"job_{column.name}") for column in jobs.c))
        .select_from(keys.outerjoin(jobs, mine))
        .where(keys.c.secret_sha256 == bindparam("secret_sha256"))
    )


POLL = _poll()
"""secret_sha256, job_id. The key, and the job in columns that begin with `job_`, null when it is not the key's."""

KEY_OF_HASH = select(keys).where(keys.c.secret_sha256 == bindparam("secret_sha256"))

IS_UNFINISHED = jobs.c.state.in_(UNFINISHED)

ADD = insert(jobs)

# True of the row only while job_id and job_epoch are its newest claim, and it goes on.
_IS_CLAIMED = (
    jobs.c.id == bindparam("job_id"),
    jobs.c.epoch == bindparam("job_epoch"),
    jobs.c.state == State.PROCESSING.value,
)

IS_CLAIMED = select(func.count()).select_from(jobs).where(*_IS_CLAIMED)
"""job_id, job_epoch. 1 or 0."""

CHANGE_CLAIMED = update(jobs).where(*_IS_CLAIMED)
"""job_id, job_epoch, and columns to set."""

END_CLAIMED = CHANGE_CLAIMED.returning(*jobs.c)
"""As CHANGE_CLAIMED; gives the row."""

END_OWN = (
    update(jobs)
    .where(jobs.c.id == bindparam("job_id"), jobs.c.key_id == bindparam("owner_id"), IS_UNFINISHED)
    .returning(*jobs.c)
)
"""job_id, owner_id, and columns to set; gives the row, if the job goes on."""

START_COMPUTE = CHANGE_CLAIMED.values(
    compute_starts=jobs.c.compute_starts + 1, progress=0.0, **_NO_STAGE
).returning(jobs.c.compute_starts)
"""job_id, job_epoch. Gives the new count."""


def _claim(chosen: Any) -> Update:
    return (
        update(jobs)
        .where(jobs.c.id == chosen)
        .values(
            state=State.PROCESSING.value,
            epoch=jobs.c.epoch + 1,
            started_at=func.coalesce(jobs.c.started_at, bindparam("now")),
            ticket=bindparam("hand_ticket"),
            **_NO_STAGE,
        )
        .returning(*jobs.c)
    )


_TICKET = case((jobs.c.ticket == "", jobs.c.id), else_=jobs.c.ticket)
_OF_TICKET = select(jobs.c.id).where(
    jobs.c.state == State.PROCESSING.value, bindparam("hand_ticket") == _TICKET
)

CLAIM_AGAIN = _claim(_OF_TICKET.limit(1).scalar_subquery())
"""hand_ticket, now. Takes the job that runs under this ticket."""

CLAIM_FAIREST = _claim(fairness.fairest())
"""hand_ticket, serve_route, now. Takes the job of the route to serve next."""

ENTRIES = select(_TICKET, jobs.c.route).where(IS_UNFINISHED).order_by(jobs.c.created_at)

LET_GO = CHANGE_CLAIMED.values(state=State.CREATED.value, ticket="", progress=0.0, **_NO_STAGE).returning(
    jobs.c.id, jobs.c.route
)
"""job_id, job_epoch, and columns to set; gives id and route of a job that waits again."""

HELD_UP = (
    select(jobs.c.id, jobs.c.route)
    .join(keys, keys.c.id == jobs.c.key_id)
    .where(
        keys.c.id == bindparam("held_key"), keys.c.max_concurrency > 0, jobs.c.state == State.CREATED.value
    )
    .order_by(*fairness.ORDER)
    .limit(1)
)
"""held_key. The next job of a key that may only have so many in work: its ticket may have been spent on nothing."""

LIMIT_OF = select(keys.c.max_concurrency).where(keys.c.id == bindparam("held_key")).with_for_update()
"""held_key. Most jobs of the key in work at once; nobody else takes one of them before this transaction ends."""

IN_WORK = (
    select(func.count())
    .select_from(jobs)
    .where(jobs.c.key_id == bindparam("held_key"), jobs.c.state == State.PROCESSING.value)
)

LIKE = (
    select(jobs)
    .where(
        jobs.c.key_id == bindparam("owner_id"),
        jobs.c.fingerprint == bindparam("wanted"),
        jobs.c.state == State.COMPLETED.value,
        jobs.c.finished_at > bindparam("after"),
    )
    .order_by(jobs.c.finished_at.desc())
    .limit(1)
)
"""owner_id, wanted, after. The newest result of the key that the same computation gave."""

LINE = (
    select(
        jobs.c.id,
        (jobs.c.state == State.PROCESSING.value).label("in_work"),
        (jobs.c.cost_seconds * (1.0 - jobs.c.progress)).label("remaining"),
        jobs.c.stage_seconds,
    )
    .where(IS_UNFINISHED)
    .order_by(jobs.c.state.desc(), *fairness.ORDER)
)

KEEP_PACE = inserts_or_updates(
    paces,
    lambda latest: {
        "seconds": paces.c.seconds * _OLD_PACE_WEIGHT + latest["seconds"] * (1 - _OLD_PACE_WEIGHT)
    },
)
"""By dialect: network, seconds."""
