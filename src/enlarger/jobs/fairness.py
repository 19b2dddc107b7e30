"""Fairness: in which order jobs of different keys are served. Start-time fair queueing, on the rows.

Every job gets a tag when it is submitted: the virtual time, or where the key's last job will be done, whichever is
later. A job moves its key ahead by its cost ÷ the key's weight: a key that submits a thousand jobs puts them a cost
apart, and the first job of another key stands beside the one now served. The smallest tag is served next, of the
jobs of the smallest rank: a key of higher priority has a smaller one, and is served before all others.
The tags are compared by the database only; they grow with the work ever done, and in a double the tags of
10^10 jobs of 100 s still differ by less than a millisecond's worth.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, bindparam, func, select

from enlarger.jobs.job import State
from enlarger.jobs.tables import jobs, keys

ORDER = (jobs.c.rank, jobs.c.fair_tag, jobs.c.created_at, jobs.c.id)


def virtual_time() -> ColumnElement[float]:
    """The tag of the job now served; between jobs the next one's; of an idle server, where its last key was done."""

    def tag(function: Any, state: State) -> ScalarSelect[Any]:
        return select(function(jobs.c.fair_tag)).where(jobs.c.state == state.value).scalar_subquery()

    return func.coalesce(
        tag(func.max, State.PROCESSING),
        tag(func.min, State.CREATED),
        select(func.max(keys.c.fair_finish)).scalar_subquery(),
        0.0,
    )


def tagged(virtual: float, key_finish: float, cost_seconds: float, weight: float) -> tuple[float, float]:
    """The tag of a new job, and where it moves its key's finish."""
    start = max(virtual, key_finish)
    return start, start + cost_seconds / weight


def fairest() -> ScalarSelect[Any]:
    """Id of the job of a route to serve next: the first of keys that have less in work than they may. serve_route."""
    in_work = (
        select(jobs.c.key_id)
        .join(keys, keys.c.id == jobs.c.key_id)
        .where(jobs.c.state == State.PROCESSING.value, keys.c.max_concurrency > 0)
        .group_by(jobs.c.key_id, keys.c.max_concurrency)
        .having(func.count() >= keys.c.max_concurrency)
    )
    return (
        select(jobs.c.id)
        .where(
            jobs.c.state == State.CREATED.value,
            jobs.c.route == bindparam("serve_route"),
            jobs.c.key_id.not_in(in_work),
        )
        .order_by(*ORDER)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
