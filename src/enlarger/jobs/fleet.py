"""Fleet: the workers of a service on many machines, as they say of themselves in a row each every few seconds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import delete, select

from enlarger.errors import Overloaded
from enlarger.jobs.database import Database, inserts_or_updates
from enlarger.jobs.tables import workers

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
"""Between two words of a worker."""
SILENT_SECONDS = 3 * BEAT_SECONDS
"""After these it counts as gone. That says nothing of its jobs: those have a lease in the queue."""
_FORGOTTEN_SECONDS = 86_400.0
_KEEP = inserts_or_updates(
    workers, lambda latest: {name: latest[name] for name in ("routes", "devices", "idle", "seen_at")}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One worker. Times are Unix seconds."""

    id: str
    name: str
    """Host and process, for people."""
    version: str
    routes: tuple[str, ...]
    devices: int
    idle: int
    """Devices that have nothing to do."""
    started_at: float
    seen_at: float


class Fleet:
    """What all workers of a database say. clock: Unix seconds, the database's."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock

    async def members(self) -> list[Member]:
        """Those heard of lately, by name."""
        recent = select(workers).where(workers.c.seen_at > self._clock() - SILENT_SECONDS)
        rows = await self._database.read(
            lambda connection: list(connection.execute(recent.order_by(workers.c.name)).mappings())
        )
        return [_member(row) for row in rows]

    async def devices(self) -> int:
        """How many compute, at least 1."""
        return max(1, sum(member.devices for member in await self.members()))

    async def has_idle(self, route: str, besides: str) -> bool:
        """Whether a device of another worker than `besides` waits for a job of the route."""
        return any(
            member.idle and route in member.routes for member in await self.members() if member.id != besides
        )

    async def keep(self, member: Member) -> None:
        """Write down what a worker says."""
        row = asdict(member) | {"routes": list(member.routes)}
        statement = _KEEP[self._database.dialect]
        await self._database.write(lambda connection: connection.execute(statement, row))

    async def forget(self, member_id: str) -> None:
        """The worker leaves; and with it those that left without a word long ago."""
        silent = workers.c.seen_at < self._clock() - _FORGOTTEN_SECONDS
        gone = delete(workers).where((workers.c.id == member_id) | silent)
        await self._database.write(lambda connection: connection.execute(gone))


def _member(row: Mapping[Any, Any]) -> Member:
    values: dict[str, Any] = dict(row)
    values["routes"] = tuple(values["routes"])
    return Member(**values)


class Membership:
    """Keeps a worker's row up to date, from `run` until `stop`. idle: how many of its devices have nothing to do."""

    def __init__(
        self, fleet: Fleet, member: Member, idle: Callable[[], int], clock: Callable[[], float]
    ) -> None:
        self._fleet = fleet
        self._member = member
        self._idle = idle
        self._clock = clock
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Say it every BEAT_SECONDS; what goes wrong is logged and tried again the next time."""
        while not self._stopped.is_set():
            try:
                await self._fleet.keep(replace(self._member, idle=self._idle(), seen_at=self._clock()))
            except Overloaded as error:
                logger.warning("The other workers cannot be told of this one: %s", error)
            except Exception:
                logger.exception("The other workers cannot be told of this one")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), BEAT_SECONDS)
        with suppress(Exception):
            await self._fleet.forget(self._member.id)

    async def stop(self) -> None:
        """`run` takes leave and returns."""
        self._stopped.set()
