"""Worker: claim → fetch → compute → store → finish. Everything it knows of a job between two steps is in the row."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from enlarger.engine.options import Options
from enlarger.errors import DeviceCrashed, EnlargerError, TimedOut
from enlarger.jobs import guard
from enlarger.jobs.blobs import Blobs
from enlarger.jobs.job import EXTENSIONS, MAX_COMPUTE_STARTS, Job, Output
from enlarger.jobs.queue import Queue
from enlarger.jobs.store import Store
from enlarger.settings import Settings

logger = logging.getLogger(__name__)


class Computed(Protocol):
    """What became of one picture. `report` can be written as JSON and has `timings_ms["network"]`."""

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
        self, source: Path, target: Path, options: Options, on_progress: Callable[[float], None]
    ) -> Computed:
        """Read the picture `source`, write the result to `target`, complete and closed on return.

        Raises EnlargerError; DeviceCrashed when it is worth another attempt. Cancelling the call ends the work.
        """
        ...


class _Overtaken(Exception):
    """A newer claim holds the job: this one has nothing left to do."""


class Worker:
    """Runs the jobs of a queue on one device, one at a time; pictures of the next jobs are fetched meanwhile.

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
        resolver: guard.Resolver = guard.system_resolver,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._queue = queue
        self._compute = compute
        self._settings = settings
        self._clock = clock
        self._resolver = resolver
        self._device = asyncio.Lock()

    async def run(self) -> None:
        """Queue every unfinished job of the store, then work until `stop`."""
        await self.reconcile()
        await self._queue.run(self.run_job)

    async def stop(self) -> None:
        """Start nothing more; jobs that do not end within `drain_seconds` wait in the store for the next start."""
        await self._queue.stop(self._settings.drain_seconds)

    async def reconcile(self) -> None:
        """Queue every unfinished job: after a crash the rows are all that is left."""
        for job_id in await self._store.unfinished():
            await self._queue.enqueue(job_id)

    async def run_job(self, job_id: str) -> None:
        """Bring one job to an end, or to where another claim has taken it over. Raises only when the store fails."""
        while (job := await self._store.claim(job_id, self._clock())) is not None:
            if job.compute_starts >= MAX_COMPUTE_STARTS:
                await self._fail(job, DeviceCrashed.code, _gave_up(job))
                return
            try:
                await self._attempt(job)
            except DeviceCrashed:
                logger.warning("The device crashed on job %s, epoch %d; claiming it again", job.id, job.epoch)
                continue
            except _Overtaken:
                logger.info("Job %s has a newer claim than epoch %d", job.id, job.epoch)
            except EnlargerError as error:
                await self._fail(job, error.code, error.message)
            except Exception:
                logger.exception("Job %s failed", job.id)
                await self._fail(
                    job, EnlargerError.code, "The server failed on this picture; its log says how"
                )
            return

    async def _attempt(self, job: Job) -> None:
        source_blob = job.source_blob or await self._fetch(job)
        async with self._blobs.scratch() as folder, self._blobs.local(source_blob) as source:
            target = folder / "result"
            async with self._device:
                computed = await self._run_on_device(job, source, target)
            await self._finish(job, computed, target)

    async def _fetch(self, job: Job) -> str:
        """Download the picture of a job into its blob; the blob's key."""
        key = f"inputs/{job.id}"
        async with self._blobs.scratch() as folder:
            path = folder / "source"
            await guard.fetch(job.source_url, path, _limits(self._settings), self._resolver)
            await self._blobs.put_file(key, path)
        _go_on(await self._store.set_source_blob(job, key))
        return key

    async def _run_on_device(self, job: Job, source: Path, target: Path) -> Computed:
        _go_on(await self._store.start_compute(job) > 0)
        limit = self._settings.max_job_seconds
        deadline = asyncio.timeout(limit)
        try:
            async with deadline:
                return await self._compute.upscale(source, target, Options.parse(job.options), _unheard)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimedOut(
                f"The picture took longer to compute than max_job_seconds ({limit:g} s)"
            ) from error

    async def _finish(self, job: Job, computed: Computed, target: Path) -> None:
        output = Output(
            blob_key=f"outputs/{job.id}/{job.epoch}/1.{EXTENSIONS[computed.media_type]}",
            media_type=computed.media_type,
            width=computed.width,
            height=computed.height,
            bytes=target.stat().st_size,
            sha256=await asyncio.to_thread(_sha256, target),
        )
        await self._blobs.put_file(output.blob_key, target)
        network_ms = round(computed.report["timings_ms"]["network"])
        if not await self._store.finish(job, (output,), computed.report, network_ms, self._clock()):
            await self._blobs.delete(output.blob_key)
            raise _Overtaken

    async def _fail(self, job: Job, code: str, message: str) -> None:
        logger.info("Job %s fails: %s: %s", job.id, code, message)
        await self._store.fail(job, code, message, self._clock())


def _go_on(still_ours: bool) -> None:
    if not still_ours:
        raise _Overtaken


def _unheard(_fraction: float) -> None:
    """Progress has no listener in the service: a poll shows the state only."""


def _gave_up(job: Job) -> str:
    return f"The device crashed, or the server died, in each of {job.compute_starts} attempts at this picture"


def _limits(settings: Settings) -> guard.Limits:
    return guard.Limits(
        max_bytes=settings.max_input_bytes,
        total_seconds=settings.fetch_seconds,
        allow_private_networks=settings.allow_private_networks,
        allow_ports=settings.allow_ports,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
