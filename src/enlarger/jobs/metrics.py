"""Metrics: counts of what has happened in this process, and gauges read from the store when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlalchemy import func, select

from enlarger.jobs.database import Database
from enlarger.jobs.devices import Devices
from enlarger.jobs.fleet import Member
from enlarger.jobs.job import Job, State
from enlarger.jobs.outbox import Delivery, DeliveryState
from enlarger.jobs.rows import UNFINISHED
from enlarger.jobs.tables import deliveries, jobs

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits of one route, for one decision: how many workers of it there should be."""

    created: int
    processing: int
    oldest_seconds: float
    backlog_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Depths:
    """How much waits at one moment."""

    created: int
    processing: int
    oldest_seconds: float
    """Age of the oldest unfinished job, 0 when there is none."""
    backlog_seconds: float
    """Estimated device time of all unfinished jobs."""
    webhooks_pending: int
    routes: Mapping[str, Waiting] = field(default_factory=dict[str, Waiting])


async def depths(database: Database, now: float) -> Depths:
    """What waits, as the rows say."""
    remaining = func.sum(jobs.c.cost_seconds * (1.0 - jobs.c.progress)).label("seconds")
    unfinished = (
        select(
            jobs.c.route,
            jobs.c.state,
            func.count().label("count"),
            func.min(jobs.c.created_at).label("oldest"),
            remaining,
        )
        .where(jobs.c.state.in_(UNFINISHED))
        .group_by(jobs.c.route, jobs.c.state)
    )
    pending = select(func.count()).where(deliveries.c.state == DeliveryState.PENDING.value)
    rows, webhooks_pending = await database.read(
        lambda connection: (
            [dict(row) for row in connection.execute(unfinished).mappings()],
            connection.execute(pending).scalar_one(),
        )
    )
    everything = _waiting(rows, now)
    return Depths(
        created=everything.created,
        processing=everything.processing,
        oldest_seconds=everything.oldest_seconds,
        backlog_seconds=everything.backlog_seconds,
        webhooks_pending=webhooks_pending,
        routes={
            route: _waiting([row for row in rows if row["route"] == route], now)
            for route in sorted({row["route"] for row in rows})
        },
    )


def _waiting(rows: Sequence[Mapping[str, Any]], now: float) -> Waiting:
    def count(state: State) -> int:
        return sum(row["count"] for row in rows if row["state"] == state.value)

    return Waiting(
        created=count(State.CREATED),
        processing=count(State.PROCESSING),
        oldest_seconds=max((now - row["oldest"] for row in rows), default=0.0),
        backlog_seconds=sum(row["seconds"] for row in rows),
    )


class Metrics:
    """One set of metrics, in a registry of its own. Labels come from lists of ours, never from what users send."""

    def __init__(self, devices: Devices | None = None) -> None:
        self._devices = devices or Devices({})
        self._registry = CollectorRegistry()
        self._jobs = Counter(
            "enlarger_jobs_ended",
            "Jobs that ended, by state and error code.",
            ["state", "error_code"],
            registry=self._registry,
        )
        self._stages = Histogram(
            "enlarger_stage_seconds",
            "Time of completed jobs by stage: queued, and those of the engine's report.",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._starts = Histogram(
            "enlarger_job_attempts",
            "Starts of the computation an ended job took.",
            buckets=(0, 1, 2, 3, 4, 5),
            registry=self._registry,
        )
        self._webhooks = Counter(
            "enlarger_webhook_attempts",
            "Webhook requests, by their outcome: the class of the answer's status, or none.",
            ["outcome"],
            registry=self._registry,
        )
        self._deliveries = Counter(
            "enlarger_webhook_deliveries_ended",
            "Webhook deliveries that ended with an attempt, by state.",
            ["state"],
            registry=self._registry,
        )
        self._depth = self._gauge("enlarger_queue_depth", "Unfinished jobs, by state.", ["state"])
        self._oldest = self._gauge("enlarger_queue_oldest_seconds", "Age of the oldest unfinished job.")
        self._backlog = self._gauge(
            "enlarger_backlog_seconds", "Estimated device time of all unfinished jobs."
        )
        self._pending = self._gauge("enlarger_webhooks_pending", "Webhook deliveries not made yet.")
        self._by_route = {
            name: self._gauge(f"enlarger_route_{name}", f"{what}, by route.", ["route"])
            for name, what in (
                ("created", "Jobs that wait"),
                ("processing", "Jobs in work"),
                ("oldest_seconds", "Age of the oldest unfinished job"),
                ("backlog_seconds", "Estimated device time of unfinished jobs"),
            )
        }
        self._workers = self._gauge("enlarger_workers", "Workers heard of lately.")
        self._fleet = self._gauge("enlarger_devices", "Devices of these workers, by what they do.", ["does"])
        self._busy = self._gauge(
            "enlarger_device_busy_seconds", "Time in which a device of this process computed.", ["device"]
        )
        self._gap = self._gauge(
            "enlarger_device_gap_seconds",
            "Time in which a device of this process had a job and did not compute.",
            ["device"],
        )

    def job_ended(self, job: Job) -> None:
        self._jobs.labels(job.state.value, job.error_code).inc()
        self._starts.observe(job.compute_starts)
        if job.started_at is not None:
            self._stages.labels("queued").observe(max(0.0, job.started_at - job.created_at))
        for stage, milliseconds in _timings(job.report).items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def webhook_attempted(self, delivery: Delivery) -> None:
        """`delivery` as it stands after the attempt."""
        status = delivery.attempts[-1].status
        self._webhooks.labels(f"{status // 100}xx" if 100 <= status < 600 else "none").inc()
        if delivery.ended_at is not None:
            self._deliveries.labels(delivery.state.value).inc()

    def exposed(self, depths: Depths, fleet: Sequence[Member] = ()) -> bytes:
        """Everything, in the text format of Prometheus."""
        self._depth.labels("created").set(depths.created)
        self._depth.labels("processing").set(depths.processing)
        self._oldest.set(depths.oldest_seconds)
        self._backlog.set(depths.backlog_seconds)
        self._pending.set(depths.webhooks_pending)
        for name, gauge in self._by_route.items():
            gauge.clear()
            for route, waiting in depths.routes.items():
                gauge.labels(route).set(getattr(waiting, name))
        self._workers.set(len(fleet))
        idle = sum(member.idle for member in fleet)
        self._fleet.labels("idle").set(idle)
        self._fleet.labels("computes").set(sum(member.devices for member in fleet) - idle)
        for device in self._devices.all:
            self._busy.labels(device.name).set(device.busy_seconds)
            self._gap.labels(device.name).set(device.waited_seconds)
        return generate_latest(self._registry)

    def _gauge(self, name: str, documentation: str, labels: list[str] | None = None) -> Gauge:
        return Gauge(name, documentation, labels or [], registry=self._registry)


def _timings(report: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds by stage, of a report that may be of any earlier version."""
    found = report.get("timings_ms")
    items = found.items() if isinstance(found, Mapping) else ()  # pyright: ignore[reportUnknownVariableType]
    return {str(stage): float(value) for stage, value in items if isinstance(value, int | float)}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
