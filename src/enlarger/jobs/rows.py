"""Rows: how jobs and keys are written as rows, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, literal_column

from enlarger.jobs.job import Job, Key, Output, Scope, State

# Literals: a list of parameters is written into its statement anew at every use.
UNFINISHED: tuple[ColumnElement[str], ...] = tuple(
    literal_column(f"'{state.value}'", String) for state in State if not state.is_terminal
)
"""States for `in_`."""

_KEY_FIELDS = tuple(spec.name for spec in fields(Key))


class Waiting(NamedTuple):
    """An unfinished job, as far as the line cares. There are thousands: a dataclass takes three times as long."""

    id: str
    in_work: bool
    remaining_seconds: float
    """Estimate of the device time it still takes."""
    stage_seconds: float = 0.0
    """Estimate of how long it waits before that."""


def columns_of_job(job: Job) -> dict[str, Any]:
    columns = {spec.name: getattr(job, spec.name) for spec in fields(job)}
    return columns | {
        "state": job.state.value,
        "input": dict(job.input),
        "options": dict(job.options),
        "report": dict(job.report),
        "outputs": [asdict(output) for output in job.outputs],
    }


def job_of(row: Mapping[Any, Any]) -> Job:
    """The job of a row; columns of `jobs` and no others."""
    columns: dict[str, Any] = dict(row)
    columns["state"] = State(columns["state"])
    columns["outputs"] = tuple(Output(**output) for output in columns["outputs"])
    return Job(**columns)


def columns_of_key(key: Key) -> dict[str, Any]:
    return asdict(key) | {"scopes": ",".join(sorted(key.scopes))}


def key_of(row: Mapping[Any, Any]) -> Key:
    values = {name: row[name] for name in _KEY_FIELDS}
    values["scopes"] = frozenset(Scope(word) for word in row["scopes"].split(",") if word)
    return Key(**values)
