"""Worker: claim → fetch → compute → store → finish. Everything it knows of a job between two steps is in the row.

Weights that are not on this machine are waited for between fetch and compute.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from structlog.contextvars import bound_contextvars

from enlarger.engine.options import Options
from enlarger.errors import DeviceCrashed, EnlargerError, Overloaded, StorageUnavailable, TimedOut
from enlarger.jobs import guard
from enlarger.jobs.blobs import Blobs, input_key
from enlarger.jobs.changes import Changes, Progress, StatusChanged, status_changed, tile_done
from enlarger.jobs.job import EXTENSIONS, MAX_COMPUTE_STARTS, Job, Output
from enlarger.jobs.moderation import refuse_nsfw
from enlarger.jobs.queue import MOST_ASIDE, SLOTS, Queue
from enlarger.jobs.sources import fetch_limits
from enlarger.jobs.store import Store
from enlarger.jobs.weights import SharedDownloads, Stage
from enlarger.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WATCH_SECONDS = 1.0
_RECONCILE_SECONDS = 30.0
_INFERENCE = ("network", "detect", "restore", "enlarge_faces")
"""Steps of `timings_ms` that are networks at work."""


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
    """A device that upscales one picture at a time."""

    async def upscale(
        self, source: Path, target: Path, options: Options, on_progress: Callable[[Progress], None]
    ) -> Computed:
        """Read the picture `source`, write the result to `target`, complete and closed on return.

        Calls `on_progress` after each tile. Raises EnlargerError; DeviceCrashed when it is worth another attempt.
        Cancelling the call ends the work within one tile.
        """
        ...


class _Overtaken(Exception):
    """The claim is lost, to a newer one or to the owner's cancel: there is nothing left to do."""


@dataclass
class _Course:
    """How far a computation is, and what the row says of it."""

    fraction: float = 0.0
    stage: Stage = field(default_factory=Stage)
    written: tuple[float, Stage] = (0.0, Stage())
    device_seconds: float = 0.0

    def wait_for(self, stage: Stage) -> None:
        self.stage = stage


