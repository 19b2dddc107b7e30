"""The line for the one writing connection: who shares a transaction, who is undone alone, who is turned away."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from enlarger.errors import Overloaded
from enlarger.jobs.database import Database

pytestmark = pytest.mark.anyio


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncGenerator[Database]:
    database = Database.open(tmp_path / "test.db")
    await database.write(lambda c: c.execute(text("CREATE TABLE words (word TEXT UNIQUE)")))
    yield database
    await database.close()


def adding(word: str) -> Callable[[Connection], str]:
    def add(connection: Connection) -> str:
        connection.execute(text("INSERT INTO words VALUES (:word)"), {"word": word})
        return word

    return add


def failing(word: str) -> Callable[[Connection], str]:
    def fail(connection: Connection) -> str:
        adding(word)(connection)
        raise ValueError(word)

    return fail


def words(path: Path) -> set[str]:
    """What another process sees."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT word FROM words")}


@contextlib.contextmanager
def writing_elsewhere(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process is in the middle of a write."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def commits_of(database: Database) -> list[Any]:
    commits: list[Any] = []
    event.listen(database.writer, "commit", commits.append)
    return commits


async def test_writes_that_wait_together_share_one_commit(opened: Database, tmp_path: Path) -> None:
    commits = commits_of(opened)
    written = await asyncio.gather(*(opened.write(adding(f"{n}")) for n in range(20)))
    assert written == [f"{n}" for n in range(20)]
    assert words(tmp_path / "test.db") == set(written)
    assert len(commits) == 1


async def test_write_that_fails_is_undone_alone(opened: Database, tmp_path: Path) -> None:
    commits = commits_of(opened)
    work = [adding("a"), failing("b"), adding("c"), adding("a"), adding("d")]
    a, b, c, again, d = await asyncio.gather(*map(opened.write, work), return_exceptions=True)
    assert (a, c, d) == ("a", "c", "d")
    assert isinstance(b, ValueError)
    assert "UNIQUE constraint failed" in str(again)
    assert words(tmp_path / "test.db") == {"a", "c", "d"}
    assert len(commits) == 1


async def test_nothing_is_acknowledged_when_the_commit_fails(opened: Database, tmp_path: Path) -> None:
    def forbid(connection: Connection) -> None:
        raise OperationalError("COMMIT", None, Exception("disk I/O error"))

    event.listen(opened.writer, "commit", forbid)
    told = await asyncio.gather(*(opened.write(adding(w)) for w in "ab"), return_exceptions=True)
    assert all(isinstance(each, OperationalError) for each in told)
    assert words(tmp_path / "test.db") == set()
    event.remove(opened.writer, "commit", forbid)
    assert await opened.write(adding("a")) == "a"


async def test_transaction_that_ends_early_fails_for_everybody_in_it(
    opened: Database, tmp_path: Path
) -> None:
    def roll_back(connection: Connection) -> None:
        """As SQLite does by itself when the disk is full."""
        connection.exec_driver_sql("ROLLBACK")
        raise ValueError("full")

    told = await asyncio.gather(
        opened.write(adding("a")), opened.write(roll_back), opened.write(adding("b")), return_exceptions=True
    )
    assert all(isinstance(each, OperationalError) for each in told)
    assert words(tmp_path / "test.db") == set()
    assert await opened.write(adding("b")) == "b"


async def test_write_waits_for_another_process_within_its_patience(opened: Database, tmp_path: Path) -> None:
    with writing_elsewhere(tmp_path / "test.db") as elsewhere:
        patient = asyncio.create_task(opened.write(adding("patient"), patience_seconds=60))
        with pytest.raises(Overloaded, match="busy with other writes") as refusal:
            await opened.write(adding("hasty"), patience_seconds=0.2)
        assert refusal.value.retry_after_seconds > 0
        assert not patient.done()
        elsewhere.execute("ROLLBACK")
    assert await patient == "patient"
    assert words(tmp_path / "test.db") == {"patient"}


async def test_write_whose_caller_leaves_before_its_turn_is_not_made(
    opened: Database, tmp_path: Path
) -> None:
    go_on, at_work = threading.Event(), threading.Event()

    def slow(connection: Connection) -> str:
        at_work.set()
        assert go_on.wait(60)
        return adding("slow")(connection)

    working = asyncio.create_task(opened.write(slow))
    assert await asyncio.to_thread(at_work.wait, 60)
    leaving, staying = (asyncio.create_task(opened.write(adding(w))) for w in ("leaving", "staying"))
    await asyncio.sleep(0)
    leaving.cancel()
    go_on.set()
    assert await asyncio.gather(working, staying) == ["slow", "staying"]
    assert words(tmp_path / "test.db") == {"slow", "staying"}


async def test_reads_go_on_while_a_write_waits(opened: Database, tmp_path: Path) -> None:
    with writing_elsewhere(tmp_path / "test.db") as elsewhere:
        waiting = asyncio.create_task(opened.write(adding("late"), patience_seconds=60))
        count = text("SELECT count(*) FROM words")
        assert await opened.read(lambda c: c.execute(count).scalar_one()) == 0
        elsewhere.execute("ROLLBACK")
    assert await waiting == "late"
    assert await opened.read(lambda c: c.execute(count).scalar_one()) == 1


async def test_reader_cannot_write(opened: Database) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        await opened.read(adding("word"))
