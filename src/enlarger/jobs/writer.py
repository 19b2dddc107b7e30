"""Writer: the line for the one connection that writes. Group commit: who waits together is committed together.

A commit waits for the disk, and only one runs at a time. Whatever arrives meanwhile shares the next transaction, each
piece of work in a savepoint of its own: one that fails is undone alone, and all are answered after the commit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context, copy_context
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from enlarger.errors import Overloaded

T = TypeVar("T")
Work = Callable[[Connection], T]

BUSY_SECONDS = 1.0
"""How long one try to begin a transaction waits for another process that writes."""
_TOGETHER = 32
"""Most pieces of work in one transaction: the first waits for the last."""
_RETRY_AFTER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A piece of work in line. `until`: when it gives up, on the monotonic clock."""

    work: Work[Any]
    context: Context
    answer: asyncio.Future[Any]
    until: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: Any = None
    error: Exception | None = None


class Writer:
    """Transactions of one event loop on one connection, in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "database-writer")
        self._line: deque[_Waiting] = deque()
        self._turns: asyncio.Task[None] | None = None

    async def write(self, work: Work[T], patience_seconds: float) -> T:
        """What `work` gives, once it is committed. Raises Overloaded, and what `work` raises."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._line.append(_Waiting(work, copy_context(), answer, monotonic() + patience_seconds))
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns(), name="database-writer")
        return await answer

    async def close(self) -> None:
        """Wait for everybody in line."""
        if self._turns is not None:
            await asyncio.wait([self._turns])
        await asyncio.to_thread(self._thread.shutdown)

    async def _take_turns(self) -> None:
        loop = asyncio.get_running_loop()
        while together := self._next():
            try:
                outcomes = await loop.run_in_executor(self._thread, self._committed, together)
            except Exception as error:  # noqa: BLE001 (told to everybody it concerns)
                if _is_busy(error):
                    self._line.extendleft(reversed(together))
                    continue
                outcomes = [_Outcome(error=error)] * len(together)
            for waiting, outcome in zip(together, outcomes, strict=True):
                _tell(waiting, outcome)

    def _next(self) -> list[_Waiting]:
        """Whose turn it is. Those who have waited too long are told so, those who have left are left out."""
        now, together = monotonic(), list[_Waiting]()
        while self._line and len(together) < _TOGETHER:
            waiting = self._line.popleft()
            if waiting.until < now:
                _tell(waiting, _Outcome(error=_busy()))
            elif not waiting.answer.done():
                together.append(waiting)
        return together

    def _committed(self, together: list[_Waiting]) -> list[_Outcome]:
        """In the thread: all of them in one transaction. Raises when it cannot be committed."""
        with self._engine.begin() as connection:
            return [_outcome(connection, waiting) for waiting in together]


def _outcome(connection: Connection, waiting: _Waiting) -> _Outcome:
    connection.exec_driver_sql("SAVEPOINT work")
    try:
        outcome = _Outcome(waiting.context.run(waiting.work, connection))
    except Exception as error:  # noqa: BLE001 (told to whoever waits)
        # Where the database has ended the whole transaction, this raises, and everybody in it hears of that.
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT work")
        outcome = _Outcome(error=error)
    connection.exec_driver_sql("RELEASE SAVEPOINT work")
    return outcome


def _tell(waiting: _Waiting, outcome: _Outcome) -> None:
    if waiting.answer.done():  # cancelled
        return
    if outcome.error is not None:
        waiting.answer.set_exception(outcome.error)
    else:
        waiting.answer.set_result(outcome.value)


def _is_busy(error: Exception) -> bool:
    """Whether another process was writing, so that nothing of ours has happened."""
    code = getattr(error.orig, "sqlite_errorcode", 0) if isinstance(error, OperationalError) else 0
    return code & 0xFF == sqlite3.SQLITE_BUSY


def _busy() -> Overloaded:
    return Overloaded("The database is busy with other writes: try again later", _RETRY_AFTER_SECONDS)
