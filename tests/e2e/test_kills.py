"""kill -9, of the server and of the process that computes: an acknowledged job completes, exactly once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import requests

from .conftest import Server, eventually, inline, png

SUBMIT = "/api/v3/wavespeed-ai/real-esrgan"
QUICK = "realesr-animevideov3"
JOBS = 50
KILLS = 20
ORDER = ["created", "processing", "completed"]


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
    (output,) = json.loads(row["outputs"])
    # The result is that of the newest claim.
    assert output["blob_key"].split("/")[:3] == ["outputs", job_id, str(row["epoch"])]
    (url,) = prediction["outputs"]
    data = requests.get(url, timeout=60).content
    assert (len(data), hashlib.sha256(data).hexdigest()) == (output["bytes"], output["sha256"])


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


def test_twenty_kills_over_fifty_jobs_lose_none_and_repeat_none(launch: Callable[..., Server]) -> None:
    server = launch()
    rows = Rows(server)
    chance = random.Random(20)
    acknowledged: list[str] = []
    for kill in range(KILLS):
        wanted = JOBS * (kill + 1) // KILLS - len(acknowledged)
        batch = [submit(server, png(8, 8), scale=4, model=QUICK) for _ in range(wanted)]
        wait_until(rows, chance.choice(batch), chance.choice(ORDER))
        kill_something(server, chance)
        # A job may meet two kills this way, not five: a job that is struck five times is given up, rightly.
        for job_id in acknowledged:
            ended(server, job_id)
        acknowledged += batch
    assert len(set(acknowledged)) == JOBS
    for job_id in acknowledged:
        assert_result_is_whole(server, rows, job_id)
    server.stop()


def wait_until(rows: Rows, job_id: str, state: str) -> None:
    """Until the job is in `state`, or past it."""
    eventually(
        lambda: ORDER.index(rows.job(job_id)["state"]) >= ORDER.index(state), f"job {job_id} to be {state}"
    )


def kill_something(server: Server, chance: random.Random) -> None:
    device = server.device()
    if device is not None and chance.random() < 0.6:
        device.kill()
    else:
        server.kill()
        server.start()
