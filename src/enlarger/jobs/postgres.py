"""PostgreSQL: the database of a service on many machines.

A transaction that fails before its commit was never there, so it is tried again while its caller is patient: after a
deadlock, and while the server is away. Of one whose commit got no answer nobody knows, and its caller is told so.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError

from enlarger.errors import InvalidOption, Overloaded
from enlarger.jobs.database import Database
from enlarger.jobs.writer import Work

T = TypeVar("T")

SECONDS = 5
"""How long a connection may take to be made, and its server be silent to what was sent, before it counts as gone."""
CONNECT: dict[str, Any] = {
    "connect_timeout": SECONDS,
    "tcp_user_timeout": SECONDS * 1000,
    "keepalives_idle": SECONDS,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""Parameters of libpq. Without them a cut cable is noticed after hours."""
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 5.0
_UNDONE = {"40001", "40P01"}
"""SQLSTATEs of transactions that the server has undone itself: serialization failure, deadlock."""
_AWAY = {"57P01", "57P02", "57P03", "53300"}
"""SQLSTATEs of a server that shuts down, crashes, starts up, or takes no further connection."""


def open_postgres(url: str, *, connections: int = 8, prepares: bool = True) -> Database:
    """The database at `postgresql://user:password@host/name`; no connection is made.

    connections: most that are open at once, half of them for reads. prepares: whether the server may be asked to
    remember statements; not behind a pooler that gives each transaction another connection.
    """
    half = max(1, connections // 2)
    address = make_url(url).set(drivername="postgresql+psycopg")
    # psycopg prepares what it has seen five times; None is never.
    arguments: dict[str, Any] = {**CONNECT, **({} if prepares else {"prepare_threshold": None})}
    pool: dict[str, Any] = {"pool_size": half, "max_overflow": 0, "connect_args": arguments}
    writer = create_engine(address, **pool)
    reader = create_engine(address, **pool, isolation_level="AUTOCOMMIT")
    return Database(
        writer, reader, Writers(writer, half), readers=half, read_errors=lambda error: told(error) or error
    )


class Writers:
    """Transactions of one event loop, several at once, each with a connection of its own."""

    def __init__(self, engine: Engine, connections: int) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(connections, "database-writer")

    async def write(self, work: Work[T], patience_seconds: float) -> T:
        """What `work` gives, once it is committed. Raises Overloaded, and what `work` raises."""
        context, until = copy_context(), monotonic() + patience_seconds
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: context.run(self._committed, work, until)
        )

    async def close(self) -> None:
        """Wait for everybody in line."""
        await asyncio.to_thread(self._threads.shutdown)

    def _committed(self, work: Work[T], until: float) -> T:
        pause = _FIRST_PAUSE_SECONDS
        if monotonic() > until:
            raise _busy()
        while True:
            committing = False
            try:
                with self._engine.connect() as connection:
                    value = work(connection)
                    committing = True
                    connection.commit()
                    return value
            except DBAPIError as error:
                if committing or not _never_was(error):
                    raise _unanswered(told(error) or error, committing) from error
                if monotonic() + pause > until:
                    raise told(error) or _busy() from error
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


def _unanswered(error: Exception, committing: bool) -> Exception:
    if isinstance(error, Overloaded):
        error.may_have_happened = committing
    return error


def told(error: Exception) -> Overloaded | InvalidOption | None:
    """What a caller hears of an error that is not its own doing, or None."""
    if is_away(error):
        return Overloaded("The database is away: try again later", _RETRY_AFTER_SECONDS)
    if isinstance(error, DataError):
        # Text with U+0000, a number without end: SQLite takes them, PostgreSQL does not.
        return InvalidOption(f"the request holds a value that cannot be stored: {error.orig}")
    return None


def is_away(error: Exception) -> bool:
    """Whether the server could not be reached, or the connection to it broke."""
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state in _AWAY or state.startswith("08")
    return error.connection_invalidated or isinstance(error, InterfaceError) or _is_operational(error)


def _is_operational(error: DBAPIError) -> bool:
    # A connection that cannot be made is an OperationalError without SQLSTATE.
    return type(error.orig).__name__ in {"OperationalError", "ConnectionTimeout"}


def _never_was(error: DBAPIError) -> bool:
    return is_away(error) or getattr(error.orig, "sqlstate", None) in _UNDONE


def _busy() -> Overloaded:
    return Overloaded("The database is busy with other writes: try again later", _RETRY_AFTER_SECONDS)
