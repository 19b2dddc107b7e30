"""Queue: wakes workers, over PgQueuer. What survives a crash is the rows of the store.

An entry is a ticket with the id of a job, but it is good for any of the same route: the store chooses which job is
served, by fair share and limits that the queue knows nothing of. In memory here; in PostgreSQL in `postgres_queue`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

from pgqueuer import PgQueuer
from pgqueuer.adapters.inmemory import InMemoryDriver, InMemoryQueries
from pgqueuer.errors import RetryRequested
from pgqueuer.models import Job as Stored
from pgqueuer.ports import RepositoryPort
from sqlalchemy import Connection

from enlarger.jobs.routes import Route

logger = logging.getLogger(__name__)

SLOTS = 4
"""Jobs in hand at once: one computes while the pictures of the next ones are fetched."""
MOST_ASIDE = 64
"""Jobs that may wait beside them, in nobody's way. Each costs a look at its row a second."""
DEFAULT_ROUTE = str(Route())
_PREFIX = "upscale/"


class Entry(NamedTuple):
    """A ticket, and the workers it is for."""

    ticket: str
    route: str = DEFAULT_ROUTE


def as_stored(entries: Sequence[Entry]) -> dict[str, Any]:
    """The arguments of PgQueuer's `enqueue`. What is waiting or in hand under the same ticket is left alone."""
    return {
        "entrypoint": [_PREFIX + route for _, route in entries],
        "payload": [ticket.encode() for ticket, _ in entries],
        "priority": [0] * len(entries),
        "dedupe_key": [ticket for ticket, _ in entries],
        "on_conflict": "skip",
    }


RunJob = Callable[[Entry], Awaitable[bool | None]]


class Entries(Protocol):
    """The part of the queue that a store writes to: see `Queue`."""

    @property
    def record(self) -> Callable[[Connection, Sequence[Entry]], None]: ...
    async def announce(self, entries: Sequence[Entry]) -> None: ...


class NoQueue:
    """For a process that looks at the jobs and makes none."""

    def record(self, connection: Connection, entries: Sequence[Entry]) -> None: ...

    async def announce(self, entries: Sequence[Entry]) -> None: ...


class HandBack(Exception):
    """Raised by a job's run: the entry is good for another worker, at once."""


async def _nothing() -> None:
    """A log that trims itself."""


def _not_here(_connection: Connection, _entries: Sequence[Entry]) -> None:
    """An entry in memory can be no part of a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How entries are handed out.

    `lease_seconds`: how long a worker may be silent before its entries are handed to others. `look_seconds`: between
    two looks when nothing wakes it. `retry_seconds`: until an entry whose run failed is handed out again.
    """

    slots: int = SLOTS
    most_aside: int = MOST_ASIDE
    lease_seconds: float = 30.0
    look_seconds: float = 30.0
    retry_seconds: float = 10.0


