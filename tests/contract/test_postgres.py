"""What only PostgreSQL can go through: crashes, cut connections, deadlocks, a clock of its own, news for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, text

from enlarger.check import findings
from enlarger.drivers import migrate, open_database, opened_store
from enlarger.engine.options import Options
from enlarger.errors import FeatureUnavailable, InvalidOption, Overloaded
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.changes import Change, Changes, StatusChanged, TileDone
from enlarger.jobs.database import Database
from enlarger.jobs.database_clock import DatabaseClock
from enlarger.jobs.job import Key
from enlarger.jobs.postgres import open_postgres
from enlarger.jobs.postgres_driver import Listener, PostgresDriver
from enlarger.jobs.postgres_queue import open_postgres_queue, trim_log, without_entry
from enlarger.jobs.queue import Entry
from enlarger.jobs.relay import Relay, packed
from enlarger.jobs.service import Service
from enlarger.jobs.tables import metadata
from enlarger.settings import Settings

from ..services.postgres import Postgres
from ..services.proxy import Proxy
from .conftest import TERMS

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 30
TILE = TileDone(left=0, top=1, width=2, height=3, done=4, total=5, fraction=0.8)


@pytest.fixture
def url(postgres: Postgres, migrated: str) -> str:
    return postgres.create_database(migrated)


@pytest.fixture
async def database(url: str) -> AsyncGenerator[Database]:
    database = open_postgres(url)
    yield database
    await database.close()


def through(proxy: Proxy, url: str) -> str:
    """The same database, reached through the proxy."""
    host, _, name = url.rpartition("/")
    return f"{host.rpartition(':')[0]}:{proxy.port}/{name}"


def add_secret(name: str) -> object:
    insert = text("INSERT INTO meta VALUES (:name, 'x')")
    return lambda connection: connection.execute(insert, {"name": name})


async def secrets(database: Database) -> list[str]:
    query = text("SELECT name FROM meta WHERE name LIKE 't%' ORDER BY name")
    return await database.read(lambda connection: list(connection.execute(query).scalars()))


async def test_database_that_is_away_is_said_at_once_and_heals_by_itself(
    postgres: Postgres, database: Database
) -> None:
    assert await secrets(database) == []
    postgres.crash()
    with pytest.raises(Overloaded, match="away"):
        await secrets(database)
    with pytest.raises(Overloaded, match="away"):
        await database.write(add_secret("t1"), patience_seconds=0.1)  # type: ignore[arg-type]
    postgres.start()
    # Each connection that was open finds out by itself; a read may be the one to do so.
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                assert await secrets(database) == []
                break
            except Overloaded:
                await asyncio.sleep(0.05)
    await database.write(add_secret("t2"))  # type: ignore[arg-type]
    assert await secrets(database) == ["t2"]


async def test_patient_write_outlives_a_crash_and_is_made_once(
    postgres: Postgres, database: Database
) -> None:
    await database.write(add_secret("t1"))  # type: ignore[arg-type]
    postgres.crash()
    writing = asyncio.create_task(database.write(add_secret("t2"), patience_seconds=WAIT_SECONDS))  # type: ignore[arg-type]
    await asyncio.sleep(0.2)
    await asyncio.to_thread(postgres.start)
    await asyncio.wait_for(writing, WAIT_SECONDS)
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                assert await secrets(database) == ["t1", "t2"]
                return
            except Overloaded:
                await asyncio.sleep(0.05)


LOSES_THE_ANSWER = """
CREATE FUNCTION go() RETURNS trigger AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$
    LANGUAGE plpgsql;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION go();
