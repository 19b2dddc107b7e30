"""kill -9 of everything that a service on many machines is made of, while clients submit jobs with webhooks."""

from __future__ import annotations

import io
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from uuid import UUID

import requests
from PIL import Image

from ..receiver import Receiver
from ..services.postgres import Postgres
from ..services.s3 import SeaweedS3
from .cluster import KEY, Cluster, Node, Rows
from .conftest import eventually, webhooks_to
from .evidence import Told, is_whole

WORKER_KILLS = int(os.environ.get("ENLARGER_CHAOS_WORKER_KILLS", "6"))
"""`make chaos` asks for more; the other kills follow from it."""
API_KILLS = max(2, WORKER_KILLS // 4)
POSTGRES_CRASHES = max(1, WORKER_KILLS // 10)
S3_KILLS = max(1, WORKER_KILLS // 20)
KILLS = WORKER_KILLS + API_KILLS + POSTGRES_CRASHES + S3_KILLS
JOBS_PER_KILL = 4
LEASE_SECONDS = 4
_LONGEST_PAUSE_SECONDS = 7.0
"""Between two kills: what has just come back may be struck again, and some work gets done."""
_LONGEST_MOMENT_SECONDS = 0.6
"""Between the last submits and a kill: it strikes jobs that wait, are in work, or are told of."""
_MOST_STARTS_IN_VAIN = 3
_MOST_STARTS = 3
"""A job that five killed workers began to compute is given up, rightly: while one comes near, no worker is killed."""


def test_storm_of_kills_loses_nothing_acknowledged_and_finishes_nothing_twice(
    postgres: Postgres, s3: SeaweedS3, receiver: Receiver, tmp_path: Path
) -> None:
    settings = webhooks_to(receiver) | {"ENLARGER_LEASE_SECONDS": str(LEASE_SECONDS)}
    cluster, began = Cluster(tmp_path, postgres, s3, **settings), time.monotonic()
    with closing(cluster), closing(Rows(cluster)) as rows:
        cluster.start(apis=2, workers=2)
        told = Told(cluster.url, KEY, receiver)
        with Load(cluster, receiver.url) as load:
            Storm(cluster, s3, rows, random.Random(WORKER_KILLS)).rage(load, told)
            eventually(
                lambda: len(load.acknowledged) == KILLS * JOBS_PER_KILL, "every job to be acknowledged"
            )
        jobs = set(load.acknowledged)
        eventually(lambda: jobs <= rows.ended(), "every job to end")
        eventually(lambda: jobs <= told.genuine(), "every webhook")
        tally = tally_of(cluster, rows, load, told) | {"seconds": round(time.monotonic() - began)}
        sys.stdout.write("\n" + "".join(f"| {name} | {number} |\n" for name, number in tally.items()))
        assert (
            tally["acknowledged"]
            == tally["completed"]
            == tally["webhooks delivered"]
            == KILLS * JOBS_PER_KILL
        )
        assert (tally["lost"], tally["finished twice"], tally["submitted twice"]) == (0, 0, 0)
        assert tally["webhooks not genuine"] == 0
        assert load.answers.keys() <= {"503", "none"}
        cluster.stop()


def tally_of(cluster: Cluster, rows: Rows, load: Load, told: Told) -> dict[str, int]:
    jobs = load.acknowledged
    return {
        "worker kills": WORKER_KILLS,
        "API kills": API_KILLS,
        "PostgreSQL crashes": POSTGRES_CRASHES,
        "S3 kills": S3_KILLS,
        "acknowledged": len(set(jobs)),
        "completed": sum(rows.ends(job_id)[-1:] == ["completed"] for job_id in jobs),
        "lost": sum(not is_whole(cluster.links(job_id), rows.job(job_id)) for job_id in jobs),
        "finished twice": sum(len(rows.ends(job_id)) > 1 for job_id in jobs),
        "submitted twice": len(rows.ask("SELECT id FROM jobs")) - len(set(jobs)),
        "claimed more than once": sum(rows.job(job_id)["epoch"] > 1 for job_id in jobs),
        "computed more than once": sum(rows.job(job_id)["compute_starts"] > 1 for job_id in jobs),
        "webhooks delivered": len(set(jobs) & told.genuine()),
        "webhooks repeated": told.count - len(told.genuine()),
        "webhooks not genuine": told.forged,
        "submits refused": load.answers["503"],
        "submits broken off": load.answers["none"],
    }


class Storm:
    """Kills in an order and at intervals drawn from `chance`; what is killed comes back while others are struck."""

    def __init__(self, cluster: Cluster, s3: SeaweedS3, rows: Rows, chance: random.Random) -> None:
        self._cluster = cluster
        self._s3 = s3
        self._rows = rows
        self._chance = chance
        self._returns: dict[object, Future[None]] = {}

    def rage(self, load: Load, told: Told) -> None:
        """Every kill there is to be; all is up again when this returns."""
        order = [self._kill_worker] * WORKER_KILLS + [self._kill_api] * API_KILLS
        order += [self._crash_postgres] * POSTGRES_CRASHES + [self._kill_s3] * S3_KILLS
        self._chance.shuffle(order)
        with ThreadPoolExecutor() as reviver, ExitStack() as stack:
            stack.callback(self._wait_for_all)
            for number, strike in enumerate(order, 1):
                time.sleep(self._chance.uniform(0, _LONGEST_PAUSE_SECONDS))
                told.genuine()  # while the signatures hold
                load.submit_up_to(number * JOBS_PER_KILL)
                time.sleep(self._chance.uniform(0, _LONGEST_MOMENT_SECONDS))
                strike(reviver)

    def _kill_worker(self, reviver: ThreadPoolExecutor) -> None:
        eventually(self._nobody_is_near_the_end, "jobs that were struck often to end")
        worker = self._chance.choice(self._cluster.workers)
        self._strike(reviver, worker, worker.kill, lambda: _return(worker))

    def _kill_api(self, reviver: ThreadPoolExecutor) -> None:
        api = self._chance.choice(self._cluster.apis)
        self._strike(reviver, api, api.kill, lambda: _return(api))

    def _crash_postgres(self, reviver: ThreadPoolExecutor) -> None:
        seconds, postgres = self._chance.uniform(0, 3), self._cluster.postgres

        def come_back() -> None:
            time.sleep(seconds)
            postgres.start()

        self._strike(reviver, postgres, postgres.crash, come_back)

    def _kill_s3(self, reviver: ThreadPoolExecutor) -> None:
        self._strike(reviver, self._s3, self._s3.kill, self._s3.start)

    def _strike(
        self,
        reviver: ThreadPoolExecutor,
        struck: object,
        kill: Callable[[], None],
        come_back: Callable[[], None],
    ) -> None:
        if earlier := self._returns.get(struck):
            earlier.result()
        kill()
        self._returns[struck] = reviver.submit(come_back)

    def _wait_for_all(self) -> None:
        for coming_back in self._returns.values():
            coming_back.result()

    def _nobody_is_near_the_end(self) -> bool:
        return not self._rows.ask(
            "SELECT id FROM jobs WHERE compute_starts >= %s AND state IN ('created', 'processing')",
            _MOST_STARTS,
        )


def _return(node: Node) -> None:
    """Start it as a supervisor would: again when it has given up, as the database went away just then."""
    for _ in range(_MOST_STARTS_IN_VAIN):
        node.start()
        eventually(lambda: node.is_ready() or node.has_ended(), f"{node.role} to be ready or to end")
        if node.is_ready():
            return
    raise AssertionError(node.log())


class Load:
    """Submits jobs with webhooks from threads of its own, to whichever API answers.

    A submit without an acknowledgement is made again under the same Idempotency-Key, for as long as it takes.
    """

    THREADS = 3

    def __init__(self, cluster: Cluster, webhook_url: str) -> None:
        self.acknowledged: list[str] = []
        self.answers: Counter[str] = Counter()
        """By their status, those of submits that were not acknowledged; `none` where there was none."""
        self._cluster = cluster
        self._webhook_url = webhook_url
        self._taken = 0
        self._wanted = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.THREADS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def submit_up_to(self, jobs: int) -> None:
        """Until so many are acknowledged."""
        self._wanted = jobs

    def _run(self) -> None:
        while not self._over.wait(0.01):
            with self._lock:
                if self._taken >= self._wanted:
                    continue
                number, self._taken = self._taken, self._taken + 1
            self._submit(number)

    def _submit(self, number: int) -> None:
        """Until it is acknowledged, or the load is over."""
        data, key, chance = picture(number), str(UUID(int=number)), random.Random(number)
        while not self._over.is_set():
            try:
                answer = self._cluster.try_to_submit(
                    data,
                    url=chance.choice(self._cluster.apis).url,
                    idempotency_key=key,
                    webhook_url=self._webhook_url,
                )
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                self._count("none")
            else:
                if answer.ok:
                    self.acknowledged.append(answer.json()["data"]["id"])
                    return
                self._count(str(answer.status_code))
            self._over.wait(0.2)

    def _count(self, answer: str) -> None:
        with self._lock:
            self.answers[answer] += 1


def picture(number: int) -> bytes:
    """A small picture unlike those of other numbers; every fourth is the same, whose result may be used again."""
    file = io.BytesIO()
    colour = number if number % 4 else 0
    Image.new("RGB", (8, 8), (colour % 256, colour // 256, 77)).save(file, "png")
    return file.getvalue()
