"""What a job asks of the database and of the store, and what takes longer the more of them wait."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

from tests.services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3

from cluster import USERS, Cluster, Service
from counting_proxy import CountingProxy
from enlarger.jobs.admission import Limits
from enlarger.jobs.job import Job, Key
from enlarger.jobs.metrics import depths
from enlarger.jobs.postgres import open_postgres
from enlarger.jobs.queue import Entry
from enlarger.jobs.store import Store
from tiny_jobs import QUICK, body, run_all, warmed

COST_JOBS, IDLE_SECONDS = 40, 15
PAUSE_SECONDS = 0.2
BACKLOGS, LOOKS = (100, 1000, 5000, 50_000), 15


def cost(made: Cluster) -> dict[str, Any]:
    """What the database and the store are asked: idle, one job at a time, and in a row."""
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
        # A worker that gets none of the jobs, and is woken by them all the same.
        service.start("worker", "bystander", ENLARGER_WORKER_SIZES="large")
        warmed(service, api, [worker])
        time.sleep(1)

        def asked(work: Callable[[], None], per: float) -> dict[str, Any]:
            service.forget_statements()
            for proxy in proxies.values():
                proxy.counted.clear()
            work()
            return {user: _asked(service, user, proxies.get(user), per) for user in USERS}

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
            "row_bytes_per_job": service.one("SELECT pg_total_relation_size('jobs') / count(*) FROM jobs"),
            "connections": {user: service.connections(user) for user in USERS},
        }


def _asked(service: Service, user: str, proxy: CountingProxy | None, per: float) -> dict[str, Any]:
    counted, requests = service.statements(user), proxy.counted if proxy else Counter[str]()
    ends = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
    return {
        "round_trips": round(counted.total() / per, 2),
        "statements": round(
            sum(calls for text, calls in counted.items() if not text.startswith(ends)) / per, 2
        ),
        "commits": round(counted["COMMIT"] / per, 2),
        "most": {text[:60]: round(calls / per, 2) for text, calls in counted.most_common(8)},
        "object_requests": {kind: round(calls / per, 2) for kind, calls in sorted(requests.items())},
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
