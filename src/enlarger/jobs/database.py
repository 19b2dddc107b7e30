"""Database: the two ways into one SQL database, and the upgrade of its tables. SQLite here, PostgreSQL in `postgres`.

Work on the database is a plain function of a connection. It runs whole in a thread, so the event loop changes threads
once for it, however many statements it makes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Executable,
    Table,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.base import ReadOnlyColumnCollection
from sqlalchemy.sql.elements import KeyedColumnElement

from enlarger.jobs.writer import BUSY_SECONDS, Work, Writer

T = TypeVar("T")

PATIENCE_SECONDS = 3.0
"""How long a write waits for its turn unless it says otherwise: a client waits for it."""
LONG_PATIENCE_SECONDS = 30.0
"""For writes whose refusal would throw work away."""
_READERS = 4
_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_MIGRATION_LOCK = 0x656E6C61
"""Of PostgreSQL's advisory locks: `enla`."""


class Writes(Protocol):
    """How transactions of one event loop reach the database."""

    async def write(self, work: Work[T], patience_seconds: float) -> T:
        """What `work` gives, once it is committed. Raises Overloaded, and what `work` raises."""
        ...

    async def close(self) -> None:
        """Wait for everybody in line."""
        ...


class Database:
    """Writes and reads. All methods may be called at once from many tasks of one event loop.

    `read_errors` turns what a failed read raised into what its caller shall hear.
    """

    def __init__(
        self,
        writer: Engine,
        reader: Engine,
        writes: Writes,
        *,
        readers: int = _READERS,
        read_errors: Callable[[Exception], Exception] = lambda error: error,
    ) -> None:
        self.writer = writer
        self.reader = reader
        self._writes = writes
        self._reads = ThreadPoolExecutor(readers, "database-reader")
        self._read_errors = read_errors

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self.writer.dialect.name

    @classmethod
    def open(cls, path: Path) -> Database:
        """The database in the SQLite file `path`, made when it is missing.

        SQLite lets one connection write at a time, so all writes of a process go through one (see Writer) instead of
        failing with "database is locked"; reads have connections of their own and never wait for writes.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        url, arguments = f"sqlite:///{path}", {"timeout": BUSY_SECONDS}
        writer = create_engine(url, pool_size=1, max_overflow=0, connect_args=arguments)
        event.listen(writer, "connect", _set_up_writer)
        event.listen(writer, "begin", _begin_immediate)
        reader = create_engine(
            url, pool_size=_READERS, max_overflow=0, isolation_level="AUTOCOMMIT", connect_args=arguments
        )
        event.listen(reader, "connect", _set_up_reader)
        return cls(writer, reader, Writer(writer))

    async def write(self, work: Work[T], *, patience_seconds: float = PATIENCE_SECONDS) -> T:
        """What `work` gives, run in a transaction; committed, and on the disk, when this returns.

        When `work` raises, nothing it did remains. It may be run a second time after everything it did was undone,
        and it is still committed when the caller is cancelled while it runs.
        Raises Overloaded when its turn does not come within `patience_seconds`.
        """
        return await self._writes.write(work, patience_seconds)

    async def read(self, work: Work[T]) -> T:
        """What `work` gives; each of its queries sees what is committed when it starts."""
        # In the context of the caller: log lines carry its ids, and the bench counts its queries.
        context = copy_context()
        return await asyncio.get_running_loop().run_in_executor(
            self._reads, lambda: context.run(self._connected, work)
        )

    def _connected(self, work: Work[T], *, again: bool = True) -> T:
        try:
            with self.reader.connect() as connection:
                return work(connection)
        except DBAPIError as error:
            # A connection that broke while nobody used it says nothing of the server, which may be back.
            if again and error.connection_invalidated:
                return self._connected(work, again=False)
            raise self._read_errors(error) from error

    async def migrate(self) -> None:
        """Bring the tables to the form this version needs; does nothing when they have it."""
        await self.write(upgrade, patience_seconds=LONG_PATIENCE_SECONDS)

    async def close(self) -> None:
        """Wait for what is under way, and close every connection."""
        await self._writes.close()
        await asyncio.to_thread(self._reads.shutdown)
        self.writer.dispose()
        self.reader.dispose()


def inserts_or_updates(
    table: Table,
    changes: Callable[
        [ReadOnlyColumnCollection[str, KeyedColumnElement[Any]]], Mapping[str, ColumnElement[Any]]
    ],
) -> Mapping[str, Executable]:
    """By the name of a dialect: insert a row; where one with its primary key exists, make `changes` to it instead.

    changes: from the columns of the row that was to be inserted to the new values of columns.
    """
    statements: dict[str, Executable] = {}
    for dialect, insert in _INSERTS.items():
        statement = insert(table)
        statements[dialect] = statement.on_conflict_do_update(
            index_elements=list(table.primary_key), set_=dict(changes(statement.excluded))
        )
    return statements


def upgrade(connection: Connection) -> None:
    """Bring the tables to the newest form, in the transaction of `connection`. One process at a time."""
    # Imported here: nothing but this needs Alembic, and it takes longer to load than the tables to check.
    from alembic import command

    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    config = _alembic()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def revisions(connection: Connection) -> tuple[str | None, str, bool]:
    """Revision of the tables, the one this version needs, and whether the first is at least the second.

    A revision that this version does not know is a newer one: its tables only have more than this version asks for.
    """
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_alembic())
    here, head = (
        MigrationContext.configure(connection).get_current_revision(),
        scripts.get_current_head() or "",
    )
    known = {script.revision for script in scripts.walk_revisions()}
    return here, head, here is not None and (here == head or here not in known)


def _alembic() -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


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
