"""A service whose database stands behind pgbouncer, which gives each transaction another connection."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
from pgqueuer.adapters.persistence.schema_plan import advisory_key
from pgqueuer.domain.settings import DBSettings

from ..services.pgbouncer import PgBouncer
from ..services.postgres import Postgres
from .conftest import DEADLINE_SECONDS, eventually, inline, png

KEY = "the first key of this test"
HEADERS = {"Authorization": f"Bearer {KEY}"}
API = "/api/v3"
Settings = dict[str, str]


@pytest.fixture
def pgbouncer(postgres: Postgres) -> Iterator[PgBouncer]:
    # One connection for all: what a session leaves behind, the next one finds.
    pooler = PgBouncer(postgres, connections=1)
    yield pooler
    pooler.close()


@pytest.fixture
def pooled(pgbouncer: PgBouncer, database_url: str, tmp_path: Path) -> Settings:
    """Settings of every process that the page on deployment names."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ENLARGER_")}
    return {
        **clean,
        "ENLARGER_DATABASE_URL": pgbouncer.url(database_url),
        "ENLARGER_DATABASE_LISTEN_URL": database_url,
        "ENLARGER_DATABASE_PREPARES": "false",
        "ENLARGER_BLOB_URL": f"file://{tmp_path / 'blobs'}",
        "ENLARGER_DATA_DIR": str(tmp_path / "data"),
        "ENLARGER_FIRST_KEY": KEY,
        "ENLARGER_PORT": "0",
    }


def command(settings: Settings, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "enlarger", *words],
        env=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def printed(settings: Settings, *words: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    process = command(settings, *words)
    output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    return process.returncode, output


@contextlib.contextmanager
def running(settings: Settings, role: str, folder: Path) -> Iterator[str]:
    """The address of a process of a role; it ends well at the exit."""
    log = folder / f"{role}.log"
    own = {"ENLARGER_DATA_DIR": str(folder / role)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "enlarger", role],
            env={**settings, **own},
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def address() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"is ready: (http://\S+:\d+)/", log.read_text())

    try:
        yield eventually(address, f"the {role}")[1]
    except BaseException:
        process.kill()
        raise
    process.terminate()
    assert process.wait(DEADLINE_SECONDS) == 0, log.read_text()


def ended(url: str, job_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        answer = requests.get(f"{url}{API}/predictions/{job_id}/result", headers=HEADERS, timeout=60)
        data: dict[str, Any] = answer.json()["data"]
        return data if data["status"] not in ("created", "processing") else None

    return eventually(look, f"the end of job {job_id}")


def test_job_runs_from_end_to_end_behind_a_pooler(pooled: Settings, tmp_path: Path) -> None:
    assert printed(pooled, "migrate")[0] == 0
    with running(pooled, "api", tmp_path) as url, running(pooled, "worker", tmp_path):
        # More submits than psycopg needs to see a statement before it would prepare it.
        for side in range(8, 16):
            body = {"image": inline(png(side, side)), "model": "realesr-animevideov3"}
            answer = requests.post(
                f"{url}{API}/wavespeed-ai/real-esrgan", json=body, headers=HEADERS, timeout=60
            )
            prediction = ended(url, answer.json()["data"]["id"])
            assert (prediction["status"], prediction["error"]) == ("completed", "")
        report = requests.get(
            f"{url}{API}/predictions/{prediction['id']}/report", headers=HEADERS, timeout=60
        )
        result = requests.get(prediction["outputs"][0], timeout=60).content
        [output] = report.json()["data"]["outputs"]
        assert hashlib.sha256(result).hexdigest() == output["sha256"]
        status, found = printed(pooled, "check")
        assert (status, re.findall(r"BAD.*", found)) == (0, [])
        assert "1 of 1 idle" in found


def test_check_names_the_remedy_when_what_is_notified_does_not_pass_the_pooler(pooled: Settings) -> None:
    del pooled["ENLARGER_DATABASE_LISTEN_URL"]
    status, found = printed(pooled, "check")
    assert status == 1
    [news] = re.findall(r"BAD +news +(.*)", found)
    assert "database_listen_url" in news


def test_migration_waits_for_one_that_came_first_even_if_the_pooler_gives_both_one_connection(
    pooled: Settings, postgres: Postgres
) -> None:
    direct = pooled["ENLARGER_DATABASE_LISTEN_URL"]
    database = direct.rpartition("/")[2]
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    first = advisory_key(DBSettings())
    with psycopg.connect(pooled["ENLARGER_DATABASE_URL"], autocommit=True, prepare_threshold=None) as other:
        # The lock of a session, taken through the pooler, is held by the connection that everybody gets.
        other.execute("SELECT pg_advisory_lock(%s)", [first])
        second = command(pooled, "migrate")

        def is_waiting() -> bool:
            assert second.poll() is None, second.communicate()[0]
            return postgres.psql(database, waits) == "1"

        eventually(is_waiting, "the second migration to wait")
        other.execute("SELECT pg_advisory_unlock(%s)", [first])
    assert second.communicate(timeout=DEADLINE_SECONDS)[0] == "the tables are up to date\n"
