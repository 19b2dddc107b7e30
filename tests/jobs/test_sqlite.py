from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from enlarger.jobs.job import Job, Key, Output
from enlarger.jobs.queue import Entry
from enlarger.jobs.store import Store
from enlarger.jobs.tables import metadata
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio

NewJob = Callable[..., Job]
FIRST_VERSION = """
CREATE TABLE jobs (
    id VARCHAR(32) NOT NULL PRIMARY KEY, key_id VARCHAR(32) NOT NULL, model VARCHAR(200) NOT NULL,
    input JSON NOT NULL, options JSON NOT NULL, source_url TEXT NOT NULL, source_blob TEXT NOT NULL,
    state VARCHAR(16) NOT NULL, epoch INTEGER NOT NULL, compute_starts INTEGER NOT NULL,
    created_at FLOAT NOT NULL, started_at FLOAT, finished_at FLOAT, compute_ms BIGINT NOT NULL,
    outputs JSON NOT NULL, error_code VARCHAR(64) NOT NULL, error_message TEXT NOT NULL, report JSON NOT NULL);
CREATE INDEX jobs_state_created_at ON jobs (state, created_at);
CREATE TABLE keys (
    id VARCHAR(32) NOT NULL PRIMARY KEY, name VARCHAR(200) NOT NULL, secret_sha256 VARCHAR(64) NOT NULL UNIQUE,
    created_at FLOAT NOT NULL, revoked_at FLOAT);
CREATE TABLE meta (name VARCHAR(64) NOT NULL PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('0001');
INSERT INTO keys VALUES ('k', 'old', 'hash', 1.0, NULL);
INSERT INTO jobs VALUES ('j', 'k', 'm', '{}', '{}', 'u', '', 'created', 0, 0, 1.0, NULL, NULL, 0, '[]', '', '', '{}');
"""
OUTPUT = Output(blob_key="outputs/1/1/1.png", media_type="image/png", width=8, height=4, bytes=9, sha256="ab")


async def test_two_stores_on_one_file_both_write(store: Store, settings: Settings, new_job: NewJob) -> None:
    other = Store.open(settings.data_dir / "enlarger.sqlite")
    jobs = [new_job() for _ in range(20)]
    await asyncio.gather(*((store, other)[n % 2].add(job) for n, job in enumerate(jobs)))
    await other.close()
    assert sorted(await store.unfinished()) == sorted(Entry(job.id) for job in jobs)


async def test_commits_are_on_the_disk_before_they_are_acknowledged(store: Store) -> None:
    for setting, expected in (("synchronous", 2), ("journal_mode", "wal")):  # 2: FULL
        pragma = text(f"PRAGMA {setting}")
        assert await store.database.write(lambda c, p=pragma: c.execute(p).scalar_one()) == expected


async def test_rows_of_the_first_version_are_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "enlarger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_VERSION)
    connection.close()
    store = Store.open(path)
    await store.migrate()
    [key] = await store.keys()
    assert key == Key(id="k", name="old", created_at=1.0)
    job = await store.get("j")
    assert job == Job(id="j", key_id="k", model="m", input={}, options={}, source_url="u", created_at=1.0)
    assert await store.unfinished() == [Entry("j")]
    assert await store.claim(Entry("j"), 2.0)
    await store.close()


async def test_two_servers_may_migrate_at_once(tmp_path: Path) -> None:
    stores = [Store.open(tmp_path / "new" / "enlarger.sqlite") for _ in range(2)]
    await asyncio.gather(*(store.migrate() for store in stores))
    assert await stores[0].keys() == []
    for store in stores:
        await store.close()


async def test_failed_migration_leaves_no_half_made_tables(tmp_path: Path) -> None:
    path = tmp_path / "enlarger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE keys (mine TEXT)")
    connection.close()
    store = Store.open(path)
    with pytest.raises(OperationalError, match="already exists"):
        await store.migrate()
    await store.close()
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("keys",)]
    connection.close()


async def test_migrations_make_exactly_the_tables_of_the_code(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "enlarger.sqlite")
    await store.migrate()
    await store.close()
    engine = create_engine(f"sqlite:///{tmp_path / 'enlarger.sqlite'}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
