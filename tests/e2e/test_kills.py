"""kill -9, of the server and of the process that computes: an acknowledged job completes, exactly once."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from ..receiver import Receiver
from .conftest import Server, eventually, inline, png, webhooks_to
from .evidence import Told, is_whole

SUBMIT = "/api/v3/wavespeed-ai/real-esrgan"
QUICK = "realesr-animevideov3"
KILLS = int(os.environ.get("ENLARGER_CHAOS_KILLS", "20"))
"""Of the server, in the storm; `make chaos` asks for more."""
JOBS_PER_KILL = 3
MOMENTS = ["acknowledged", "processing", "ended", "told"]
"""Of the life of a job at which the server is killed."""


class Rows:
    """The truth, read past the server; and a record of every change of state, kept by the database itself."""

    def __init__(self, server: Server) -> None:
        self._path = server.data_dir / "enlarger.db"
        with self._open() as database:
            database.execute("CREATE TABLE changes (id TEXT, state TEXT, epoch INTEGER)")
            database.execute(
                "CREATE TRIGGER record_changes AFTER UPDATE OF state ON jobs BEGIN "
                "INSERT INTO changes VALUES (new.id, new.state, new.epoch); END"
            )

    def job(self, job_id: str) -> dict[str, Any]:
        with self._open() as database:
            return dict(database.execute("SELECT * FROM jobs WHERE id = ?", [job_id]).fetchone())

    def ends(self, job_id: str) -> list[str]:
        """Every terminal state the job was ever given."""
        with self._open() as database:
            states = database.execute("SELECT state FROM changes WHERE id = ? ORDER BY rowid", [job_id])
            return [state for (state,) in states if state != "processing"]

    def ended(self) -> set[str]:
        with self._open() as database:
            return {
                job_id
                for (job_id,) in database.execute(
                    "SELECT id FROM jobs WHERE state NOT IN ('created', 'processing')"
                )
            }

    @contextlib.contextmanager
    def _open(self) -> Any:
        with contextlib.closing(sqlite3.connect(self._path, timeout=30)) as database, database:
            database.row_factory = sqlite3.Row
            yield database


def submit(server: Server, data: bytes, **fields: Any) -> str:
    """The id of an acknowledged job."""
    answer = requests.post(
        server.url + SUBMIT,
        json={"image": inline(data), **fields},
        headers={"Authorization": f"Bearer {server.key}"},
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["id"])


def ended(server: Server, job_id: str) -> dict[str, Any]:
    """The prediction, polled until it ends."""

    def look() -> dict[str, Any] | None:
        answer = requests.get(
            f"{server.url}/api/v3/predictions/{job_id}/result",
            headers={"Authorization": f"Bearer {server.key}"},
            timeout=60,
        )
        data: dict[str, Any] = answer.json()["data"]
        return data if data["status"] not in ("created", "processing") else None

    return eventually(look, f"the end of job {job_id}")


def assert_result_is_whole(server: Server, rows: Rows, job_id: str) -> None:
    """The job completed once, and its link gives the bytes whose hash the row holds."""
    prediction, row = ended(server, job_id), rows.job(job_id)
    assert (prediction["status"], prediction["error"]) == ("completed", "")
    assert rows.ends(job_id) == ["completed"]
    assert is_whole(prediction["outputs"], row)


def start_computing(server: Server, rows: Rows) -> str:
    """A job that takes a while, on the device by now."""
    job_id = submit(server, png(64, 64))
    eventually(lambda: rows.job(job_id)["compute_starts"] == 1 and server.device(), "the computation")
    assert rows.job(job_id)["state"] == "processing"
    return job_id


def test_job_of_a_killed_server_completes_after_its_restart(launch: Callable[..., Server]) -> None:
    server = launch()
    rows = Rows(server)
    job_id = start_computing(server, rows)
    orphan = server.device()
    server.kill()
    assert rows.job(job_id)["state"] == "processing"
    server.start()
    assert_result_is_whole(server, rows, job_id)
    assert rows.job(job_id)["compute_starts"] == 2
    assert orphan is not None
    eventually(lambda: not orphan.is_running(), "the end of the orphaned child")
    server.stop()


def test_job_of_a_killed_child_completes_with_one_more_attempt(launch: Callable[..., Server]) -> None:
    server = launch()
    rows = Rows(server)
    job_id = start_computing(server, rows)
    device = server.device()
    assert device is not None
    device.kill()
    assert_result_is_whole(server, rows, job_id)
    assert rows.job(job_id)["compute_starts"] == 2
    server.stop()


def test_stopped_server_leaves_its_job_to_the_next_start(launch: Callable[..., Server]) -> None:
    server = launch(ENLARGER_DRAIN_SECONDS="0")
    rows = Rows(server)
    job_id = start_computing(server, rows)
    server.stop()
    assert rows.job(job_id)["state"] == "processing"
    server.start()
    assert_result_is_whole(server, rows, job_id)


def test_storm_of_kills_loses_nothing_acknowledged_and_finishes_nothing_twice(
    launch: Callable[..., Server], receiver: Receiver, tmp_path: Path
) -> None:
    server = launch(
        **webhooks_to(receiver),
        # Bytecode is kept, also where the environment forbids it: else each of the starts compiles for 3 s.
        PYTHONDONTWRITEBYTECODE="",
        PYTHONPYCACHEPREFIX=str(tmp_path),
    )
    rows, chance = Rows(server), random.Random(KILLS)
    told, load = Told(server.url, server.key, receiver), Load(server, receiver.url)
    began = time.monotonic()
    with load:
        for kill in range(KILLS):
            load.submit_up_to(JOBS_PER_KILL * (kill + 1))
            if kill % 2 == 0:
                # A job may be struck four times this way, not five: then it is given up, rightly.
                old = JOBS_PER_KILL * max(kill - 1, 0)
                eventually(lambda old=old: set(load.acknowledged[:old]) <= rows.ended(), "older jobs to end")
                kill_device_sometimes(server, chance)
            number = JOBS_PER_KILL * kill + chance.randrange(JOBS_PER_KILL)
            eventually(lambda number=number: len(load.acknowledged) > number, "the job to be acknowledged")
            wait_until(chance.choice(MOMENTS), load.acknowledged[number], rows, told)
            server.kill()
            server.start()
        eventually(lambda: len(load.acknowledged) == KILLS * JOBS_PER_KILL, "every job to be acknowledged")
    jobs = load.acknowledged
    eventually(lambda: set(jobs) <= rows.ended(), "every job to end")
    eventually(lambda: set(jobs) <= told.genuine(), "every webhook")
    tally = {**tally_of(server, rows, load, told), "kills": KILLS, "seconds": round(time.monotonic() - began)}
    sys.stdout.write("\n" + "".join(f"| {name} | {number} |\n" for name, number in tally.items()))
    assert tally["acknowledged"] == tally["completed"] == tally["webhooks delivered"] == KILLS * JOBS_PER_KILL
    assert (tally["lost"], tally["finished twice"], tally["webhooks not genuine"]) == (0, 0, 0)
    server.stop()


def tally_of(server: Server, rows: Rows, load: Load, told: Told) -> dict[str, int]:
    jobs = load.acknowledged
    return {
        "acknowledged": len(set(jobs)),
        "completed": sum(rows.ends(job_id)[-1:] == ["completed"] for job_id in jobs),
        "lost": sum(not is_whole(ended(server, job_id)["outputs"], rows.job(job_id)) for job_id in jobs),
        "finished twice": sum(len(rows.ends(job_id)) > 1 for job_id in jobs),
        "webhooks delivered": len(set(jobs) & told.genuine()),
        "webhooks repeated": told.count - len(told.genuine()),
        "webhooks not genuine": told.forged,
        "submits refused or broken off": load.broken_off,
    }


class Load:
    """Submits jobs with webhooks from a thread of its own, while the server is killed too."""

    def __init__(self, server: Server, webhook_url: str) -> None:
        self.acknowledged: list[str] = []
        self.broken_off = 0
        """Submits without an answer: the server was down, or died before it could give one."""
        self._server = server
        self._webhook_url = webhook_url
        self._wanted = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def submit_up_to(self, jobs: int) -> None:
        """Until so many are acknowledged."""
        self._wanted = jobs

    def _run(self) -> None:
        fields = {"scale": 4, "model": QUICK, "webhook_url": self._webhook_url}
        while not self._over.wait(0.005):
            if len(self.acknowledged) < self._wanted:
                try:
                    self.acknowledged.append(submit(self._server, png(8, 8), **fields))
                except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                    self.broken_off += 1
                    self._over.wait(0.1)


def wait_until(moment: str, job_id: str, rows: Rows, told: Told) -> None:
    """Until the job has come to `moment`, or past it."""
    reached: dict[str, Callable[[], bool]] = {
        "acknowledged": lambda: True,
        "processing": lambda: rows.job(job_id)["state"] != "created",
        "ended": lambda: job_id in rows.ended(),
        "told": lambda: job_id in told.genuine(),
    }
    eventually(reached[moment], f"job {job_id} to be {moment}")


def kill_device_sometimes(server: Server, chance: random.Random) -> None:
    device = server.device()
    if device is not None and chance.random() < 0.25:
        device.kill()
