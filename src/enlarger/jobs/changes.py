"""Changes: who waits for news of a job in this process hears it at once. The store stays the truth.

A listener that falls behind loses tiles, never the news that something changed: listeners ask the store as well.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

_MOST_UNHEARD = 256


class Progress(Protocol):
    """One more tile is done. Pixels are those of the result."""

    @property
    def fraction(self) -> float: ...
    @property
    def left(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def total(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The row has changed; read it for what it says now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileDone:
    """A rectangle of the result is computed, `done` of `total`. All in pixels of the result."""

    left: int
    top: int
    width: int
    height: int
    done: int
    total: int
    fraction: float
    """Share of the computation that is done, 0 to 1."""


Change = StatusChanged | TileDone


class Changes:
    """Publish and subscribe by job id, within one event loop."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[asyncio.Queue[Change]]] = defaultdict(set)
        self.relay: Callable[[str, Change], None] | None = None
        """Called with all that is published here, to tell it elsewhere."""
        self.ending = False
        """Whether this process is about to end: it is not worth waiting any more."""

    def publish(self, job_id: str, change: Change) -> None:
        """Tell everybody who listens now, here and elsewhere; never waits."""
        self.tell(job_id, change)
        if self.relay is not None:
            self.relay(job_id, change)

    def tell(self, job_id: str, change: Change) -> None:
        """Tell who listens in this process."""
        for queue in self._listeners.get(job_id, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(change)

    def end(self) -> None:
        """Set `ending`, and make everybody who listens look up."""
        self.ending = True
        for job_id in self._listeners:
            self.tell(job_id, StatusChanged())

    @contextmanager
    def listening(self, job_id: str) -> Generator[asyncio.Queue[Change]]:
        """A queue of what happens to the job from now on; the oldest news make room for the newest."""
        queue: asyncio.Queue[Change] = asyncio.Queue(_MOST_UNHEARD)
        self._listeners[job_id].add(queue)
        try:
            yield queue
        finally:
            self._listeners[job_id].discard(queue)
            if not self._listeners[job_id]:
                del self._listeners[job_id]


def tile_done(progress: Progress) -> TileDone:
    """The news of a device as news of a job."""
    return TileDone(
        left=progress.left,
        top=progress.top,
        width=progress.width,
        height=progress.height,
        done=progress.done,
        total=progress.total,
        fraction=progress.fraction,
    )


async def next_change(changes: asyncio.Queue[Change], seconds: float) -> Change:
    """The next change; StatusChanged when none comes within `seconds`: time to ask the store."""
    try:
        async with asyncio.timeout(seconds):
            return await changes.get()
    except TimeoutError:
        return StatusChanged()


async def status_changed(changes: asyncio.Queue[Change], seconds: float) -> None:
    """Wait until the row may have changed, but no longer than `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not isinstance(await next_change(changes, deadline - loop.time()), StatusChanged):
        pass
