"""Devices: those of one worker. Each computes one picture at a time; the next one is made ready meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from enlarger.engine.options import Options
from enlarger.jobs.changes import Progress
from enlarger.jobs.queue import HandBack

PATIENCE_SECONDS = 5.0
"""How long a job waits for its device before it is asked whether another one is idle."""


class Ready(Protocol):
    """A picture that is decoded and planned: all that is left is to compute it."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that determines the bytes of the result."""
        ...

    @property
    def megapixels(self) -> float:
        """Of the picture, all its frames."""
        ...


class Computed(Protocol):
    """What became of one picture. `report` can be written as JSON and has `timings_ms`, by the name of the step."""

    @property
    def media_type(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def report(self) -> Mapping[str, Any]: ...


class Compute(Protocol):
    """A device. Its three steps may be under way at once, each for another picture.

    All raise EnlargerError; DeviceCrashed when it is worth another attempt. Cancelling a call ends its work within
    one tile.
    """

    def prepared(self, source: Path, folder: Path, options: Options) -> AbstractAsyncContextManager[Ready]:
        """Decode the picture `source`, with `folder` for what does not fit into memory; forgotten at the exit."""
        ...

    async def compute(
        self, ready: Any, /, on_progress: Callable[[Progress], None], bands: Path | None = None
    ) -> None:
        """Run the networks; one picture at a time. Calls `on_progress` after each tile.

        bands: a folder of finished bands, read at the start and written to meanwhile, so that another run goes on.
        """
        ...

    async def encode(self, ready: Any, /, target: Path) -> Computed:
        """Write the result to `target`, complete and closed on return."""
        ...


@dataclass(eq=False)
class Device:
    """One device of a worker and what it has to do. Times are seconds of the monotonic clock."""

    name: str
    compute: Compute
    jobs: int = 0
    """Assigned to it, the one that computes included."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    busy_seconds: float = 0.0
    waited_seconds: float = 0.0
    """Time in which it had a job and did not compute: the gap between one and the next."""
    free_since: float | None = None
    """When it last let go of a job while it had another; None while it computes or has none."""


class Devices:
    """The devices of a worker. `idle_elsewhere`: whether another worker waits for a job of a route."""

    def __init__(self, computes: Mapping[str, Compute]) -> None:
        self.all: Sequence[Device] = [Device(name, compute) for name, compute in computes.items()]

    @property
    def idle(self) -> int:
        """How many have nothing to do."""
        return sum(not device.jobs for device in self.all)

    @asynccontextmanager
    async def assigned(self) -> AsyncGenerator[Device]:
        """The device that has least to do, for one job, until the exit."""
        device = min(self.all, key=lambda device: device.jobs)
        device.jobs += 1
        try:
            yield device
        finally:
            device.jobs -= 1
            if not device.jobs:
                device.free_since = None

    @asynccontextmanager
    async def turn(
        self, device: Device, is_idle_elsewhere: Callable[[], Awaitable[bool]]
    ) -> AsyncGenerator[None]:
        """The device for itself, as soon as it is this job's turn; raises HandBack when another would have it now."""
        taking = asyncio.create_task(device.turn.acquire())
        try:
            while not (await asyncio.wait([taking], timeout=PATIENCE_SECONDS))[0]:
                if self.idle or await is_idle_elsewhere():
                    raise HandBack
        except BaseException:
            if not taking.cancel() and taking.result():
                device.turn.release()
            raise
        began = time.monotonic()
        if device.free_since is not None:
            device.waited_seconds += began - device.free_since
            device.free_since = None
        try:
            yield
        finally:
            device.turn.release()
            now = time.monotonic()
            device.busy_seconds += now - began
            device.free_since = now if device.jobs > 1 else None