class Queue:
    """Entries waiting for a worker. One that is waiting or in hand is not queued a second time.

    record: queues entries in the transaction of their rows, where the queue can; `is_durable` says whether it does.
    """

    def __init__(
        self,
        pgq: PgQueuer,
        queries: RepositoryPort,
        terms: Terms,
        *,
        trim_log: Callable[[], Awaitable[None]] = _nothing,
        record: Callable[[Connection, Sequence[Entry]], None] | None = None,
    ) -> None:
        self._pgq = pgq
        self._queries = queries
        self._terms = terms
        self._trim_log = trim_log
        self.record = record or _not_here
        self.is_durable = record is not None
        self._in_hand: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        """Runs whose entries have been handed back, and that have not noticed yet."""
        self._slots = asyncio.Semaphore(terms.slots)
        self._in_slots: set[asyncio.Task[None]] = set()
        self._aside = 0

    @classmethod
    def in_memory(cls, *, slots: int = SLOTS, retry_seconds: float = 10.0) -> Queue:
        driver = InMemoryDriver()
        queries = InMemoryQueries(driver)
        pgq = PgQueuer(driver, queries=queries)
        # PgQueuer never trims its log of finished entries, which in memory is a leak.
        terms = Terms(slots=slots, retry_seconds=retry_seconds)
        return cls(pgq, queries, terms, trim_log=queries.clear_queue_log)

    async def announce(self, entries: Sequence[Entry]) -> None:
        """Queue entries once their rows are committed, where `record` could not."""
        if not self.is_durable:
            await self.enqueue(entries)

    async def enqueue(self, entries: Sequence[Entry]) -> None:
        """Queue what is neither waiting nor in hand."""
        if entries:
            await self._queries.enqueue(**as_stored(entries))

    async def run(self, run_job: RunJob, routes: Sequence[str] = (DEFAULT_ROUTE,)) -> None:
        """Call `run_job(entry)` for every entry of the routes, and again while it says True, until `stop`.

        At most `slots` at once. An exception of `run_job` is logged and the entry handed out again later, after
        HandBack at once.
        """
        for route in routes:
            self._serve(route, run_job)
        terms = self._terms
        await self._pgq.qm.run(
            dequeue_timeout=timedelta(seconds=terms.look_seconds),
            batch_size=1,
            max_concurrent_tasks=max(2, terms.slots + terms.most_aside),
            heartbeat_timeout=timedelta(seconds=terms.lease_seconds),
            # Nobody reads PgQueuer's statistics; an interval of 0 spares their memory.
            log_aggregation_interval=timedelta(0),
        )
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def stop(self, drain_seconds: float) -> None:
        """Hand out nothing more, give the jobs in hand `drain_seconds` to end, then hand them back; `run` returns."""
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
        if task not in self._in_slots or self._aside >= self._terms.most_aside:
            yield
            return
        self._aside += 1
        self._leave_slot(task)
        try:
            yield
        finally:
            self._aside -= 1
        await self._take_slot(task)

    def _serve(self, route: str, run_job: RunJob) -> None:
        @self._pgq.entrypoint(_PREFIX + route)
        async def _(stored: Stored) -> None:
            await self._hand_out(Entry((stored.payload or b"").decode(), route), run_job)

    async def _take_slot(self, task: asyncio.Task[None]) -> None:
        await self._slots.acquire()
        self._in_slots.add(task)

    def _leave_slot(self, task: asyncio.Task[None]) -> None:
        if task in self._in_slots:
            self._in_slots.remove(task)
            self._slots.release()

    async def _hand_out(self, entry: Entry, run_job: RunJob) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._in_hand.add(task)
        work = asyncio.create_task(self._work_off(entry, run_job))
        try:
            await asyncio.shield(work)
        except (HandBack, asyncio.CancelledError) as given:
            if not isinstance(given, HandBack) and not self._pgq.shutdown.is_set():
                raise
            raise RetryRequested(timedelta(0)) from given
        except Exception as error:
            seconds = self._terms.retry_seconds
            logger.exception("Ticket %s is handed out again in %g s", entry.ticket, seconds)
            raise RetryRequested(timedelta(seconds=seconds)) from error
        finally:
            self._in_hand.discard(task)
            self._leave(work)
            await self._trim_log()

    async def _work_off(self, entry: Entry, run_job: RunJob) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            await self._take_slot(task)
            # An entry that was on its way while `stop` was called: its row waits for others, or the next start.
            if self._pgq.shutdown.is_set():
                raise HandBack
            while await run_job(entry) and not self._pgq.shutdown.is_set():
                await self._trim_log()
        finally:
            self._leave_slot(task)

    def _leave(self, work: asyncio.Task[None]) -> None:
        """Wait no longer for a run: a device ends a tile before it stops, and its job shall go on elsewhere now."""
        if not work.done():
            work.cancel()
            self._leaving.add(work)
            work.add_done_callback(self._left)

    def _left(self, work: asyncio.Task[None]) -> None:
        self._leaving.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            logger.info("A run whose entry had been handed back ended with %r", error)
