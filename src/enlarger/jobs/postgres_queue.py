"""The queue in PostgreSQL: entries in the database of the rows, so that both are written in one transaction."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import psycopg
from pgqueuer import PgQueuer
from pgqueuer.adapters.persistence.queries import Queries, SyncQueries
from pgqueuer.models import Job as Stored
from pgqueuer.models import TracebackRecord
from pgqueuer.types import JOB_STATUS
from psycopg.rows import dict_row
from sqlalchemy import Connection, column, func, select, table, text

from enlarger.jobs.database import Database
from enlarger.jobs.postgres_driver import PostgresDriver
from enlarger.jobs.queue import Entry, Queue, Terms, as_stored
from enlarger.jobs.rows import UNFINISHED
from enlarger.jobs.tables import jobs

_ENTRIES = table("pgqueuer", column("id"), column("dedupe_key"))
_LOG_DAYS = 1


class _InTransaction:
    """PgQueuer's synchronous driver on the connection of a transaction that somebody else ends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = cast("psycopg.Connection[Any]", connection.connection.driver_connection)

    def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        cursor = psycopg.RawCursor(self._connection, row_factory=dict_row)
        cursor.execute(query.encode(), args or None)
        return cursor.fetchall()


class _Fenced(Queries):
    """PgQueuer's statements, except that an entry which another worker has taken is that one's alone to end.

    A worker that was silent for longer than its lease would remove it under its successor, or hand it to a third.
    """

    async def log_jobs(self, job_status: list[tuple[Stored, JOB_STATUS, TracebackRecord | None]]) -> None:
        held = await self._held([entry for entry, _, _ in job_status])
        if ended := [one for one in job_status if one[0].id in held]:
            await super().log_jobs(ended)

    async def retry_job(
        self, job: Stored, delay: timedelta, traceback_record: TracebackRecord | None
    ) -> None:
        if await self._held([job]):
            await super().retry_job(job, delay, traceback_record)

    async def _held(self, entries: Sequence[Stored]) -> set[object]:
        """Ids of those that nobody else has taken since."""
        rows = await self.driver.fetch(
            "SELECT id FROM pgqueuer WHERE id = ANY($1::bigint[]) AND queue_manager_id = ANY($2::uuid[])",
            [entry.id for entry in entries],
            [entry.queue_manager_id for entry in entries],
        )
        return {row["id"] for row in rows}


def record(connection: Connection, entries: Sequence[Entry]) -> None:
    """Queue what is neither waiting nor in hand, in the transaction of `connection`."""
    if entries:
        SyncQueries(_InTransaction(connection)).enqueue(**as_stored(entries))


@asynccontextmanager
async def open_postgres_queue(
    url: str, terms: Terms, *, listen_url: str = "", prepares: bool = True
) -> AsyncGenerator[Queue]:
    """The queue at the address of `open_postgres`; no connection is made before it runs."""
    driver = PostgresDriver(url, listen_url=listen_url, prepares=prepares)
    queries = _Fenced(driver)
    try:
        yield Queue(PgQueuer(driver, queries=queries), queries, terms, record=record)
    finally:
        await driver.close()


async def install(url: str) -> None:
    """Make or renew the tables of PgQueuer. Safe to call twice, and from several processes at once."""
    async with PostgresDriver(url) as driver:
        queries = Queries(driver)
        async with queries.schema_lock():
            if not await queries.schema_is_installed():
                await queries.install()
        await queries.upgrade()


async def trim_log(database: Database) -> int:
    """Forget what became of entries more than a day ago: PgQueuer never does. How many lines went."""
    old = text(f"DELETE FROM pgqueuer_log WHERE created < now() - interval '{_LOG_DAYS} day'")
    return await database.write(lambda connection: connection.execute(old).rowcount)


async def without_entry(database: Database, limit: int) -> list[Entry]:
    """Entries that unfinished jobs should have and have not, oldest job first: a zombie may have removed them."""
    ticket = func.coalesce(func.nullif(jobs.c.ticket, ""), jobs.c.id)
    query = (
        select(ticket, jobs.c.route)
        .where(jobs.c.state.in_(UNFINISHED))
        .where(~select(1).where(_ENTRIES.c.dedupe_key == ticket).exists())
        .order_by(jobs.c.created_at)
        .limit(limit)
    )
    return await database.read(lambda connection: [Entry(*row) for row in connection.execute(query)])
