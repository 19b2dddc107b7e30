"""A service on many machines: latency of submits, overhead of the queue, two workers against one, fair share, how
long a device stands still, and what a job costs the database and the store.

Everything shares this machine: PostgreSQL, the API, the workers with their children, and the client. Latency counts
from the scheduled moment (open loop); moments of a job are commit times by the database's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import record
from cluster import KEY, Cluster, Program, Service, cluster
from job_costs import backlog, cost
from load import Wire, open_loop
from tiny_jobs import SLOTS, SUBMIT, body, run_all, submit, warmed

RATE, P99_MS = 100, 25
CEILING_SECONDS, CEILING_AT_ONCE = 12, 8
WOKEN_JOBS, PAUSE_SECONDS = 40, 0.2
TINY_JOBS = 300
FLOOD, OTHERS, JOBS_A_SLOT = 1000, 5, 2
GAP_JOBS, JOB_SECONDS, GAP_SHARE = 16, 1.5, 0.05


def spread(seconds: Iterable[float]) -> dict[str, float]:
    cuts = statistics.quantiles(sorted(seconds), n=100, method="inclusive")
    return {f"p{level}_ms": round(cuts[level - 1] * 1000, 1) for level in (50, 95, 99)}


def cores(service: Service, before: dict[str, float], seconds: float) -> dict[str, float]:
    """How many cores each kind of process kept busy."""
    return {
        name: round((used - before.get(name, 0.0)) / seconds, 2)
        for name, used in service.cpu_seconds().items()
    }


def submits(made: Cluster, seconds: float) -> dict[str, Any]:
    """No worker runs, so that the backlog grows by every submit: that only makes it harder."""
    found: dict[str, Any] = {}
    with made.service() as service:
        api = service.start("api")
        wire = Wire(api.url, KEY, "POST", SUBMIT, body(0))
        asyncio.run(open_loop(Wire(api.url, KEY, "POST", SUBMIT, body(0)), RATE, 3))
        before, started = service.cpu_seconds(), time.monotonic()
        loaded = asyncio.run(open_loop(wire, RATE, seconds))
        found["open_loop"] = {**loaded, "cores": cores(service, before, time.monotonic() - started)}
        found["backlog_at_the_end"] = service.one("SELECT count(*) FROM jobs")
        service.forget_statements()
        before, started = service.cpu_seconds(), time.monotonic()
        count, errors = asyncio.run(closed_loop(Wire(api.url, KEY, "POST", SUBMIT, body(0))))
        elapsed = time.monotonic() - started
        found["ceiling"] = {
            "clients": CEILING_AT_ONCE,
            "submits_per_second": round(count / elapsed, 1),
            "errors": errors,
            "cores": cores(service, before, elapsed),
        }
    found |= {
        "aim_p99_ms": P99_MS,
        "met": loaded["p99_ms"] <= P99_MS and not loaded["errors"] + errors,
    }
    return found


async def closed_loop(wire: Wire) -> tuple[int, int]:
    """Submits answered, and how many of them with an error."""
    until = time.monotonic() + CEILING_SECONDS
    statuses: list[int] = []

    async def client() -> None:
        while time.monotonic() < until:
            statuses.append(await wire.send())

    await asyncio.gather(*(client() for _ in range(CEILING_AT_ONCE)))
    wire.close()
    return len(statuses), sum(status != 200 for status in statuses)


def wake(made: Cluster) -> dict[str, Any]:
    """One job at a time to a worker that has nothing to do."""
    with made.service() as service:
        api, worker = service.start("api"), service.start("worker")
        warmed(service, api, [worker])
        service.note_moments()
        for number in range(WOKEN_JOBS):
            time.sleep(PAUSE_SECONDS)
            run_all(service, api, [body(number)])
        moments = service.moments()
    at = {
        name: {job: seconds for job, _, state, starts, seconds in moments if (state, starts) == moment}
        for name, moment in {
            "submitted": ("created", 0),
            "claimed": ("processing", 0),
            "computes": ("processing", 1),
            "ended": ("completed", 1),
        }.items()
    }

    def took(first: str, last: str) -> dict[str, float]:
        return spread(at[last][job] - at[first][job] for job in at["ended"])

    return {
        "jobs": len(at["ended"]),
        "submit_to_claim": took("submitted", "claimed"),
        "claim_to_compute": took("claimed", "computes"),
        "compute_to_end": took("computes", "ended"),
    }


def throughput(made: Cluster) -> dict[str, Any]:
    """Tiny jobs, all different, from the last submit on: so the API does not compete."""

    def rate(workers: int) -> dict[str, Any]:
        with made.service() as service:
            api = service.start("api")
            started = [service.start("worker", ENLARGER_THREADS="1") for _ in range(workers)]
            warmed(service, api, started)
            count = len(asyncio.run(submit(api, [body(number) for number in range(TINY_JOBS)])))
            begun, before, all_jobs = (
                time.monotonic(),
                service.cpu_seconds(),
                service.one("SELECT count(*) FROM jobs"),
            )
            left = all_jobs - service.ended()
            service.until_ended(all_jobs)
            seconds = time.monotonic() - begun
            return {
                "workers": workers,
                "submitted": count,
                "jobs_per_second": round(left / seconds, 1),
                "cores": cores(service, before, seconds),
            }

    one, two = rate(1), rate(2)
    return {
        "one": one,
        "two": two,
        "ratio": round(two["jobs_per_second"] / one["jobs_per_second"], 2),
        "bound": f"the {os.cpu_count()} cores, which workers, their children, PostgreSQL and the API share",
    }


def fairness(made: Cluster) -> dict[str, Any]:
    """Jobs of a key that has submitted a thousand which go before the one job of another key."""
    with made.service() as service:
        api, worker = service.start("api"), service.start("worker")
        other = service.another_key()
        warmed(service, api, [worker])
        service.note_moments()
        asyncio.run(submit(api, [body(number) for number in range(FLOOD)], at_once=16))
        waiting = service.one("SELECT count(*) FROM jobs WHERE state = 'created'")
        for number in range(OTHERS):
            [job] = asyncio.run(submit(api, [body(FLOOD + number)], other))
            while service.one("SELECT state FROM jobs WHERE id = %s", job) in ("created", "processing"):
                time.sleep(0.02)
        moments = service.moments()
    theirs = {job for job, key, *_ in moments} - (others := _jobs_of_rarest_key(moments))
    before = [
        {
            "claimed": _between(moments, theirs, "processing", _span(moments, job, "created", "processing")),
            "ended": _between(moments, theirs, "completed", _span(moments, job, "created", "completed")),
        }
        for job in others
    ]
    worst = max(delay["ended"] for delay in before)
    return {
        "flood": FLOOD,
        "of_them_waiting": waiting,
        "slots": SLOTS,
        "jobs_of_the_flood_before_each": before,
        "worst_ended_a_slot": worst / SLOTS,
        "aim_a_slot": JOBS_A_SLOT,
        "met": worst <= JOBS_A_SLOT * SLOTS,
    }


Moments = list[tuple[str, str, str, int, float]]


def _jobs_of_rarest_key(moments: Moments) -> set[str]:
    keys = Counter(key for _, key, *_ in moments)
    rarest = min(keys, key=keys.__getitem__)
    return {job for job, key, *_ in moments if key == rarest}


def _span(moments: Moments, job: str, first: str, last: str) -> tuple[float, float]:
    """From the commit of the first state of the job to that of the last."""
    at = {state: seconds for one, _, state, starts, seconds in reversed(moments) if one == job}
    return at[first], at[last]


def _between(moments: Moments, jobs: set[str], state: str, span: tuple[float, float]) -> int:
    """How many of the jobs first came to the state within the span."""
    first: dict[str, float] = {}
    for job, _, now, _, seconds in moments:
        if now == state and job in jobs:
            first[job] = min(seconds, first.get(job, seconds))
    return sum(span[0] < seconds < span[1] for seconds in first.values())


def gap(made: Cluster) -> dict[str, Any]:
    """Jobs of one to two seconds each, as many in line as there are."""
    with made.service() as service:
        api, worker = service.start("api"), service.start("worker")
        warmed(service, api, [worker])
        side = 256
        # The first picture of a size waits for a network of that size.
        run_all(service, api, [body(number, side) for number in range(3)])
        milliseconds = service.one(
            "SELECT min(compute_ms) FROM (SELECT * FROM jobs ORDER BY created_at DESC LIMIT 3) j"
        )
        side = round(side * (JOB_SECONDS * 1000 / milliseconds) ** 0.5)
        run_all(service, api, [body(GAP_JOBS, side)])
        before, began = _device(worker), time.monotonic()
        service.forget_statements()
        run_all(service, api, [body(number, side) for number in range(GAP_JOBS)])
        asked = service.statements("worker").total() / (time.monotonic() - began)
        busy, waited = (after - earlier for after, earlier in zip(_device(worker), before, strict=True))
    share = waited / (busy + waited)
    return {
        "jobs": GAP_JOBS,
        "side": side,
        "seconds_each": round(busy / GAP_JOBS, 2),
        "worker_round_trips_per_second": round(asked, 1),
        "gap_share": round(share, 4),
        "aim_gap_share": GAP_SHARE,
        "met": share <= GAP_SHARE,
    }


def _device(worker: Program) -> tuple[float, float]:
    return worker.metric("enlarger_device_busy_seconds"), worker.metric("enlarger_device_gap_seconds")


PARTS: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "a": ("submit", submits),
    "b": ("wake", wake),
    "c": ("throughput", throughput),
    "d": ("fairness", fairness),
    "e": ("gap", gap),
    "f": ("cost", cost),
    "g": ("backlog", backlog),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default=",".join(PARTS), help="parts to measure, e.g. a,c; nothing is recorded"
    )
    parser.add_argument("--seconds", type=float, default=60, help="length of the load of part a")
    asked = parser.parse_args()
    numbers: dict[str, Any] = {}
    with cluster() as made:
        for letter in asked.only.split(","):
            name, part = PARTS[letter]
            started = time.monotonic()
            numbers[name] = part(made, *([asked.seconds] if letter == "a" else []))
            print(f"{letter}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    if len(numbers) == len(PARTS):
        record.write("distributed", numbers)
    else:
        print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
