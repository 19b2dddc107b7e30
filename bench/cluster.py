"""A service on many machines, all on this one: a real PostgreSQL that counts, and processes of `enlarger`.

API and worker come to the database as different users, so that it tells apart what each of them asks.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import psycopg

import record

# The tests are no package that is installed.
sys.path.insert(0, str(record.ROOT))

from tests.services.postgres import Postgres

KEY = "the first key of the bench"
USERS = ("api", "worker", "bystander")
"""Of the database."""
START_SECONDS = 90
UNLIMITED = {"ENLARGER_MAX_BACKLOG_JOBS": "1000000000", "ENLARGER_MAX_BACKLOG_SECONDS": "1e12"}
_MOMENTS = """
CREATE TABLE moments (id text, key_id text, state text, starts integer);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO moments VALUES (NEW.id, NEW.key_id, NEW.state, NEW.compute_starts); RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OF state, compute_starts ON jobs FOR EACH ROW EXECUTE FUNCTION note();
"""


@dataclass(frozen=True)
class Program:
    """A running `enlarger api` or `enlarger worker`."""

    role: str
    url: str
    process: psutil.Process

    @property
    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def metric(self, name: str) -> float:
        """The sum of a metric of the process over its labels."""
        text = httpx2.get(f"{self.url}/metrics", trust_env=False).raise_for_status().text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


class Service:
    """One database of the cluster, a folder that all processes share, and the processes."""

    def __init__(self, postgres: Postgres, database: str, folder: Path, stack: contextlib.ExitStack) -> None:
        self._postgres = postgres
        self._name = database
        self._folder = folder
        self._stack = stack
        self._started = 0
        self.rows = stack.enter_context(psycopg.connect(postgres.url(database), autocommit=True))
        self.programs: list[Program] = []

    def start(self, role: str, user: str = "", **settings: str) -> Program:
        """Start a process on a free port, as a user of the database; it is ready when this returns."""
        self._started += 1
        folder = self._folder / f"{role}-{self._started}"
        folder.mkdir(parents=True)
        own = {
            "ENLARGER_DATABASE_URL": self.url(user or role),
            "ENLARGER_BLOB_URL": f"file://{self._folder / 'blobs'}",
            "ENLARGER_DATA_DIR": str(folder / "data"),
            "ENLARGER_FIRST_KEY": KEY,
            "ENLARGER_PORT": "0",
            **UNLIMITED,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "enlarger", role],
            env=environment(**{**own, **settings}),
            stdout=(folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        self._stack.callback(_end, process)
        program = Program(role, _printed_url(process, folder / "log"), psutil.Process(process.pid))
        self.programs.append(program)
        return program

    def another_key(self) -> str:
        """The secret of a new key."""
        return enlarger(self.url("api"), self._folder / "keys", "keys", "create", "another").split()[-1]

    def url(self, user: str) -> str:
        return self._postgres.url(self._name).replace("//enlarger@", f"//{user}@")

    def one(self, query: str, *values: object) -> Any:
        """The only value of a query."""
        found = self.rows.execute(query.encode(), values or None).fetchone()
        assert found is not None
        return found[0]

    def ended(self) -> int:
        return int(self.one("SELECT count(*) FROM jobs WHERE state NOT IN ('created', 'processing')"))

    def until_ended(self, count: int, *, at_most_seconds: float = 300) -> None:
        deadline = time.monotonic() + at_most_seconds
        while self.ended() < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.ended()} of {count} jobs ended in {at_most_seconds:g} s")
            time.sleep(0.02)

    def note_moments(self) -> None:
        """From now on the database keeps every change of a job with the time of its commit."""
        self.rows.execute(_MOMENTS.encode())

    def moments(self) -> list[tuple[str, str, str, int, float]]:
        """Job, key, state, compute starts, and the Unix seconds of the commit by the database's clock."""
        query = b"SELECT *, extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM moments"
        return [(*row[:4], float(row[4])) for row in self.rows.execute(query)]

    def forget_statements(self) -> None:
        self.rows.execute("SELECT pg_stat_statements_reset()")

    def statements(self, user: str) -> Counter[str]:
        """What this user has asked since `forget_statements`, by statement."""
        query = b"""SELECT query, calls FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid
            JOIN pg_database d ON d.oid = s.dbid WHERE r.rolname = %s AND d.datname = %s"""
        counted: Counter[str] = Counter()
        for text, calls in self.rows.execute(query, (user, self._name)):
            counted[" ".join(text.split())] += calls
        return counted

    def connections(self, user: str) -> int:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND datname = %s"
        return int(self.one(query, user, self._name))

    def cpu_seconds(self) -> dict[str, float]:
        """Used so far by each kind of process, and by this one."""
        database = psutil.Process(self._postgres.pid)
        trees = {"postgres": [database, *database.children()]}
        for program in self.programs:
            trees.setdefault(program.role, []).extend(program.tree)
        used = {name: sum(sum(one.cpu_times()[:2]) for one in tree) for name, tree in trees.items()}
        return {**used, "bench": time.process_time()}


class Cluster:
    """A PostgreSQL whose databases are copies of one that is migrated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.postgres = Postgres()
        self._services = 0
        for name, value in (
            ("shared_preload_libraries", "pg_stat_statements"),
            ("track_commit_timestamp", "on"),
        ):
            self.postgres.psql("postgres", f"ALTER SYSTEM SET {name} = '{value}'")
        self.postgres.stop()
        self.postgres.start()
        for role in USERS:
            self.postgres.psql("postgres", f"CREATE ROLE {role} SUPERUSER LOGIN")
        url = self.postgres.create_database()
        self._template = url.rpartition("/")[2]
        enlarger(url, folder / "migrate", "migrate")
        self.postgres.psql(self._template, "CREATE EXTENSION pg_stat_statements")

    @contextlib.contextmanager
    def service(self) -> Iterator[Service]:
        """A service of its own, with one key and no process yet; all end at the exit."""
        self._services += 1
        url = self.postgres.create_database(self._template)
        with contextlib.ExitStack() as stack:
            name = url.rpartition("/")[2]
            yield Service(self.postgres, name, self.folder / str(self._services), stack)


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory() as folder:
        made = Cluster(Path(folder))
        try:
            yield made
        finally:
            made.postgres.close()


def enlarger(database_url: str, folder: Path, *words: str) -> str:
    """What a command prints."""
    settings = {"ENLARGER_DATABASE_URL": database_url, "ENLARGER_DATA_DIR": str(folder)}
    command = [sys.executable, "-m", "enlarger", *words]
    done = subprocess.run(command, env=environment(**settings), check=True, capture_output=True, text=True)
    return done.stdout


def environment(**settings: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ENLARGER_")}
    return {**clean, **settings}


def _printed_url(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"is ready: (http://\S+:\d+)/", log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"it did not start: {log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(START_SECONDS)
