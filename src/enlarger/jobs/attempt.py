"""Attempt: one claim of a job, step by step. Everything it knows of a job between two steps is in the row.

fetch ─▶ wait for weights ─▶ prepare ─▶ had before? ─▶ compute ─▶ encode ─▶ store ─▶ finish
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from enlarger.engine.options import Options
from enlarger.errors import NotFound, Overloaded, StorageUnavailable, TimedOut
from enlarger.jobs import guard
from enlarger.jobs.blobs import Blobs, input_key
from enlarger.jobs.changes import Changes, Progress, status_changed, tile_done
from enlarger.jobs.checkpoints import checkpoints, forget
from enlarger.jobs.devices import Computed, Device, Devices, Ready
from enlarger.jobs.history import DAY_SECONDS
from enlarger.jobs.job import EXTENSIONS, Job, Output
from enlarger.jobs.moderation import refuse_nsfw
from enlarger.jobs.queue import Queue
from enlarger.jobs.routes import PictureSize, Route
from enlarger.jobs.sources import fetch_limits
from enlarger.jobs.store import Store
from enlarger.jobs.weights import SharedDownloads, Stage
from enlarger.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WATCH_SECONDS = 1.0
_INFERENCE = ("network", "detect", "restore", "enlarge_faces")
"""Steps of `timings_ms` that are networks at work."""


class Overtaken(Exception):
    """The claim is lost, to a newer one or to the owner's cancel, or was let go: there is nothing left to do."""


