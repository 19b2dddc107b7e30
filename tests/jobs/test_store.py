from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from enlarger.jobs.job import TRANSITIONS, Job, Key, Output, State
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


async def test_job_comes_back_as_it_was_added(store: Store, new_job: NewJob) -> None:
    job = new_job(
        input={"image": "ü", "scale": 2.5}, source_url="http://a/b", outputs=(OUTPUT,), report={"a": [1]}
    )
    await store.add(job)
    assert await store.get(job.id) == job


async def test_job_of_another_key_is_not_found(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    assert await store.get(job.id, job.key_id) == job
    assert await store.get(job.id, "b" * 32) is None


async def test_claim_raises_the_epoch_and_keeps_the_first_start(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    first, second = await store.claim(Entry(job.id), 10.0), await store.claim(Entry(job.id), 20.0)
    taken = replace(job, state=State.PROCESSING, ticket=job.id, started_at=10.0)
    assert (first, second) == (replace(taken, epoch=1), replace(taken, epoch=2))


@pytest.mark.parametrize("state", State)
async def test_only_unfinished_jobs_can_be_claimed(store: Store, new_job: NewJob, state: State) -> None:
    job = new_job(state=state)
    await store.add(job)
    claimed = await store.claim(Entry(job.id), 1.0)
    assert (claimed is not None) == (State.PROCESSING in TRANSITIONS[state])


async def test_any_ticket_draws_a_waiting_job_and_none_when_there_is_none(
    store: Store, new_job: NewJob
) -> None:
    assert await store.claim(Entry("f" * 32), 1.0) is None
    job = new_job()
    await store.add(job)
    drawn = await store.claim(Entry("f" * 32), 1.0)
    assert drawn
    assert (drawn.id, drawn.ticket) == (job.id, "f" * 32)
    assert await store.claim(Entry(job.id), 2.0) is None
    assert await store.claim(Entry("f" * 32), 2.0) == replace(drawn, epoch=2)


async def test_finish_records_the_result(store: Store, new_job: NewJob) -> None:
    await store.add(new_job())
    [entry] = await store.unfinished()
    claimed = await store.claim(entry, 1.0)
    assert claimed
    assert await store.finish(claimed, [OUTPUT], {"tiles": 3}, 250, 2.0)
    assert await store.get(entry.ticket) == replace(
        claimed,
        state=State.COMPLETED,
        outputs=(OUTPUT,),
        report={"tiles": 3},
        compute_ms=250,
        progress=1.0,
        finished_at=2.0,
    )


async def test_older_claim_can_change_nothing(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    older, newer = await store.claim(Entry(job.id), 1.0), await store.claim(Entry(job.id), 2.0)
    assert older
    assert newer
    assert await store.start_compute(older) == 0
    assert not await store.set_source_blob(older, "inputs/x")
    assert not await store.finish(older, [OUTPUT], {}, 1, 3.0)
    assert not await store.fail(older, "timed_out", "late", 3.0)
    assert await store.get(job.id) == newer


async def test_ended_job_cannot_end_again(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    claimed = await store.claim(Entry(job.id), 1.0)
    assert claimed
    assert await store.fail(claimed, "timed_out", "too slow", 2.0)
    assert not await store.finish(claimed, [OUTPUT], {}, 1, 3.0)
    ended = await store.get(job.id)
    assert ended
    assert (ended.state, ended.error_code, ended.error_message) == (State.FAILED, "timed_out", "too slow")


async def test_compute_starts_are_counted_over_claims(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    counts: list[int] = []
    for _ in range(3):
        claimed = await store.claim(Entry(job.id), 1.0)
        assert claimed
        counts.append(await store.start_compute(claimed))
    assert counts == [1, 2, 3]


async def test_of_many_claims_at_once_each_gets_its_own_epoch(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    claims = await asyncio.gather(*(store.claim(Entry(job.id), 1.0) for _ in range(20)))
    assert sorted(claim.epoch for claim in claims if claim) == list(range(1, 21))


async def test_two_stores_on_one_file_both_write(store: Store, settings: Settings, new_job: NewJob) -> None:
    other = Store.open(settings.data_dir / "enlarger.sqlite")
    jobs = [new_job() for _ in range(20)]
    await asyncio.gather(*((store, other)[n % 2].add(job) for n, job in enumerate(jobs)))
    await other.close()
    assert sorted(await store.unfinished()) == sorted(Entry(job.id) for job in jobs)


async def test_unfinished_jobs_are_listed_oldest_first(store: Store, new_job: NewJob) -> None:
    late, early = new_job(created_at=2.0), new_job(created_at=1.0, state=State.PROCESSING)
    for job in (late, early, new_job(state=State.COMPLETED), new_job(state=State.FAILED)):
        await store.add(job)
    assert await store.unfinished() == [Entry(early.id), Entry(late.id)]
    assert await store.count_unfinished() == 2


async def test_cancelled_write_leaves_the_store_usable(store: Store, new_job: NewJob) -> None:
    for delay in (0.0, 0.0005, 0.002):
        writing = asyncio.create_task(store.add(new_job()))
        await asyncio.sleep(delay)
        writing.cancel()
        await asyncio.wait([writing])
    job = new_job()
    await store.add(job)
    assert await store.get(job.id) == job


async def test_commits_are_on_the_disk_before_they_are_acknowledged(store: Store) -> None:
    for setting, expected in (("synchronous", 2), ("journal_mode", "wal")):  # 2: FULL
        pragma = text(f"PRAGMA {setting}")
        assert await store.database.write(lambda c, p=pragma: c.execute(p).scalar_one()) == expected


async def test_migrating_again_keeps_the_rows(store: Store, new_job: NewJob) -> None:
    job = new_job()
    await store.add(job)
    await store.migrate()
    assert await store.get(job.id) == job


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


async def test_key_is_found_by_the_hash_of_its_secret_until_revoked(store: Store, key: Key) -> None:
    await store.add_key(key, "c0ffee")
    assert await store.key_by_hash("c0ffee") == key
    assert await store.key_by_hash("decaf") is None
    assert await store.revoke_key(key.id, 5.0)
    assert not await store.revoke_key(key.id, 6.0)
    assert await store.keys() == [replace(key, revoked_at=5.0)]


async def test_secret_is_made_once(store: Store) -> None:
    assert await store.secret("links", b"first") == b"first"
    assert await store.secret("links", b"second") == b"first"
    assert await store.secret("other", b"second") == b"second"
