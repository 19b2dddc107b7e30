"""Line: how many jobs are before one, and when it will be done. An estimate, from a look at most a second old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from enlarger.jobs.job import Job, State
from enlarger.jobs.rows import Waiting
from enlarger.jobs.store import Store

_FRESH_SECONDS = 1.0
_EARLY_SECONDS = 0.7
"""From this age on a look is repeated while it still serves. In a long line, nobody who asks often waits for one."""


class Standing(NamedTuple):
    """Where an unfinished job stands; both None when it has ended."""

    position: int | None
    """0: in work; 1: next in line."""
    eta_seconds: float | None
    """Estimated seconds until it is done."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The line at one moment: for every job its Standing, and what a new job would find."""

    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])
    waiting: int = 0
    seconds: float = 0.0
    """Until everybody in line is served."""


async def one_device() -> int:
    return 1


def seen(line: Iterable[Waiting], devices: int = 1) -> Seen:
    """The standings of jobs in the order of service, on so many devices. Those in work come first."""
    standings: dict[str, Standing] = {}
    position, seconds, free_at = 0, 0.0, [0.0] * devices
    for job in line:
        position += not job.in_work
        # The next one goes to the device that is free first.
        start = heappop(free_at)
        # While it waits for something else, others use the device: nobody is later for it but itself.
        own = max(start, job.stage_seconds) + job.remaining_seconds
        heappush(free_at, start + job.remaining_seconds)
        seconds = max(free_at)
        standings[job.id] = Standing(0 if job.in_work else position, own)
    return Seen(standings, position, seconds)


class Line:
    """The line, looked at about once a second however many ask: a poll stays one query. clock: seconds."""

    def __init__(
        self, store: Store, clock: Callable[[], float], devices: Callable[[], Awaitable[int]] = one_device
    ) -> None:
        self._store = store
        self._devices = devices
        self._clock = clock
        self._seen = Seen()
        self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> Seen:
        age = self._clock() - self._looked_at
        if not 0 <= age < _EARLY_SECONDS:
            # One look for all who ask meanwhile. A lock would let them go on one by one, at every turn of the loop.
            looking = self._looking = self._looking or asyncio.create_task(self._look(), name="line")
            if not 0 <= age < _FRESH_SECONDS:
                await asyncio.shield(looking)
        return self._seen

    async def _look(self) -> None:
        try:
            self._seen = seen(await self._store.line(), await self._devices())
            self._looked_at = self._clock()
        finally:
            self._looking = None

    async def standing(self, job: Job) -> Standing:
        """Where the job stands now."""
        if job.state.is_terminal:
            return Standing(None, None)
        line = await self.look()
        found = line.standings.get(job.id)
        if found is None:  # younger than the look: behind everybody it saw, as far as one can tell
            found = Standing(line.waiting + 1, line.seconds + job.cost_seconds)
        return Standing(0, found.eta_seconds) if job.state is State.PROCESSING else found
