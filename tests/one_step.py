"""Devices of the tests that do everything in one step, where the product's take three."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from enlarger.engine.options import Options
from enlarger.jobs.attempt import Means
from enlarger.jobs.blobs import Blobs
from enlarger.jobs.changes import Changes
from enlarger.jobs.devices import Devices
from enlarger.jobs.queue import Entry, Queue
from enlarger.jobs.routes import served
from enlarger.jobs.store import Store
from enlarger.jobs.weights import SharedDownloads
from enlarger.jobs.worker import Worker
from enlarger.settings import Settings


class OneStep(Protocol):
    async def upscale(
        self, source: Path, target: Path, options: Options, on_progress: Callable[[Any], None]
    ) -> Any: ...


@dataclass
class Ready:
    source: Path
    options: Options
    folder: Path
    fingerprint: str
    megapixels: float
    made: list[Any] = field(default_factory=list)


@dataclass
class InSteps:
    """The device, taken in the three steps of `Compute`: all its work is the second one."""

    device: OneStep
    megapixels: float = 0.001
    bands_seen: list[list[str]] = field(default_factory=list)
    """What the folder of bands held at the start of each run that had one."""

    @asynccontextmanager
    async def prepared(self, source: Path, folder: Path, options: Options) -> AsyncGenerator[Ready]:
        determined = source.read_bytes() + repr(astuple(options)).encode()
        yield Ready(source, options, folder, sha256(determined).hexdigest(), self.megapixels)

    async def compute(
        self, ready: Ready, on_progress: Callable[[Any], None], bands: Path | None = None
    ) -> None:
        if bands:
            self.bands_seen.append(sorted(path.name for path in bands.iterdir()))
        ready.made.append(
            await self.device.upscale(ready.source, ready.folder / "made", ready.options, on_progress)
        )

    async def encode(self, ready: Ready, target: Path) -> Any:
        (ready.folder / "made").rename(target)
        [made] = ready.made
        made.report["fingerprint"] = ready.fingerprint
        return made


def make_worker(
    *,
    store: Store,
    blobs: Blobs,
    queue: Queue,
    compute: Any,
    settings: Settings,
    clock: Callable[[], float],
    changes: Changes | None = None,
    weights: SharedDownloads | None = None,
    lost: Callable[[int | None], Awaitable[list[Entry]]] | None = None,
    **means: Any,
) -> Worker:
    """A worker with one device, or with those of the list `compute`, which ends what the queue of its store wakes."""
    store.queue = queue
    devices = compute if isinstance(compute, list) else [compute]
    return Worker(
        Means(
            store=store,
            blobs=blobs,
            queue=queue,
            devices=Devices({f"device {n}": one for n, one in enumerate(map(in_steps, devices))}),
            settings=settings,
            clock=clock,
            changes=changes or Changes(),
            weights=weights or SharedDownloads(None, settings),
            routes=served(["cpu"], settings.worker_pools, settings.worker_sizes),
            **means,
        ),
        lost,
    )


def in_steps(device: Any) -> Any:
    return device if hasattr(device, "prepared") else InSteps(device)
