"""Queue: wakes workers, over PgQueuer. In memory: what survives a crash is the rows of the store.

An entry is a ticket with the id of a job, but it is good for any: the store chooses which job is served, by fair
share and limits that the queue knows nothing of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

from pgqueuer import PgQueuer
from pgqueuer.adapters.inmemory import InMemoryDriver, InMemoryQueries
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job as Entry
from pgqueuer.ports import RepositoryPort

logger = logging.getLogger(__name__)

ENTRYPOINT = "upscale"
SLOTS = 4
"""Jobs in hand at once: one computes while the pictures of the next ones are fetched."""
MOST_ASIDE = 64
"""Jobs that may wait beside them, in nobody's way. Each costs a look at its row a second."""


class Queue:
    """Tickets waiting for a worker. One that is waiting or in hand is not queued a second time."""

    def __init__(
        self,
        pgq: PgQueuer,
        queries: RepositoryPort,
        trim_log: Callable[[], Awaitable[None]],
        *,
        retry_seconds: float,
    ) -> None:
        self._pgq = pgq
        self._queries = queries
        self._trim_log = trim_log
        self._retry_seconds = retry_seconds
        self._in_hand: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(SLOTS)
        self._in_slots: set[asyncio.Task[None]] = set()
        self._aside = 0

    @classmethod
    def in_memory(cls, *, retry_seconds: float = 10.0) -> Queue:
        driver = InMemoryDriver()
        queries = InMemoryQueries(driver)
        pgq = PgQueuer(driver, queries=queries)
        # PgQueuer never trims its log of finished entries, which in memory is a leak.
        return cls(pgq, queries, queries.clear_queue_log, retry_seconds=retry_seconds)

    async def enqueue(self, ticket: str) -> None:
        await self._queries.enqueue(ENTRYPOINT, ticket.encode(), dedupe_key=ticket, on_conflict="skip")

    async def run(self, run_job: Callable[[str], Awaitable[bool | None]]) -> None:
        """Call `run_job(ticket)` for every ticket, and again while it says True, up to SLOTS at once, until `stop`.

        An exception of `run_job` is logged and the ticket handed out again after `retry_seconds`.
        """

        @self._pgq.entrypoint(ENTRYPOINT)
        async def _(entry: Entry) -> None:
            await self._hand_out((entry.payload or b"").decode(), run_job)

        # Nobody reads PgQueuer's statistics; an interval of 0 spares their memory.
        await self._pgq.qm.run(
            batch_size=1, max_concurrent_tasks=SLOTS + MOST_ASIDE, log_aggregation_interval=timedelta(0)
        )

    async def stop(self, drain_seconds: float) -> None:
        """Hand out no more ids, give the jobs in hand `drain_seconds` to end, then cancel them; `run` returns."""
        self._pgq.shutdown.set()
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=drain_seconds)
        for task in self._in_hand:
            task.cancel()

    @asynccontextmanager
    async def aside(self) -> AsyncGenerator[None]:
        """Lend the slot of the job in hand to others, for a wait in which it needs none.

        After a body that raises the job has no slot any more: all that is left to do is to end it.
        """
        task = asyncio.current_task()
        if task not in self._in_slots or self._aside >= MOST_ASIDE:
            yield
            return
        self._aside += 1
        self._leave_slot(task)
        try:
            yield
        finally:
            self._aside -= 1
        await self._take_slot(task)

    async def _take_slot(self, task: asyncio.Task[None]) -> None:
        await self._slots.acquire()
        self._in_slots.add(task)

    def _leave_slot(self, task: asyncio.Task[None]) -> None:
        if task in self._in_slots:
            self._in_slots.remove(task)
            self._slots.release()

    async def _hand_out(self, ticket: str, run_job: Callable[[str], Awaitable[bool | None]]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._in_hand.add(task)
        try:
            await self._take_slot(task)
            # An entry that was on its way while `stop` was called: its row waits for the next start.
            if self._pgq.shutdown.is_set():
                return
            while await run_job(ticket) and not self._pgq.shutdown.is_set():
                await self._trim_log()
        except Exception as error:
            logger.exception("Ticket %s is handed out again in %g s", ticket, self._retry_seconds)
            raise RetryRequested(timedelta(seconds=self._retry_seconds)) from error
        finally:
            self._in_hand.discard(task)
            self._leave_slot(task)
            await self._trim_log()