"""
"""The server ends the connection in the middle of the commit: the client does not learn what became of it."""


async def test_picture_of_a_submit_whose_commit_got_no_answer_is_kept(
    database: Database, url: str, tmp_path: Path, clock: Any, key: Key, new_id: Callable[[], str]
) -> None:
    await database.write(lambda connection: connection.execute(text(LOSES_THE_ANSWER)))
    settings = Settings(data_dir=tmp_path, database_url=SecretStr(url), min_free_bytes=0)
    blobs = LocalBlobs(tmp_path / "blobs")
    async with opened_store(settings) as store:
        await store.add_key(key, "hash")
        service = Service(
            store=store, blobs=blobs, settings=settings, clock=clock, new_id=new_id, link_secret=b"s" * 32
        )
        with pytest.raises(Overloaded) as told:
            await service.submit(key, model="m", image="eHg=", options=Options(), echo={})
    assert told.value.may_have_happened
    assert len([blob async for page in blobs.pages("inputs") for blob in page]) == 1


async def test_deadlock_is_made_again_by_the_one_that_lost(database: Database) -> None:
    for name in ("t1", "t2"):
        await database.write(add_secret(name))  # type: ignore[arg-type]
    lock = text("UPDATE meta SET value = value WHERE name = :name")
    met = asyncio.Barrier(2)
    loop, tries = asyncio.get_running_loop(), 0

    def crosswise(first: str, second: str) -> object:
        def work(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            connection.execute(lock, {"name": first})
            if tries <= 2:
                asyncio.run_coroutine_threadsafe(met.wait(), loop).result(WAIT_SECONDS)
            connection.execute(lock, {"name": second})

        return work

    await asyncio.gather(
        database.write(crosswise("t1", "t2"), patience_seconds=WAIT_SECONDS),  # type: ignore[arg-type]
        database.write(crosswise("t2", "t1"), patience_seconds=WAIT_SECONDS),  # type: ignore[arg-type]
    )
    assert tries == 3


async def test_text_that_cannot_be_stored_is_refused_in_words(database: Database) -> None:
    with pytest.raises(InvalidOption, match="cannot be stored"):
        await database.write(add_secret("t\0"))  # type: ignore[arg-type]
    long = "t" * 200
    with pytest.raises(InvalidOption, match="cannot be stored"):
        await database.write(add_secret(long))  # type: ignore[arg-type]


async def test_queue_goes_on_by_itself_after_a_crash_and_an_entry_in_hand_stays_there(
    postgres: Postgres, url: str, database: Database
) -> None:
    handed: list[str] = []
    started, gate, later = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run_job(entry: Entry) -> None:
        handed.append(entry.ticket)
        if entry.ticket == "long":
            started.set()
            await gate.wait()
        else:
            later.set()

    async with open_postgres_queue(url, TERMS) as queue:
        await queue.enqueue([Entry("long")])
        running = asyncio.create_task(queue.run(run_job))
        await asyncio.wait_for(started.wait(), WAIT_SECONDS)
        await asyncio.to_thread(postgres.crash)
        await asyncio.to_thread(postgres.start)
        await queue.enqueue([Entry("later")])
        await asyncio.wait_for(later.wait(), WAIT_SECONDS)
        gate.set()
        await queue.stop(WAIT_SECONDS)
        await asyncio.wait_for(running, WAIT_SECONDS)
    assert handed == ["long", "later"]
    left = text("SELECT count(*) FROM pgqueuer")
    assert await database.read(lambda connection: connection.execute(left).scalar_one()) == 0


async def test_entry_of_a_silent_worker_falls_to_another_and_one_handed_back_does_at_once(url: str) -> None:
    terms = type(TERMS)(slots=2, most_aside=0, lease_seconds=2, look_seconds=0.2, retry_seconds=0.01)
    hung, taken = asyncio.Event(), asyncio.Queue[str]()

    async def hang(_: Entry) -> None:
        hung.set()
        await asyncio.Event().wait()

    async def take(entry: Entry) -> None:
        await taken.put(entry.ticket)

    async with open_postgres_queue(url, terms) as first, open_postgres_queue(url, terms) as second:
        await first.enqueue([Entry("a")])
        hanging = asyncio.create_task(first.run(hang))
        await asyncio.wait_for(hung.wait(), WAIT_SECONDS)
        taking = asyncio.create_task(second.run(take))
        await first.stop(0)
        await asyncio.wait_for(hanging, WAIT_SECONDS)
        assert await asyncio.wait_for(taken.get(), WAIT_SECONDS) == "a"
        await second.stop(0)
        await asyncio.wait_for(taking, WAIT_SECONDS)


async def test_unfinished_job_whose_entry_is_gone_is_found(
    url: str, database: Database, tmp_path: Path, new_job: object
) -> None:
    settings = Settings(data_dir=tmp_path, database_url=SecretStr(url))
    async with open_postgres_queue(url, TERMS) as queue, opened_store(settings, queue) as store:
        jobs = [new_job(created_at=float(n), route="gpu.small") for n in range(3)]  # type: ignore[operator]
        for job in jobs:
            await store.add(job)
        await queue.enqueue([Entry(jobs[1].id, "gpu.small")])
        assert await without_entry(database, 10) == [Entry(jobs[n].id, "gpu.small") for n in (0, 2)]
        assert await without_entry(database, 1) == [Entry(jobs[0].id, "gpu.small")]


async def test_log_of_the_queue_is_forgotten_after_a_day(url: str, database: Database) -> None:
    async def run_job(_: Entry) -> None:
        done.set()

    done = asyncio.Event()
    async with open_postgres_queue(url, TERMS) as queue:
        await queue.enqueue([Entry("a")])
        running = asyncio.create_task(queue.run(run_job))
        await asyncio.wait_for(done.wait(), WAIT_SECONDS)
        await queue.stop(5)
        await running
    assert await trim_log(database) == 0
    older = text("UPDATE pgqueuer_log SET created = created - interval '25 hours'")
    lines = await database.write(lambda connection: connection.execute(older).rowcount)
    assert lines > 0
    assert await trim_log(database) == lines


async def test_clock_is_that_of_the_database_however_wrong_the_machine(database: Database) -> None:
    since_boot = 12_345.0
    clock = DatabaseClock(database, lambda: since_boot)
    await clock.look()
    now = text("SELECT extract(epoch FROM clock_timestamp())")
    told = float(await database.read(lambda connection: connection.execute(now).scalar_one()))
    assert abs(clock() - told) < 5
    before = clock()
    since_boot += 100
    assert clock() == before + 100


@asynccontextmanager
async def related(
    database: Database, url: str, origin: str, heard: list[str], *, hears_tiles: bool = True
) -> AsyncGenerator[Changes]:
    changes = Changes()
    relay = Relay(
        database, Listener(url), changes, origin=origin, heard=heard.append, hears_tiles=hears_tiles
    )
    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(WAIT_SECONDS):
        while changes.relay is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    try:
        yield changes
    finally:
        await relay.stop()
        await asyncio.wait_for(running, WAIT_SECONDS)


async def test_news_reach_other_processes_and_do_not_come_back(database: Database, url: str) -> None:
    heard: list[str] = []
    async with related(database, url, "a", []) as here, related(database, url, "b", heard) as there:
        with here.listening("job") as own, there.listening("job") as others:
            sent: list[Change] = [TILE, StatusChanged()]
            for change in sent:
                here.publish("job", change)
            got = [await asyncio.wait_for(others.get(), WAIT_SECONDS) for _ in sent]
            there.publish("job", StatusChanged())
            own_news = [await asyncio.wait_for(own.get(), WAIT_SECONDS) for _ in range(3)]
            assert others.get_nowait() == StatusChanged()
    assert got == sent
    assert own_news == [*sent, StatusChanged()]
    assert heard == ["job"]
    assert own.empty()


async def test_worker_hears_of_jobs_and_not_of_tiles(database: Database, url: str) -> None:
    api, worker = (
        related(database, url, "a", []),
        related(database, url, "w", [], hears_tiles=False),
    )
    async with api as here, worker as there, related(database, url, "b", []) as third:
        with there.listening("job") as others, here.listening("job") as watched:
            for change in (TILE, TILE, StatusChanged()):
                third.publish("job", change)
            assert await asyncio.wait_for(others.get(), WAIT_SECONDS) == StatusChanged()
            assert [await asyncio.wait_for(watched.get(), WAIT_SECONDS) for _ in range(3)] == [
                TILE,
                TILE,
                StatusChanged(),
            ]
            assert others.empty()


async def test_relay_hears_again_after_a_crash(postgres: Postgres, database: Database, url: str) -> None:
    async with related(database, url, "a", []) as here, related(database, url, "b", []) as there:
        await asyncio.to_thread(postgres.crash)
        await asyncio.to_thread(postgres.start)
        with there.listening("job") as others:
            async with asyncio.timeout(WAIT_SECONDS):
                while others.empty():
                    here.publish("job", StatusChanged())
                    await asyncio.sleep(0.1)


def test_message_is_never_longer_than_the_server_takes() -> None:
    news = [[f"{n:032x}", [n, n, n, n, n, n, 0.123456789]] for n in range(1000)]
    messages = packed("o" * 32, news)
    assert max(len(message.encode()) for message in messages) < 8000
    assert sum(message.count('"0') for message in messages) == 1000


async def test_driver_notices_a_cut_cable(
    url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(("127.0.0.1", postgres.port))
    try:
        async with PostgresDriver(through(proxy, url)) as driver:
            assert await driver.fetch("SELECT 1 AS one") == [{"one": 1}]
            proxy.reset_all()
            assert await asyncio.wait_for(driver.fetch("SELECT $1::int AS n", 2), WAIT_SECONDS) == [{"n": 2}]
    finally:
        proxy.close()


async def test_error_in_a_statement_is_raised_and_not_tried_for_ever(url: str) -> None:
    async with PostgresDriver(url) as driver:
        with pytest.raises(Exception, match="nothing_here"):
            await asyncio.wait_for(driver.fetch("SELECT * FROM nothing_here"), WAIT_SECONDS)


# Migrations


async def test_many_may_migrate_at_once_and_again(database_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=SecretStr(database_url))
    await asyncio.gather(*(migrate(settings) for _ in range(4)))
    await migrate(settings)
    async with opened_store(settings) as store:
        assert await store.unfinished() == []
        assert (
            await store.database.read(
                lambda connection: compare_metadata(
                    MigrationContext.configure(
                        connection,
                        opts={"include_object": lambda _, name, kind, *__: "pgqueuer" not in str(name)},
                    ),
                    metadata,
                )
            )
            == []
        )


async def test_database_that_is_not_migrated_is_refused_with_the_command(
    database_url: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidOption, match="enlarger migrate"):
        async with opened_store(Settings(data_dir=tmp_path, database_url=SecretStr(database_url))):
            pass


async def test_version_before_one_migration_step_keeps_working(
    url: str, database: Database, tmp_path: Path, new_job: object
) -> None:
    """A step only adds what has a default: here one that this version has never heard of."""
    versions = tmp_path / "step" / "versions"
    versions.mkdir(parents=True)
    (versions / "next_9999.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        "revision, down_revision, branch_labels, depends_on = '9999', None, None, None\n"
        "def upgrade():\n"
        "    op.add_column('jobs', sa.Column('novelty', sa.String(9), nullable=False, server_default='x'))\n"
        "    op.add_column('keys', sa.Column('novelty', sa.Integer))\n"
        "    op.create_table('novelties', sa.Column('id', sa.Integer, primary_key=True))\n"
    )
    (tmp_path / "step" / "env.py").write_text(
        "from alembic import context\n"
        "context.configure(connection=context.config.attributes['connection'])\ncontext.run_migrations()\n"
    )

    def step(connection: Connection) -> None:
        connection.execute(text("DELETE FROM alembic_version"))
        config = Config()
        config.set_main_option("script_location", str(tmp_path / "step"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    await database.write(step)
    settings = Settings(data_dir=tmp_path, database_url=SecretStr(url))
    async with opened_store(settings) as store:
        job = new_job()  # type: ignore[operator]
        await store.add(job)
        claimed = await store.claim(Entry(job.id), 1.0)
        assert claimed
        assert await store.finish(claimed, [], {}, 1, 2.0)
        assert (await store.get(job.id)) is not None


# Check


async def findings_of(settings: Settings) -> dict[str, bool]:
    return {finding.subject: finding.is_good for finding in await findings(settings)}


async def test_check_finds_what_is_wrong_and_nothing_else(
    postgres: Postgres, database_url: str, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, database_url=SecretStr(database_url), min_free_bytes=0)
    assert await findings_of(settings) == {
        "database": True,
        "clock": True,
        "news": True,
        "tables": False,
        "pictures": True,
        "weights": True,
    }
    await migrate(settings)
    found = await findings_of(settings)
    assert [name for name, is_good in found.items() if not is_good] == ["keys"]
    await asyncio.to_thread(postgres.crash)
    found = await findings_of(settings)
    assert [name for name, is_good in found.items() if not is_good] == ["database"]


def test_address_of_another_kind_of_database_is_refused(tmp_path: Path) -> None:
    for address in ("mysql://u@h/d", "h/d"):
        with pytest.raises(InvalidOption, match="postgresql://"):
            open_database(Settings(data_dir=tmp_path, database_url=SecretStr(address)))


def test_package_for_postgresql_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enlarger.drivers.find_spec", lambda name: None)
    with pytest.raises(FeatureUnavailable, match="distributed"):
        open_database(Settings(data_dir=tmp_path, database_url=SecretStr("postgresql://u@h/d")))


async def test_writes_that_wait_too_long_are_refused(database: Database) -> None:
    gate = time.monotonic() + 1.0

    def hold(_: Connection) -> None:
        time.sleep(max(0.0, gate - time.monotonic()))

    holding = [asyncio.create_task(database.write(hold)) for _ in range(4)]
    await asyncio.sleep(0.1)
    with pytest.raises(Overloaded, match="busy"):
        await database.write(add_secret("t1"), patience_seconds=0.1)  # type: ignore[arg-type]
    await asyncio.gather(*holding)
    assert await secrets(database) == []