class Worker:
    """Runs the jobs of a store on one device, one at a time; pictures of the next jobs are fetched meanwhile.

    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        store: Store,
        blobs: Blobs,
        queue: Queue,
        compute: Compute,
        settings: Settings,
        clock: Callable[[], float],
        changes: Changes | None = None,
        weights: SharedDownloads | None = None,
        resolver: guard.Resolver = guard.system_resolver,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._queue = queue
        self._compute = compute
        self._settings = settings
        self._clock = clock
        self._changes = changes or Changes()
        self._weights = weights or SharedDownloads(None, settings)
        self._resolver = resolver
        self._device = asyncio.Lock()
        self._spare_tickets = 0

    async def run(self) -> None:
        """Queue every unfinished job of the store, then work until `stop`."""
        await self.reconcile()
        reconciling = asyncio.create_task(self._keep_reconciling(), name="reconciler")
        try:
            await self._queue.run(self.run_job)
        finally:
            reconciling.cancel()
            await asyncio.wait([reconciling])

    async def stop(self) -> None:
        """Start nothing more; jobs that do not end within `drain_seconds` wait in the store for the next start."""
        await self._queue.stop(self._settings.drain_seconds)

    async def reconcile(self, at_most: int | None = None) -> None:
        """Queue the tickets of unfinished jobs: after a crash the rows are all that is left."""
        for ticket in (await self._store.unfinished())[:at_most]:
            await self._queue.enqueue(ticket)

    async def run_job(self, ticket: str) -> bool:
        """Bring the job that the ticket is for to its end, or to where the claim is lost.

        A ticket is good for any job: the store chooses the one whose turn it is. False: the ticket is spent; True: it
        may be used again, in place of one that came while every waiting job belonged to a key at its
        `max_concurrency`. Raises only when the store fails.
        """
        while (job := await self._store.claim(ticket, self._clock())) is not None:
            self._changes.publish(job.id, StatusChanged())
            try:
                with bound_contextvars(job_id=job.id):
                    again = await self._ended(job)
            finally:
                self._changes.publish(job.id, StatusChanged())
            if not again:
                return self._takes_spare_ticket()
        self._spare_tickets += 1
        return False

    def _takes_spare_ticket(self) -> bool:
        if not self._spare_tickets:
            return False
        self._spare_tickets -= 1
        return True

    async def _ended(self, job: Job) -> bool:
        """One attempt; whether the job wants another."""
        if job.compute_starts >= MAX_COMPUTE_STARTS:
            await self._fail(job, DeviceCrashed.code, _gave_up(job))
            return False
        try:
            await self._attempt(job)
        except DeviceCrashed:
            logger.warning("The device crashed on job %s, epoch %d; claiming it again", job.id, job.epoch)
            return True
        except _Overtaken:
            logger.info("The claim on job %s, epoch %d, is lost", job.id, job.epoch)
        except Overloaded:
            raise  # the database or the store is away and the job not at fault: it is handed out again
        except EnlargerError as error:
            await self._fail(job, error.code, error.message)
        except Exception:
            logger.exception("Job %s failed", job.id)
            await self._fail(job, EnlargerError.code, "The server failed on this picture; its log says how")
        return False

    async def _attempt(self, job: Job) -> None:
        course = _Course()
        missing = await self._weights.missing(Options.parse(job.options))
        source_blob = job.source_blob or await self._while_claimed(job, course, self._fetch(job))
        if missing:
            # The device and the slot are for jobs that have all they need.
            async with self._queue.aside():
                bringing = self._weights.bring(missing, course.wait_for)
                await self._while_claimed(job, course, bringing)
            course.stage = Stage()
        async with self._blobs.scratch() as folder:
            target = folder / "result"
            computing = self._computed(job, source_blob, target, course)
            computed = await self._while_claimed(job, course, computing)
            await self._finish(job, computed, target, course.device_seconds)

    async def _while_claimed(self, job: Job, course: _Course, work: Coroutine[None, None, T]) -> T:
        """What the work gives; it is cancelled, and _Overtaken raised, as soon as the claim is lost."""
        working = asyncio.create_task(work)
        watching = asyncio.create_task(self._watch(job, course))
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            watching.result()
            raise _Overtaken
        finally:
            working.cancel()
            watching.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    async def _watch(self, job: Job, course: _Course) -> None:
        """Write progress down once a second; returns when the claim is lost."""
        with self._changes.listening(job.id) as changes:
            while True:
                await status_changed(changes, _WATCH_SECONDS)
                latest = (course.fraction, course.stage)
                if latest == course.written:
                    claimed = await self._store.is_claimed(job)
                else:
                    course.written = latest
                    claimed = await self._store.set_progress(
                        job, course.fraction, course.stage.text, course.stage.seconds
                    )
                if not claimed:
                    return

    async def _computed(self, job: Job, source_blob: str, target: Path, course: _Course) -> Computed:
        async with self._blobs.local(source_blob) as source, self._device:
            started_at = time.monotonic()
            computed = await self._run_on_device(job, source, target, course)
            course.device_seconds = time.monotonic() - started_at
            return computed

    async def _fetch(self, job: Job) -> str:
        """Download the picture of a job into its blob; the blob's key."""
        async with self._blobs.scratch() as folder:
            path = folder / "source"
            await guard.fetch(job.source_url, path, fetch_limits(self._settings), self._resolver)
            key = input_key(job.id, await asyncio.to_thread(_sha256, path))
            await self._blobs.put_file(key, path)
        _go_on(await self._store.set_source_blob(job, key))
        return key

    async def _run_on_device(self, job: Job, source: Path, target: Path, course: _Course) -> Computed:
        _go_on(await self._store.start_compute(job) > 0)

        def on_progress(progress: Progress) -> None:
            course.fraction = progress.fraction
            self._changes.publish(job.id, tile_done(progress))

        limit = self._settings.max_job_seconds
        deadline = asyncio.timeout(limit)
        try:
            async with deadline:
                return await self._compute.upscale(source, target, Options.parse(job.options), on_progress)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimedOut(
                f"The picture took longer to compute than max_job_seconds ({limit:g} s)"
            ) from error

    async def _finish(self, job: Job, computed: Computed, target: Path, device_seconds: float) -> None:
        output = Output(
            blob_key=f"outputs/{job.id}/{job.epoch}/1.{EXTENSIONS[computed.media_type]}",
            media_type=computed.media_type,
            width=computed.width,
            height=computed.height,
            bytes=target.stat().st_size,
            sha256=await asyncio.to_thread(_sha256, target),
            nsfw_score=computed.report.get("nsfw_score"),
        )
        if self._settings.nsfw_refuse:
            refuse_nsfw((output,), self._settings.nsfw_threshold)
        await self._store_result(job, output.blob_key, target)
        compute_ms = _inference_ms(computed.report["timings_ms"])
        if not await self._store.finish(
            job, (output,), computed.report, compute_ms, self._clock(), device_seconds
        ):
            await self._blobs.delete(output.blob_key)
            raise _Overtaken

    async def _store_result(self, job: Job, key: str, path: Path) -> None:
        """Store the file as soon as the store of blobs takes it: it cost more than the wait."""
        while True:
            try:
                return await self._blobs.put_file(key, path)
            except StorageUnavailable as error:
                logger.warning("The result of job %s waits for the store: %s", job.id, error)
                await asyncio.sleep(error.retry_after_seconds)
            _go_on(await self._store.is_claimed(job))

    async def _fail(self, job: Job, code: str, message: str) -> None:
        logger.info("Job %s fails: %s: %s", job.id, code, message)
        await self._store.fail(job, code, message, self._clock())

    async def _keep_reconciling(self) -> None:
        """Wake the queue now and then: a submit may die between its row and its queue entry."""
        while True:
            await asyncio.sleep(_RECONCILE_SECONDS)
            try:
                # Any ticket draws the next job; as many as can be in hand keep all slots busy.
                await self.reconcile(at_most=SLOTS + MOST_ASIDE)
            except Exception:
                logger.exception("The store cannot be read; trying again in %g s", _RECONCILE_SECONDS)


def _inference_ms(timings_ms: Mapping[str, float]) -> int:
    """The time in networks. Not every picture runs through each: strength=0 leaves the upscaler out."""
    return round(sum(timings_ms.get(step, 0.0) for step in _INFERENCE))


def _go_on(still_ours: bool) -> None:
    if not still_ours:
        raise _Overtaken


def _gave_up(job: Job) -> str:
    return f"The device crashed, or the server died, in each of {job.compute_starts} attempts at this picture"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
