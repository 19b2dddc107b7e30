"""Worker: claims jobs and brings them to their end, several at once; `attempt` has the steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from structlog.contextvars import bound_contextvars

from enlarger.errors import DeviceCrashed, EnlargerError, Overloaded, StorageFull
from enlarger.jobs.attempt import Attempt, Means, Overtaken
from enlarger.jobs.blobs import check_free_space
from enlarger.jobs.changes import StatusChanged
from enlarger.jobs.job import MAX_COMPUTE_STARTS, Job
from enlarger.jobs.queue import MOST_ASIDE, SLOTS, Entry, HandBack

logger = logging.getLogger(__name__)

RECONCILE_SECONDS = 30.0
"""Between two looks for entries that the queue has lost."""


class Worker:
    """Runs the jobs of a store on its devices; the pictures of the next ones are made ready meanwhile.

    lost: the entries that the queue should have and may not, at most so many; all of them for None.
    """

    def __init__(
        self, means: Means, lost: Callable[[int | None], Awaitable[list[Entry]]] | None = None
    ) -> None:
        self._means = means
        self._store = means.store
        self._queue = means.queue
        self._lost = lost or self._every_unfinished
        self.routes = means.routes

    async def run(self) -> None:
        """Work until `stop`; meanwhile queue every unfinished job that has no entry, now and ever again."""
        reconciling = asyncio.create_task(self._keep_reconciling(), name="reconciler")
        try:
            await self._queue.run(self.run_job, [str(route) for route in self.routes])
        finally:
            reconciling.cancel()
            await asyncio.wait([reconciling])

    async def stop(self) -> None:
        """Start nothing more; jobs that do not end within `drain_seconds` are handed back to the queue."""
        await self._queue.stop(self._means.settings.drain_seconds)

    async def reconcile(self, at_most: int | None = None) -> None:
        """Queue what the queue has lost: after a crash the rows are all that is left."""
        await self._queue.enqueue(await self._lost(at_most))

    async def run_job(self, entry: Entry) -> None:
        """Bring the job that the entry is for to its end, or to where the claim is lost.

        A ticket is good for any job of its route: the store chooses the one whose turn it is. Raises HandBack when
        another worker had better take it, else only when the store fails.
        """
        while (job := await self._store.claim(entry, self._means.clock())) is not None:
            self._tell(job)
            try:
                with bound_contextvars(job_id=job.id):
                    again = await self._ended(job)
            finally:
                self._tell(job)
            if not again:
                return

    async def _ended(self, job: Job) -> bool:
        """One attempt; whether the job wants another."""
        if job.compute_starts >= MAX_COMPUTE_STARTS:
            await self._fail(job, DeviceCrashed.code, _gave_up(job))
            return False
        try:
            await Attempt(job, self._means).run()
        except DeviceCrashed:
            logger.warning("The device crashed on job %s, epoch %d; claiming it again", job.id, job.epoch)
            return True
        except Overtaken:
            logger.info("The claim on job %s, epoch %d, is lost or let go", job.id, job.epoch)
        except HandBack:
            await self._store.let_go(job)
            raise
        except StorageFull as error:
            await self._fail_if_too_large(job, error)
        except Overloaded:
            raise  # the database or the store is away and the job not at fault: it is handed out again
        except EnlargerError as error:
            await self._fail(job, error.code, error.message)
        except Exception:
            logger.exception("Job %s failed", job.id)
            await self._fail(job, EnlargerError.code, "The server failed on this picture; its log says how")
        return False

    async def _fail(self, job: Job, code: str, message: str) -> None:
        logger.info("Job %s fails: %s: %s", job.id, code, message)
        await self._store.fail(job, code, message, self._means.clock())

    async def _fail_if_too_large(self, job: Job, error: StorageFull) -> None:
        """Raises StorageFull when the disk is full without the job as well: that is not its fault, and passes."""
        await check_free_space(self._means.blobs, 0, self._means.settings.min_free_bytes)
        await self._fail(job, error.code, error.message)

    def _tell(self, job: Job) -> None:
        self._means.changes.publish(job.id, StatusChanged())

    async def _every_unfinished(self, at_most: int | None) -> list[Entry]:
        return (await self._store.unfinished())[:at_most]

    async def _keep_reconciling(self) -> None:
        """Wake the queue now and then: a submit may die between its row and its queue entry."""
        at_most = None
        while True:
            try:
                await self.reconcile(at_most)
                # Any ticket draws the next job; as many as can be in hand keep all slots busy.
                at_most = SLOTS + MOST_ASIDE
            except Exception:
                logger.exception("The store cannot be read; trying again in %g s", RECONCILE_SECONDS)
            await asyncio.sleep(RECONCILE_SECONDS)


def _gave_up(job: Job) -> str:
    return f"The device crashed, or the server died, in each of {job.compute_starts} attempts at this picture"
