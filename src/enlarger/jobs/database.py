"""Database: the two ways into one SQL database, SQLite today, and the upgrade of its tables."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from enlarger.errors import Overloaded

_BUSY_SECONDS = 30
_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class Database:
    """Writes and reads. All methods may be called at once from many tasks of one event loop.

    SQLite lets one connection write at a time, so all writes of a process wait in line for one connection here
    instead of failing with "database is locked"; reads have connections of their own and never wait for writes.
    """

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self.writer = writer
        self.reader = reader

    @classmethod
    def open(cls, path: Path) -> Database:
        """The database in the SQLite file `path`, made when it is missing."""
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

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection]:
        """A transaction that may write; committed, and on the disk, at a regular exit.

        Raises Overloaded when the line for the one writing connection is longer than _BUSY_SECONDS.
        """
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self.writer.begin())
            except PoolTimeoutError as error:
                raise Overloaded(
                    f"The database was busy with other writes for {_BUSY_SECONDS} s: try again later", 5.0
                ) from error
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection]:
        """A connection for queries, each of which sees what is committed when it starts."""
        async with self.reader.connect() as connection:
            yield connection

    async def migrate(self) -> None:
        """Bring the tables to the form this version needs; does nothing when they have it."""
        async with self.write() as connection:
            await connection.run_sync(_upgrade)

    async def close(self) -> None:
        await self.writer.dispose()
        await self.reader.dispose()


async def insert_or_update(
    connection: AsyncConnection, table: Table, values: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Insert `values`; where a row with this primary key exists, make `changes` to it instead."""
    statement = _INSERTS[connection.dialect.name](table).values(**values)
    await connection.execute(
        statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)
    )


def _upgrade(connection: Connection) -> None:
    # Imported here: nothing but this needs Alembic, and it takes longer to load than the tables to check.
    from alembic import command
    from alembic.config import Config

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
