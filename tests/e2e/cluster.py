"""A service on many machines, all of them this one: PostgreSQL, S3, `enlarger api` and `enlarger worker` processes.

Every process may be killed, stopped and started again by itself, on the port it had.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests
from psycopg.rows import DictRow, dict_row

from ..services.cable import Cable
from ..services.ports import free_ports, spawn
from ..services.postgres import Postgres
from ..services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3
from .conftest import DEADLINE_SECONDS, eventually, inline, png

KEY = "the-key-of-every-test-here-0123456789"
SUBMIT = "/api/v3/wavespeed-ai/real-esrgan"
QUICK = "realesr-animevideov3"
ENDED = ("completed", "failed", "cancelled")


class Node:
    """One process of the service, with a folder and a log of its own."""

    def __init__(
        self, role: str, folder: Path, environment: Mapping[str, str], *, before: Sequence[str] = ()
    ) -> None:
        """before: words before the command, such as those that put it into a namespace."""
        self.role = role
        self.log_file = folder.with_suffix(".log")  # beside the folder, whose disk may be full
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [*before, sys.executable, "-m", "enlarger", role, "--port", str(self.port)]
        self._environment = {"ENLARGER_DATA_DIR": str(folder), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, **settings: str) -> None:
        """Start the process, and wait for no more than that. settings: environment variables for this once."""
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        self.is_as_others = not settings
        environment = {**self._environment, **settings}
        self._process = spawn(self._command, self.log_file, "KILL", environment=environment)

    def wait_until_ready(self) -> None:
        """Until the process has said so; it has to stay alive."""
        eventually(lambda: self.is_ready() or self.has_ended(), f"{self.role} to be ready")
        assert self.is_ready(), self.log()

    def is_ready(self) -> bool:
        return "is ready:" in self.log()

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; it has to end well."""
        assert self._end(signal.SIGTERM) == 0, self.log()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Until the process ends; its exit status."""
        assert self._process is not None
        code = self._process.wait(DEADLINE_SECONDS)
        self._process = None
        return code

    def device(self) -> psutil.Process | None:
        """The child that computes, when there is one."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with suppress(psutil.NoSuchProcess):
                    if "spawn_main" in " ".join(child.cmdline()):
                        return child
        return None

    def log(self) -> str:
        """All that this process has printed."""
        return self.log_file.read_bytes()[self._log_start :].decode(errors="replace")

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def _end(self, number: signal.Signals) -> int:
        self.signal(number)
        return self.wait()


class Cluster:
    """Processes over one new database and one new bucket, which others than these processes may look into.

    settings: environment variables of all of them; each may get others besides.
    """

    def __init__(self, folder: Path, postgres: Postgres, s3: SeaweedS3 | None, **settings: str) -> None:
        """s3: without it `settings` say where pictures are."""
        self.postgres = postgres
        self.folder = folder
        self.database_url = postgres.create_database()
        self.apis: list[Node] = []
        self.workers: list[Node] = []
        self.environment = {
            **{name: "" for name in os.environ if name.startswith("ENLARGER_")},
            "ENLARGER_DATABASE_URL": self.database_url,
            **(_bucket_of(s3) if s3 else {}),
            "ENLARGER_FIRST_KEY": KEY,
            # Bytecode is kept, also where the environment forbids it: else each of the starts compiles for 3 s.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(folder.parent / "bytecode"),
            **settings,
        }
        self._migrate()

    def start(self, *, apis: int = 1, workers: int = 1) -> None:
        """So many more of each; ready when this returns."""
        for node in [*(self.add("api") for _ in range(apis)), *(self.add("worker") for _ in range(workers))]:
            node.wait_until_ready()

    def add(self, role: str, *, before: Sequence[str] = (), **settings: str) -> Node:
        """One more process, started; wait for it yourself."""
        nodes = self.apis if role == "api" else self.workers
        name = f"{role}-{len(nodes) + 1}"
        node = Node(role, self.folder / name, {**self.environment, **settings}, before=before)
        nodes.append(node)
        node.start()
        return node

    def add_far(self, cable: Cable, s3: SeaweedS3) -> Node:
        """A worker at the far end of a cable, started, that is none of `workers`: whoever adds it closes it."""
        address = cable.leads_to(self.postgres.port)
        settings = {
            "ENLARGER_DATABASE_URL": self.database_url.replace(f"127.0.0.1:{self.postgres.port}", address),
            "ENLARGER_S3_ENDPOINT": f"http://{cable.leads_to(s3.port)}",
        }
        node = Node("worker", self.folder / "far", {**self.environment, **settings}, before=cable.before)
        node.start()
        return node

    @property
    def url(self) -> str:
        """Of the first API."""
        return self.apis[0].url

    def submit(self, data: bytes | None = None, *, url: str = "", **fields: Any) -> str:
        """The id of an acknowledged job: one that is soon done, unless `fields` say otherwise."""
        answer = self.try_to_submit(data or png(8, 8), url=url, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["id"])

    def try_to_submit(
        self, data: bytes, *, url: str = "", idempotency_key: str = "", **fields: Any
    ) -> requests.Response:
        """The answer to one submit."""
        return requests.post(
            (url or self.url) + SUBMIT,
            json={"image": inline(data), "scale": 4, "model": QUICK, **fields},
            headers={"Authorization": f"Bearer {KEY}", "Idempotency-Key": idempotency_key},
            timeout=60,
        )

    def links(self, job_id: str) -> list[str]:
        """Of the outputs of the prediction, as the first API tells them."""
        answer = requests.get(
            f"{self.url}/api/v3/predictions/{job_id}/result",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=60,
        )
        links: list[str] = answer.json()["data"]["outputs"]
        return links

    def stop(self) -> None:
        """All processes, by SIGTERM; each has to end well."""
        for node in [*self.workers, *self.apis]:
            node.stop()

    def close(self) -> None:
        for node in [*self.workers, *self.apis]:
            node.close()

    def _migrate(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "enlarger", "migrate"],
            env={**os.environ, **self.environment, "ENLARGER_DATA_DIR": str(self.folder / "migrate")},
            check=True,
            stdout=subprocess.DEVNULL,
        )


