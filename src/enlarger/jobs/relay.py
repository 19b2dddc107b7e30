"""Relay: carries news of jobs between the processes of a service, over NOTIFY of PostgreSQL.

Whoever waits for a job looks at its row once a second as well: a message that is lost makes nobody wait for ever.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from sqlalchemy import func, select

from enlarger.errors import Overloaded
from enlarger.jobs.changes import Change, Changes, StatusChanged, TileDone
from enlarger.jobs.database import Database

logger = logging.getLogger(__name__)

CHANGES = "enlarger_changes"
TILES = "enlarger_tiles"
"""Channels. Tiles are many, and of no use to workers, who listen for cancelled jobs."""
_TOGETHER_SECONDS = 0.1
"""News of this long go in one message: a fast device finishes hundreds of tiles a second."""
_MOST_BYTES = 7500
"""Of a message; PostgreSQL takes up to 8000."""
_MOST_UNSENT = 1000


class Ear(Protocol):
    """Hears a channel of the database."""

    async def add(self, channel: str, callback: Callable[[str | bytes | bytearray], None]) -> None: ...
    async def close(self) -> None: ...


class Relay:
    """Sends what `changes` tells in this process to the others, and tells here what they send.

    origin: unlike that of any other process. heard: called with the id of every job that changed elsewhere.
    hears_tiles: whether anybody here may wait for tiles.
    """

    def __init__(
        self,
        database: Database,
        ear: Ear,
        changes: Changes,
        *,
        origin: str,
        heard: Callable[[str], None] = lambda job_id: None,
        hears_tiles: bool = True,
    ) -> None:
        self._channels = (CHANGES, TILES) if hears_tiles else (CHANGES,)
        self._database = database
        self._ear = ear
        self._changes = changes
        self._origin = origin
        self._heard = heard
        self._unsent: list[list[Any]] = []
        self._woken = asyncio.Event()
        self._stopped = False

    async def run(self) -> None:
        """Carry news until `stop`."""
        for channel in self._channels:
            await self._ear.add(channel, self._receive)
        self._changes.relay = self._note
        try:
            while not self._stopped:
                await self._woken.wait()
                self._woken.clear()
                await self._send()
                await asyncio.sleep(_TOGETHER_SECONDS)
            await self._send()
        finally:
            self._changes.relay = None
            await self._ear.close()

    async def stop(self) -> None:
        """`run` sends what is left and returns."""
        self._stopped = True
        self._woken.set()

    def _note(self, job_id: str, change: Change) -> None:
        tile = list(asdict(change).values()) if isinstance(change, TileDone) else None
        if len(self._unsent) < _MOST_UNSENT:
            self._unsent.append([job_id, tile])
        self._woken.set()

    async def _send(self) -> None:
        news, self._unsent = self._unsent, []
        if not news:
            return
        # Tiles first: with the news that a job has ended nobody waits for them any more.
        parts = {TILES: [one for one in news if one[1]], CHANGES: [one for one in news if not one[1]]}
        messages = [(name, text) for name, part in parts.items() for text in packed(self._origin, part)]
        sent = select(*(func.pg_notify(name, text) for name, text in messages))
        try:
            await self._database.read(lambda connection: connection.execute(sent).all())
        except Overloaded as error:
            logger.warning("News of %d jobs stay here: %s", len(news), error)

    def _receive(self, payload: str | bytes | bytearray) -> None:
        message = json.loads(payload)
        if message["from"] == self._origin:
            return
        for job_id, tile in message["news"]:
            self._changes.tell(job_id, StatusChanged() if tile is None else TileDone(**_named(tile)))
            if tile is None:
                self._heard(job_id)


def packed(origin: str, news: Sequence[list[Any]]) -> list[str]:
    """Messages that hold the news, each small enough to be sent."""
    if not news:
        return []
    message = json.dumps({"from": origin, "news": news}, separators=(",", ":"))
    if len(message.encode()) <= _MOST_BYTES or len(news) == 1:
        return [message]
    half = len(news) // 2
    return packed(origin, news[:half]) + packed(origin, news[half:])


def _named(values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(TileDone.__dataclass_fields__, values, strict=True))