async def _nowhere(_route: str) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What attempts work with. clock: Unix seconds.

    routes: those this worker serves. is_idle_elsewhere: whether another worker waits for a job of a route.
    """

    store: Store
    blobs: Blobs
    queue: Queue
    devices: Devices
    settings: Settings
    clock: Callable[[], float]
    changes: Changes
    weights: SharedDownloads
    routes: tuple[Route, ...]
    resolver: guard.Resolver = guard.system_resolver
    is_idle_elsewhere: Callable[[str], Awaitable[bool]] = _nowhere


@dataclass
class _Course:
    """How far a computation is, and what the row says of it."""

    fraction: float = 0.0
    stage: Stage = field(default_factory=Stage)
    written: tuple[float, Stage] = (0.0, Stage())
    device_seconds: float = 0.0

    def wait_for(self, stage: Stage) -> None:
        self.stage = stage


class Attempt:
    """One attempt at a claimed job."""

    def __init__(self, job: Job, means: Means) -> None:
        self._job = job
        self._means = means
        self._options = Options.parse(job.options)
        self._course = _Course()

    async def run(self) -> None:
        """To the end of the job, or to where the claim is lost.

        Raises Overtaken, HandBack when the job had better run elsewhere, DeviceCrashed when another attempt is worth
        it, Overloaded when database or store are away, and the errors that end the job.
        """
        job, means = self._job, self._means
        missing = await means.weights.missing(self._options)
        source_blob = job.source_blob or await self._while_claimed(self._fetch())
        if missing:
            # The device and the slot are for jobs that have all they need.
            async with means.queue.aside():
                await self._while_claimed(means.weights.bring(missing, self._course.wait_for))
            self._course.stage = Stage()
        async with means.blobs.scratch() as folder:
            await self._while_claimed(self._computed(source_blob, folder))

    async def _while_claimed(self, work: Coroutine[None, None, T]) -> T:
        """What the work gives; it is cancelled, and Overtaken raised, as soon as the claim is lost."""
        working = asyncio.create_task(work)
        watching = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            watching.result()
            raise Overtaken
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Write progress down once a second; returns when the claim is lost."""
        job, course, store = self._job, self._course, self._means.store
        with self._means.changes.listening(job.id) as changes:
            while True:
                await status_changed(changes, _WATCH_SECONDS)
                latest = (course.fraction, course.stage)
                try:
                    if latest == course.written:
                        claimed = await store.is_claimed(job)
                    else:
                        claimed = await store.set_progress(
                            job, course.fraction, course.stage.text, course.stage.seconds
                        )
                        course.written = latest
                except Overloaded:
                    continue  # the database is away: it will say when it is back
                if not claimed:
                    return

    async def _fetch(self) -> str:
        """Download the picture of the job into its blob; the blob's key."""
        job, means = self._job, self._means
        async with means.blobs.scratch() as folder:
            path = folder / "source"
            await guard.fetch(job.source_url, path, fetch_limits(means.settings), means.resolver)
            key = input_key(job.id, await asyncio.to_thread(_sha256, path))
            await means.blobs.put_file(key, path)
        _go_on(await means.store.set_source_blob(job, key))
        return key

    async def _computed(self, source_blob: str, folder: Path) -> None:
        means = self._means
        async with means.blobs.local(source_blob) as source, means.devices.assigned() as device:
            decoded = folder / "decoded"
            decoded.mkdir()
            async with device.compute.prepared(source, decoded, self._options) as ready:
                await self._check_route(ready)
                if await self._had_before(ready):
                    return
                async with self._bands(ready, folder / "bands") as bands:
                    await self._run_on_device(device, ready, bands)
                target = folder / "result"
                computed = await device.compute.encode(ready, target)
                await self._finish(computed, target)
                if bands is not None:
                    await forget(means.blobs, self._job.id)

    async def _check_route(self, ready: Ready) -> None:
        """Hand a large picture on to a worker that takes such, if this one does not."""
        job, means = self._job, self._means
        route = Route.parse(job.route)
        if ready.megapixels < means.settings.large_megapixels or route.size is PictureSize.LARGE:
            return
        larger = replace(route, size=PictureSize.LARGE)
        if larger not in means.routes:
            logger.info("Job %s of %.1f megapixels goes to the route %s", job.id, ready.megapixels, larger)
            await means.store.let_go(job, str(larger))
            raise Overtaken

    async def _had_before(self, ready: Ready) -> bool:
        """Finish with the result that the key has of the same computation, if there is one."""
        job, means = self._job, self._means
        if not means.settings.reuse_results or not ready.fingerprint:
            return False
        oldest = means.clock() - means.settings.retention_days * DAY_SECONDS
        earlier = await means.store.result_like(job, ready.fingerprint, oldest)
        if earlier is None:
            return False
        [output] = earlier.outputs
        if means.settings.nsfw_refuse:
            refuse_nsfw((output,), means.settings.nsfw_threshold)
        key = f"outputs/{job.id}/{job.epoch}/{output.blob_key.rpartition('/')[2]}"
        try:
            await means.blobs.copy(output.blob_key, key)
        except NotFound:
            return False  # deleted just now
        report: dict[str, Any] = {**earlier.report, "timings_ms": {}, "reused_from": earlier.id}
        await self._end(replace(output, blob_key=key), report, ready.fingerprint, device_seconds=None)
        return True

    @asynccontextmanager
    async def _bands(self, ready: Ready, folder: Path) -> AsyncGenerator[Path | None]:
        """Where the run keeps its bands; None for a picture that is soon computed again."""
        limit = self._means.settings.checkpoint_megapixels
        if not limit or ready.megapixels < limit:
            yield None
            return
        async with checkpoints(self._means.blobs, self._job, folder) as bands:
            yield bands

    async def _run_on_device(self, device: Device, ready: Ready, bands: Path | None) -> None:
        job, means = self._job, self._means

        def on_progress(progress: Progress) -> None:
            self._course.fraction = progress.fraction
            means.changes.publish(job.id, tile_done(progress))

        limit = means.settings.max_job_seconds
        async with means.devices.turn(device, lambda: means.is_idle_elsewhere(job.route)):
            # Counted here and not before: who only waits shall not be taken for the cause of a crash.
            _go_on(await means.store.start_compute(job) > 0)
            started_at, deadline = time.monotonic(), asyncio.timeout(limit)
            try:
                async with deadline:
                    await device.compute.compute(ready, on_progress, bands)
            except TimeoutError as error:
                if not deadline.expired():
                    raise
                raise TimedOut(
                    f"The picture took longer to compute than max_job_seconds ({limit:g} s)"
                ) from error
            self._course.device_seconds = time.monotonic() - started_at

    async def _finish(self, computed: Computed, target: Path) -> None:
        job, means = self._job, self._means
        output = Output(
            blob_key=f"outputs/{job.id}/{job.epoch}/1.{EXTENSIONS[computed.media_type]}",
            media_type=computed.media_type,
            width=computed.width,
            height=computed.height,
            bytes=target.stat().st_size,
            sha256=await asyncio.to_thread(_sha256, target),
            nsfw_score=computed.report.get("nsfw_score"),
        )
        if means.settings.nsfw_refuse:
            refuse_nsfw((output,), means.settings.nsfw_threshold)
        await self._store_result(output.blob_key, target)
        # That of the report: what did not go as planned is not what this picture always gives.
        fingerprint: str = computed.report.get("fingerprint") or ""
        await self._end(output, computed.report, fingerprint, self._course.device_seconds)

    async def _end(
        self, output: Output, report: Mapping[str, Any], fingerprint: str, device_seconds: float | None
    ) -> None:
        """Record the result as soon as the database takes it: it cost more than the wait."""
        job, means = self._job, self._means
        compute_ms = _inference_ms(report["timings_ms"])
        while True:
            try:
                ended = await means.store.finish(
                    job, (output,), report, compute_ms, means.clock(), device_seconds, fingerprint
                )
                break
            except Overloaded as error:
                logger.warning("The result of job %s waits for the database: %s", job.id, error)
                await asyncio.sleep(error.retry_after_seconds)
        if not ended and not await self._is_recorded(output):
            await means.blobs.delete(output.blob_key)
            raise Overtaken

    async def _is_recorded(self, output: Output) -> bool:
        """Whether the row names the result: an earlier try was committed, but the answer was lost."""
        row = await self._means.store.get(self._job.id)
        return row is not None and output in row.outputs

    async def _store_result(self, key: str, path: Path) -> None:
        """Store the file as soon as the store of blobs takes it: it cost more than the wait."""
        job, means = self._job, self._means
        while True:
            try:
                return await means.blobs.put_file(key, path)
            except StorageUnavailable as error:
                logger.warning("The result of job %s waits for the store: %s", job.id, error)
                await asyncio.sleep(error.retry_after_seconds)
            with suppress(Overloaded):  # the network is cut: the database is away as well
                _go_on(await means.store.is_claimed(job))


def _inference_ms(timings_ms: Mapping[str, float]) -> int:
    """The time in networks. Not every picture runs through each: strength=0 leaves the upscaler out."""
    return round(sum(timings_ms.get(step, 0.0) for step in _INFERENCE))


def _go_on(still_ours: bool) -> None:
    if not still_ours:
        raise Overtaken


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
