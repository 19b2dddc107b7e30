"""A service on many machines: latency of submits, overhead of the queue, two workers against one, fair share, how
long a device stands still, and what a job costs the database and the store.

Everything shares this machine: PostgreSQL, the API, the workers with their children, and the client. Latency counts
from the scheduled moment (open loop); moments of a job are commit times by the database's clock.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import httpx2
import numpy as np
from PIL import Image

import record
from cluster import KEY, Cluster, Program, Service, cluster
from counting_proxy import CountingProxy
from enlarger.jobs.admission import Limits
from enlarger.jobs.job import Job, Key
from enlarger.jobs.metrics import depths
from enlarger.jobs.postgres import open_postgres
from enlarger.jobs.queue import Entry
from enlarger.jobs.store import Store
from load import Wire, open_loop

SUBMIT = "/api/v3/wavespeed-ai/real-esrgan"
QUICK = "realesr-animevideov3"
TINY_SIDE = 8
RATE, P99_MS = 100, 25
CEILING_SECONDS, CEILING_AT_ONCE = 12, 8
WOKEN_JOBS, PAUSE_SECONDS = 40, 0.2
TINY_JOBS = 300
FLOOD, OTHERS, JOBS_A_SLOT = 1000, 5, 2
SLOTS = 2
"""Of a worker with one device."""
GAP_JOBS, JOB_SECONDS, GAP_SHARE = 16, 1.5, 0.05
COST_JOBS, IDLE_SECONDS = 40, 15
BACKLOGS, LOOKS = (100, 1000, 5000, 50_000), 15


def body(seed: int, side: int = TINY_SIDE) -> bytes:
    """A submit of a picture of seeded noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    image = base64.b64encode(file.getvalue()).decode()
    return json.dumps({"image": image, "model": QUICK}).encode()


async def submit(api: Program, bodies: Sequence[bytes], key: str = KEY, at_once: int = 8) -> list[str]:
    """Ids of the jobs."""
    waiting, ids = list(reversed(bodies)), list[str]()

    async def client() -> None:
        while waiting:
            answer = await http.post(SUBMIT, content=waiting.pop())
            ids.append(answer.raise_for_status().json()["data"]["id"])

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(base_url=api.url, headers=headers, timeout=60, trust_env=False) as http:
        await asyncio.gather(*(client() for _ in range(at_once)))
    return ids


def run_all(service: Service, api: Program, bodies: Sequence[bytes]) -> None:
    """Submit, and wait until no job of the service goes on."""
    asyncio.run(submit(api, bodies))
    service.until_ended(service.one("SELECT count(*) FROM jobs"))


def warmed(service: Service, api: Program, workers: Sequence[Program]) -> None:
    """Every worker has computed: its child runs, the network is loaded."""
    seed = 10**6
    while any(worker.metric("enlarger_device_busy_seconds") == 0 for worker in workers):
        run_all(service, api, [body(seed + number) for number in range(2 * SLOTS * len(workers))])
        seed += 1000


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
        before = _device(worker)
        run_all(service, api, [body(number, side) for number in range(GAP_JOBS)])
        busy, waited = (after - earlier for after, earlier in zip(_device(worker), before, strict=True))
    share = waited / (busy + waited)
    return {
        "jobs": GAP_JOBS,
        "side": side,
        "seconds_each": round(busy / GAP_JOBS, 2),
        "gap_share": round(share, 4),
        "aim_gap_share": GAP_SHARE,
        "met": share <= GAP_SHARE,
    }


def _device(worker: Program) -> tuple[float, float]:
    return worker.metric("enlarger_device_busy_seconds"), worker.metric("enlarger_device_gap_seconds")


