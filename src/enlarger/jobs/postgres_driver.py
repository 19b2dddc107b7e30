"""Connections to PostgreSQL for the queue, which come back by themselves when the server does.

PgQueuer ends when its connection breaks, and with it the jobs in hand; over these it only waits. A statement that was
under way is made again: PgQueuer's may all be, as an entry that was taken without our hearing of it falls to whoever
comes when its lease ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from pgqueuer.core.tm import TaskManager
from pgqueuer.ports.driver import NotifyCallback
from psycopg import sql
from psycopg.rows import dict_row

from enlarger.jobs.postgres import CONNECT

logger = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.AsyncConnection[Any]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0


class PostgresDriver:
    """PgQueuer's driver over two connections: one for statements, one that listens.

    listen_url: where LISTEN works, past a pooler. prepares: as of `open_postgres`.
    """

    def __init__(self, url: str, *, listen_url: str = "", prepares: bool = True) -> None:
        self._url = url
        self._prepares = prepares
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._listener = Listener(listen_url or url)
        self._entered = 0
        self.shutdown = asyncio.Event()
        self.tm = TaskManager()

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        async def fetch(connection: Connection) -> list[dict[str, object]]:
            cursor = psycopg.AsyncRawCursor(connection, row_factory=dict_row)
            await cursor.execute(query.encode(), args or None)
            return await cursor.fetchall()

        return await self._until_done(fetch)

    async def execute(self, query: str, *args: object) -> str:
        async def execute(connection: Connection) -> str:
            cursor = psycopg.AsyncRawCursor(connection)
            await cursor.execute(query.encode(), args or None)
            return cursor.statusmessage or ""

        return await self._until_done(execute)

    async def notify(self, channel: str, payload: str) -> None:
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        await self._listener.add(channel, callback)

    async def __aenter__(self) -> PostgresDriver:
        self._entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        # PgQueuer may enter a driver twice; the last exit closes it.
        self._entered -= 1
        if self._entered == 0:
            await self.close()

    async def close(self) -> None:
        """Let go of both connections; who waits for the server waits no longer."""
        self.shutdown.set()
        await self._listener.close()
        if self._connection is not None:
            await self._connection.close()

    async def _until_done(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with self._turn:
                    return await work(await self._connected())
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                # Whatever it is, deadlock or full disk, it is no fault of the statement; PgQueuer would end.
                if self.shutdown.is_set():
                    raise
                logger.warning("The queue cannot use its database: %s", str(error).strip())
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = None
            threshold = 5 if self._prepares else None
            self._connection = await Connection.connect(
                self._url, autocommit=True, prepare_threshold=threshold, **CONNECT
            )
        return self._connection


class Listener:
    """Hears what is notified on channels, over a connection of its own that is made again when it breaks.

    What was notified meanwhile is lost: who listens looks by itself now and then.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._callbacks: dict[str, list[NotifyCallback]] = {}
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    async def add(self, channel: str, callback: NotifyCallback) -> None:
        """Call `callback` with every payload from now on; it listens when this returns, if the server is there."""
        is_new = channel not in self._callbacks
        self._callbacks.setdefault(channel, []).append(callback)
        if not is_new:
            return
        await self.close()
        listening = asyncio.Event()
        self._task = asyncio.create_task(self._keep_listening(listening), name="postgres-listener")
        with suppress(TimeoutError):
            await asyncio.wait_for(listening.wait(), CONNECT["connect_timeout"])

    async def close(self) -> None:
        """Listen no longer."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _keep_listening(self, listening: asyncio.Event) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with await Connection.connect(self._url, autocommit=True, **CONNECT) as connection:
                    for channel in self._callbacks:
                        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    listening.set()
                    pause = _FIRST_PAUSE_SECONDS
                    async for notice in connection.notifies():
                        self._tell(notice.channel, notice.payload)
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                logger.warning("Nothing is heard from the database: %s", str(error).strip())
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _tell(self, channel: str, payload: str) -> None:
        for callback in self._callbacks.get(channel, ()):
            try:
                callback(payload)
            except Exception:
                logger.exception("A message of the channel %s was not understood", channel)
