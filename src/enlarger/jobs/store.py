"""Store: jobs and keys in one SQL database, SQLite today. The row is the truth; the queue only hands out ids.

Every change of a claimed job is fenced: it names the epoch of the claim and does nothing once a newer claim
exists, so a worker that was thought dead cannot overwrite the work of its successor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Row, Update, event, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from enlarger.jobs import tables
from enlarger.jobs.job import Job, Key, Output, State

_UNFINISHED = tuple(state.value for state in State if not state.is_terminal)
_BUSY_SECONDS = 30


class Store:
    """Jobs, keys and secrets. All methods may be called at once from many tasks of one event loop.

    SQLite lets one connection write at a time, so all writes of a process wait in line for one connection here
    instead of failing with "database is locked"; reads have connections of their own and never wait for writes.
    """

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader

    @classmethod
    def open(cls, path: Path) -> Store:
        """A store in the SQLite file `path`, made when it is missing. Call `migrate()` first."""
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"sqlite+aiosqlite:///{path}"
        arguments = {"timeout": _BUSY_SECONDS}
        writer = create_async_engine(
            url, pool_size=1, max_overflow=0, pool_timeout=_BUSY_SECONDS, connect_args=arguments
        )
        event.listen(writer.sync_engine, "connect", _set_up_writer)
        event.listen(writer.sync_engine, "begin", _begin_immediate)
        reader = create_async_engine(
            url,
            pool_size=4,
            max_overflow=0,
            pool_timeout=_BUSY_SECONDS,
            isolation_level="AUTOCOMMIT",
            connect_args=arguments,
        )
        event.listen(reader.sync_engine, "connect", _set_up_reader)
        return cls(writer, reader)

    async def migrate(self) -> None:
        """Bring the tables to the form this version needs; does nothing when they have it."""
        async with self._writer.begin() as connection:
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()

    # Jobs

    async def add(self, job: Job) -> None:
        """Record a new job; durable when it returns."""
        async with self._writer.begin() as connection:
            await connection.execute(insert(tables.jobs).values(**_columns(job)))

    async def get(self, job_id: str, key_id: str | None = None) -> Job | None:
        """The job, or None when there is none or it is not the key's. `key_id` None: of any key."""
        query = select(tables.jobs).where(tables.jobs.c.id == job_id)
        if key_id is not None:
            query = query.where(tables.jobs.c.key_id == key_id)
        async with self._reader.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        return _job(row) if row else None

    async def unfinished(self) -> list[str]:
        """Ids of the jobs that are not in a terminal state, oldest first."""
        query = (
            select(tables.jobs.c.id)
            .where(tables.jobs.c.state.in_(_UNFINISHED))
            .order_by(tables.jobs.c.created_at)
        )
        async with self._reader.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def count_unfinished(self) -> int:
        query = select(func.count()).where(tables.jobs.c.state.in_(_UNFINISHED))
        async with self._reader.connect() as connection:
            return (await connection.execute(query)).scalar_one()

    async def claim(self, job_id: str, now: float) -> Job | None:
        """Take the job: state processing, epoch + 1. None when it is unknown or already ended."""
        statement = (
            update(tables.jobs)
            .where(tables.jobs.c.id == job_id, tables.jobs.c.state.in_(_UNFINISHED))
            .values(
                state=State.PROCESSING.value,
                epoch=tables.jobs.c.epoch + 1,
                started_at=func.coalesce(tables.jobs.c.started_at, now),
            )
            .returning(*tables.jobs.c)
        )
        async with self._writer.begin() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return _job(row) if row else None

    async def start_compute(self, job: Job) -> int:
        """Count one more start of the computation; the new count, or 0 when a newer claim exists."""
        statement = (
            _claimed(job)
            .values(compute_starts=tables.jobs.c.compute_starts + 1)
            .returning(tables.jobs.c.compute_starts)
        )
        async with self._writer.begin() as connection:
            return (await connection.execute(statement)).scalar_one_or_none() or 0

    async def set_source_blob(self, job: Job, key: str) -> bool:
        """Note where the fetched picture lies; False when a newer claim exists."""
        return await self._changed(_claimed(job).values(source_blob=key))

    async def finish(
        self, job: Job, outputs: Sequence[Output], report: Mapping[str, Any], compute_ms: int, now: float
    ) -> bool:
        """Complete the job; False, and nothing changed, when a newer claim exists or the job has ended."""
        values = {
            "state": State.COMPLETED.value,
            "outputs": [asdict(output) for output in outputs],
            "report": dict(report),
            "compute_ms": compute_ms,
            "finished_at": now,
        }
        return await self._changed(_claimed(job).values(**values))

    async def fail(self, job: Job, code: str, message: str, now: float) -> bool:
        """End the job with an error of `enlarger.errors`; False as for `finish`."""
        values = {
            "state": State.FAILED.value,
            "error_code": code,
            "error_message": message,
            "finished_at": now,
        }
        return await self._changed(_claimed(job).values(**values))

    # Keys and secrets

    async def add_key(self, key: Key, secret_sha256: str) -> None:
        async with self._writer.begin() as connection:
            await connection.execute(insert(tables.keys).values(**asdict(key), secret_sha256=secret_sha256))

    async def key_by_hash(self, secret_sha256: str) -> Key | None:
        """The key with this hash of its secret, revoked or not."""
        async with self._reader.connect() as connection:
            query = select(tables.keys).where(tables.keys.c.secret_sha256 == secret_sha256)
            row = (await connection.execute(query)).one_or_none()
        return _key(row) if row else None

    async def keys(self) -> list[Key]:
        """Every key, oldest first, revoked ones included."""
        async with self._reader.connect() as connection:
            rows = await connection.execute(select(tables.keys).order_by(tables.keys.c.created_at))
            return [_key(row) for row in rows]

    async def revoke_key(self, key_id: str, now: float) -> bool:
        """End a key; False when there is no such key or it was revoked before."""
        alive = update(tables.keys).where(tables.keys.c.id == key_id, tables.keys.c.revoked_at.is_(None))
        return await self._changed(alive.values(revoked_at=now))

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """The secret kept under `name`; the first caller's `fresh` becomes it."""
        async with self._writer.begin() as connection:
            query = select(tables.meta.c.value).where(tables.meta.c.name == name)
            found = (await connection.execute(query)).scalar_one_or_none()
            if found is not None:
                return found
            await connection.execute(insert(tables.meta).values(name=name, value=fresh))
            return fresh

    async def _changed(self, statement: Update) -> bool:
        async with self._writer.begin() as connection:
            return (await connection.execute(statement)).rowcount == 1


def _claimed(job: Job) -> Update:
    """An update that reaches the row only while `job` is its newest claim."""
    return update(tables.jobs).where(
        tables.jobs.c.id == job.id,
        tables.jobs.c.epoch == job.epoch,
        tables.jobs.c.state == State.PROCESSING.value,
    )


def _columns(job: Job) -> dict[str, Any]:
    columns = {spec.name: getattr(job, spec.name) for spec in fields(job)}
    return columns | {
        "state": job.state.value,
        "input": dict(job.input),
        "options": dict(job.options),
        "report": dict(job.report),
        "outputs": [asdict(output) for output in job.outputs],
    }


def _job(row: Row[Any]) -> Job:
    columns = dict(row._mapping)  # pyright: ignore[reportPrivateUsage]  (public, despite its name)
    columns["state"] = State(columns["state"])
    columns["outputs"] = tuple(Output(**output) for output in columns["outputs"])
    return Job(**columns)


def _key(row: Row[Any]) -> Key:
    return Key(id=row.id, name=row.name, created_at=row.created_at, revoked_at=row.revoked_at)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _set_up_writer(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # Python's driver would open transactions on its own, too late and without IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _set_up_reader(connection: Any, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only=ON")
    cursor.close()