def cost(made: Cluster) -> dict[str, Any]:
    """What the database and the store are asked: idle, one job at a time, and in a row."""
    from tests.services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3

    with contextlib.closing(SeaweedS3()) as s3, made.service() as service:
        bucket, proxies = s3.create_bucket(), {}
        for role in ("api", "worker"):
            proxies[role] = CountingProxy(s3.port)
            service.start(
                role,
                ENLARGER_BLOB_URL=f"s3://{bucket}",
                ENLARGER_S3_ENDPOINT=f"http://127.0.0.1:{proxies[role].port}",
                ENLARGER_S3_ACCESS_KEY=ACCESS_KEY,
                ENLARGER_S3_SECRET_KEY=SECRET_KEY,
            )
        api, worker = service.programs
        warmed(service, api, [worker])
        time.sleep(1)

        def asked(work: Callable[[], None], per: float) -> dict[str, Any]:
            service.forget_statements()
            for proxy in proxies.values():
                proxy.counted.clear()
            work()
            return {role: _asked(service, role, proxies[role], per) for role in proxies}

        def in_a_row() -> None:
            run_all(service, api, [body(100 + number) for number in range(COST_JOBS)])

        def one_by_one() -> None:
            for number in range(COST_JOBS):
                run_all(service, api, [body(number)])
                time.sleep(PAUSE_SECONDS)

        return {
            "idle_per_second": asked(lambda: time.sleep(IDLE_SECONDS), IDLE_SECONDS),
            "one_by_one_per_job": asked(one_by_one, COST_JOBS),
            "in_a_row_per_job": asked(in_a_row, COST_JOBS),
            "connections": {role: service.connections(role) for role in proxies},
        }


def _asked(service: Service, role: str, proxy: CountingProxy, per: float) -> dict[str, Any]:
    counted = service.statements(role)
    ends = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
    return {
        "round_trips": round(counted.total() / per, 2),
        "statements": round(
            sum(calls for text, calls in counted.items() if not text.startswith(ends)) / per, 2
        ),
        "commits": round(counted["COMMIT"] / per, 2),
        "most": {text[:60]: round(calls / per, 2) for text, calls in counted.most_common(8)},
        "object_requests": {kind: round(calls / per, 2) for kind, calls in sorted(proxy.counted.items())},
    }


def backlog(made: Cluster) -> dict[str, Any]:
    """What takes longer the more jobs wait: milliseconds of each, by how many do."""
    with made.service() as service:
        return asyncio.run(_backlog(service))


async def _backlog(service: Service) -> dict[str, Any]:
    store = Store(open_postgres(service.url("api")))
    key = Key(id="a" * 32, name="a", created_at=0.0)
    job = Job(id="0" * 32, key_id=key.id, model=QUICK, input={}, options={"model": QUICK}, created_at=0.0)
    limits = Limits(max_jobs=10**9, max_seconds=1e12)
    took: dict[str, Any] = {}
    try:
        await store.add_key(key, "hash")
        await store.add(job)
        for there, wanted in pairwise((1, *BACKLOGS)):
            fill(service, there, wanted)
            took[str(wanted)] = {
                "admission_looks": await median_ms(lambda: store.check_admission(key, QUICK, limits, 1.0)),
                "line_looks": await median_ms(store.line),
                "metrics": await median_ms(lambda: depths(store.database, 1.0)),
                "claim": await median_ms(lambda: store.claim(Entry("1" * 32), 1.0)),
            }
    finally:
        await store.close()
    return took


def fill(service: Service, there: int, wanted: int) -> None:
    """Make that many of the first job's like."""
    copied = "SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs'"
    columns = [name for (name,) in service.rows.execute(copied.encode())]
    own = {"id": "lpad(n::text, 32, '0')", "fair_tag": "n", "created_at": "n"}
    values = ", ".join(own.get(name, f"first.{name}") for name in columns)
    more = f"generate_series({there}, {wanted - 1}) n WHERE first.id = '{'0' * 32}'"
    insert = f"INSERT INTO jobs ({', '.join(columns)}) SELECT {values} FROM jobs first, {more}"
    service.rows.execute(insert.encode())
    service.rows.execute("VACUUM ANALYZE jobs")


async def median_ms(call: Callable[[], Awaitable[Any]]) -> float:
    taken: list[float] = []
    for _ in range(LOOKS):
        started = time.perf_counter()
        await call()
        taken.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(taken), 2)


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
