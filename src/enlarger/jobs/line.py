"""Line: how many jobs are before one, and when it will be done. An estimate, from a look about a second old."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from typing import NamedTuple

from enlarger.jobs.job import Job, State
from enlarger.jobs.rows import Waiting
from enlarger.jobs.store import Store

_FRESH_SECONDS = 1.0
_EARLY = 0.7
"""From this part of that age on a look is repeated while it still serves: nobody who asks often waits for one."""
_LOOKING_SHARE = 0.05
"""Of the time, that looks may take: where one takes long, it serves for longer. Of 50,000 jobs it takes 0.14 s."""


class Standing(NamedTuple):
    """Where an unfinished job stands; both None when it has ended."""

    position: int | None
    """0: in work; 1: next in line."""
    eta_seconds: float | None
    """Estimated seconds until it is done."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The line at one moment. Built for thousands of jobs of which few are asked for: see `standing`."""

    places: dict[str, int] = field(default_factory=dict[str, int])
    """Of every job, counted from 0, those in work first."""
    ends: list[float] = field(default_factory=list[float])
    """By place: seconds until the job is done."""
    in_work: int = 0
    seconds: float = 0.0
    """Until everybody in line is served."""

    @property
    def waiting(self) -> int:
        return len(self.ends) - self.in_work

    def standing(self, job_id: str) -> Standing | None:
        """Where a job of the line stands; None when it was not there."""
        place = self.places.get(job_id)
        return None if place is None else Standing(max(0, place + 1 - self.in_work), self.ends[place])


async def one_device() -> int:
    return 1


def seen(line: Sequence[Waiting], devices: int = 1) -> Seen:
    """What there is to see of jobs in the order of service, on so many devices. Those in work come first."""
    ends, free_at = list[float](), [0.0] * devices
    for _, _, remaining, stage in line:
        # The next one goes to the device that is free first.
        start = free_at[0]
        heapreplace(free_at, start + remaining)
        # While it waits for something else, others use the device: nobody is later for it but itself.
        ends.append(max(start, stage) + remaining)
    places = {job.id: place for place, job in enumerate(line)}
    return Seen(places, ends, sum(job.in_work for job in line), max(free_at))


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
        self._fresh_seconds = _FRESH_SECONDS
        self._looking: asyncio.Task[None] | None = None

    async def look(self) -> Seen:
        age = self._clock() - self._looked_at
        if not 0 <= age < _EARLY * self._fresh_seconds:
            # One look for all who ask meanwhile. A lock would let them go on one by one, at every turn of the loop.
            looking = self._looking = self._looking or asyncio.create_task(self._look(), name="line")
            if not 0 <= age < self._fresh_seconds:
                await asyncio.shield(looking)
        return self._seen

    async def _look(self) -> None:
        began = self._clock()
        try:
            line, devices = await self._store.line(), await self._devices()
            self._seen = await asyncio.to_thread(seen, line, devices)
            self._looked_at = self._clock()
            self._fresh_seconds = max(_FRESH_SECONDS, (self._looked_at - began) / _LOOKING_SHARE)
        finally:
            self._looking = None

    async def standing(self, job: Job) -> Standing:
        """Where the job stands now."""
        if job.state.is_terminal:
            return Standing(None, None)
        line = await self.look()
        found = line.standing(job.id)
        if found is None:  # younger than the look: behind everybody it saw, as far as one can tell
            found = Standing(line.waiting + 1, line.seconds + job.cost_seconds)
        return Standing(0, found.eta_seconds) if job.state is State.PROCESSING else found
