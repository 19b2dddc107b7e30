"""Retention: removes what is past its time, and files that belong to nothing."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select, update

from enlarger.errors import NotFound
from enlarger.jobs.admission import REPEAT_SECONDS
from enlarger.jobs.blobs import Blobs, Stored, delete_files
from enlarger.jobs.database import Database
from enlarger.jobs.history import DAY_SECONDS
from enlarger.jobs.job import State
from enlarger.jobs.pyramids import remove_oldest
from enlarger.jobs.rows import UNFINISHED
from enlarger.jobs.tables import deliveries, idempotency, jobs, uploads
from enlarger.jobs.turns import takes_turn
from enlarger.settings import Settings

logger = logging.getLogger(__name__)

_ORPHAN_SECONDS = 3600.0
"""A file without a row may be one whose row is about to be written; after an hour it is not."""
_LONGEST_SWEEP_SECONDS = 600.0
"""A server that has not finished by then is taken for dead, and another one sweeps."""
_BATCH = 500
"""Rows removed in one transaction: submits wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep has removed."""

    jobs: int = 0
    uploads: int = 0
    orphans: int = 0


class Retention:
    """Keeps the store and the blobs to what is still promised. clock: Unix seconds."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        settings: Settings,
        clock: Callable[[], float],
        holder: str = "",
    ) -> None:
        self._holder = holder
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Sweep every `sweep_seconds` until `stop`; what goes wrong is logged and tried again the next time."""
        while not self._stopped.is_set():
            try:
                swept = await self._sweep_in_turn()
                if swept != Swept():
                    logger.info(
                        "Removed %d jobs, %d uploads, %d orphans", swept.jobs, swept.uploads, swept.orphans
                    )
            except Exception:
                logger.exception("The sweep failed; trying again in %g s", self._settings.sweep_seconds)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), self._settings.sweep_seconds)

    async def stop(self) -> None:
        """`run` returns after the sweep under way."""
        self._stopped.set()

    async def _sweep_in_turn(self) -> Swept:
        """One of many servers sweeps what all share; each looks after its own disk."""
        seconds = max(self._settings.sweep_seconds, _LONGEST_SWEEP_SECONDS)
        if self._database.dialect == "sqlite":
            return await self.sweep()
        if not await takes_turn(self._database, "retention", self._holder, self._clock(), seconds):
            return await self._sweep_own_disk(self._clock())
        # Imported here: only this database has that log.
        from enlarger.jobs.postgres_queue import trim_log

        await trim_log(self._database)
        return await self.sweep()

    async def sweep(self) -> Swept:
        """Remove ended jobs and uploads `retention_days` old, tickets never used, and files without a row."""
        now = self._clock()
        oldest = now - self._settings.retention_days * DAY_SECONDS
        await self._forget_repeats(now)
        swept = Swept(
            jobs=await self._sweep_jobs(oldest),
            uploads=await self._sweep_uploads(oldest, now),
            orphans=await self._sweep_orphans(now),
        )
        await remove_oldest(self._blobs, self._settings.viewer_cache_bytes)
        return swept

    async def _sweep_own_disk(self, now: float) -> Swept:
        """What other servers do not see: pictures prepared for zooming."""
        swept = Swept(orphans=await self._sweep_orphans(now, "pyramids"))
        await remove_oldest(self._blobs, self._settings.viewer_cache_bytes)
        return swept

    async def _sweep_jobs(self, oldest: float) -> int:
        expired = (
            select(jobs.c.id)
            .where(jobs.c.state.not_in(UNFINISHED), jobs.c.finished_at < oldest)
            .order_by(jobs.c.finished_at)
            .limit(_BATCH)
        )

        def remove(connection: Connection) -> list[str]:
            removal = delete(jobs).where(jobs.c.id.in_(expired)).returning(jobs.c.id)
            gone = list(connection.execute(removal).scalars())
            connection.execute(delete(idempotency).where(idempotency.c.job_id.in_(gone)))
            connection.execute(delete(deliveries).where(deliveries.c.job_id.in_(gone)))
            return gone

        swept = 0
        while True:
            gone = await self._database.write(remove)
            for job_id in gone:
                await delete_files(self._blobs, job_id)
            swept += len(gone)
            if len(gone) < _BATCH:
                return swept

    async def _sweep_uploads(self, oldest: float, now: float) -> int:
        never_sent = uploads.c.received_at.is_(None) & (uploads.c.expires_at <= now)
        if self._blobs.direct:
            await self._note_direct_uploads(never_sent, now)
        removal = delete(uploads).where(or_(uploads.c.created_at < oldest, never_sent))
        gone = await self._database.write(
            lambda connection: list(connection.execute(removal.returning(uploads.c.blob_key)).scalars())
        )
        for blob_key in gone:
            await self._blobs.delete(blob_key)
        return len(gone)

    async def _note_direct_uploads(self, never_sent: ColumnElement[bool], now: float) -> None:
        """Nobody tells of files that went straight to the store: they are found there."""
        query = select(uploads.c.id, uploads.c.blob_key).where(never_sent)
        tickets = await self._database.read(
            lambda connection: [(row.id, row.blob_key) for row in connection.execute(query)]
        )
        for upload_id, blob_key in tickets:
            with suppress(NotFound):
                received = {"size": await self._blobs.size(blob_key), "received_at": now}
                await self._note_received(upload_id, received)

    async def _note_received(self, upload_id: str, received: dict[str, Any]) -> None:
        noted = update(uploads).where(uploads.c.id == upload_id).values(**received)
        await self._database.write(lambda connection: connection.execute(noted))

    async def _forget_repeats(self, now: float) -> None:
        old = delete(idempotency).where(idempotency.c.created_at <= now - REPEAT_SECONDS)
        await self._database.write(lambda connection: connection.execute(old))

    async def _sweep_orphans(self, now: float, prefix: str = "") -> int:
        """Files whose job or upload is gone, and results of attempts that lost their claim."""
        swept = 0
        # The files first, the rows after: a row that is there by then keeps its files.
        async for page in self._blobs.pages(prefix):
            settled = [blob for blob in page if blob.touched_at < now - _ORPHAN_SECONDS]
            for key in await self._orphans(settled):
                await self._blobs.delete(key)
                swept += 1
        return swept

    async def _orphans(self, settled: Iterable[Stored]) -> list[str]:
        by_owner: defaultdict[str, dict[str, list[str]]] = defaultdict(dict)
        for blob in settled:
            kind, owner = _owner(blob)
            by_owner[kind].setdefault(owner, []).append(blob.key)
        return [
            *(key for keys in by_owner["probe"].values() for key in keys),
            *await self._without_row(by_owner["inputs"], jobs),
            *await self._without_row(by_owner["pyramids"], jobs),
            *await self._without_row(by_owner["checkpoints"], jobs, jobs.c.state.in_(UNFINISHED)),
            *await self._without_row(by_owner["uploads"], uploads),
            *await self._not_results(by_owner["outputs"]),
        ]

    async def _without_row(
        self, owned: dict[str, list[str]], table: Table, *conditions: ColumnElement[bool]
    ) -> list[str]:
        orphans: list[str] = []
        for ids in _batches(owned):
            query = select(table.c.id).where(table.c.id.in_(ids), *conditions)
            known = await self._database.read(
                lambda connection, query=query: set(connection.execute(query).scalars())
            )
            orphans += [key for owner in ids if owner not in known for key in owned[owner]]
        return orphans

    async def _not_results(self, owned: dict[str, list[str]]) -> list[str]:
        orphans: list[str] = []
        for ids in _batches(owned):
            query = select(jobs.c.id, jobs.c.state, jobs.c.outputs).where(jobs.c.id.in_(ids))
            found = await self._database.read(lambda connection, query=query: connection.execute(query).all())
            rows = {row.id: row for row in found}
            for owner in ids:
                row = rows.get(owner)
                # While the job goes on its newest result may be a moment away from being named.
                if row is None or State(row.state).is_terminal:
                    named = {output["blob_key"] for output in row.outputs} if row else set[str]()
                    orphans += [key for key in owned[owner] if key not in named]
        return orphans


def _owner(blob: Stored) -> tuple[str, str]:
    """Kind and id of what the blob belongs to."""
    kind, owner = blob.key.split("/")[:2]
    return kind, owner


def _batches(ids: Iterable[str]) -> Iterator[Collection[str]]:
    every = list(ids)
    for start in range(0, len(every), _BATCH):
        yield every[start : start + _BATCH]