def _bucket_of(s3: SeaweedS3) -> dict[str, str]:
    """Settings of a new one."""
    return {
        "ENLARGER_BLOB_URL": f"s3://{s3.create_bucket()}/jobs",
        "ENLARGER_S3_ENDPOINT": s3.endpoint,
        "ENLARGER_S3_ACCESS_KEY": ACCESS_KEY,
        "ENLARGER_S3_SECRET_KEY": SECRET_KEY,
    }


class Rows:
    """The truth, read past the service; and a record of every change of a job, kept by the database itself.

    Reading waits for the database while it is away. Times are of the database's clock.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._url = cluster.database_url
        self._connection: psycopg.Connection[DictRow] | None = None
        for statement in (
            "CREATE TABLE changes (number serial, at double precision, id text, state text, epoch int, starts int)",
            "CREATE FUNCTION record_change() RETURNS trigger AS $$ BEGIN INSERT INTO changes (at, id, state, epoch, "
            "starts) VALUES (extract(epoch FROM clock_timestamp()), new.id, new.state, new.epoch, "
            "new.compute_starts); RETURN NULL; END $$ LANGUAGE plpgsql",
            "CREATE TRIGGER record_changes AFTER UPDATE OF state, compute_starts ON jobs FOR EACH ROW "
            "EXECUTE FUNCTION record_change()",
        ):
            self.ask(statement)

    def ask(self, statement: str, *values: object) -> list[DictRow]:
        """The rows of a statement that changes nothing, or may be made twice."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = psycopg.connect(self._url, autocommit=True, row_factory=dict_row)
                cursor = self._connection.execute(statement.encode(), values)
                return cursor.fetchall() if cursor.description else []
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def now(self) -> float:
        """The database's clock, Unix seconds."""
        [row] = self.ask("SELECT extract(epoch FROM clock_timestamp())::float AS now")
        return float(row["now"])

    def job(self, job_id: str) -> DictRow:
        [row] = self.ask("SELECT * FROM jobs WHERE id = %s", job_id)
        return row

    def changes(self, job_id: str) -> list[DictRow]:
        """Every change of its state or of the count of its computations, oldest first: at, state, epoch, starts."""
        return self.ask("SELECT * FROM changes WHERE id = %s ORDER BY number", job_id)

    def ends(self, job_id: str) -> list[str]:
        """Every terminal state the job was ever given."""
        return [change["state"] for change in self.changes(job_id) if change["state"] in ENDED]

    def ended(self) -> set[str]:
        rows = self.ask("SELECT id FROM jobs WHERE state = ANY(%s)", list(ENDED))
        return {row["id"] for row in rows}

    def until(self, job_id: str, is_so: Callable[[DictRow], bool], what: str) -> DictRow:
        """The row, as soon as it is so."""

        def look() -> DictRow | None:
            row = self.job(job_id)
            return row if is_so(row) else None

        return eventually(look, f"job {job_id} to be {what}")

    def until_ended(self, job_id: str) -> DictRow:
        return self.until(job_id, lambda row: row["state"] in ENDED, "ended")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
