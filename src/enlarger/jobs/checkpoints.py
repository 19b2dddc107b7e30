"""Checkpoints: the finished bands of a large picture, kept in the store so that another worker goes on with them."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from enlarger.errors import NotFound, StorageUnavailable
from enlarger.jobs.blobs import Blobs
from enlarger.jobs.job import Job

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_PATTERN = "*.band"


def prefix_of(job_id: str) -> str:
    """Of the keys of a job's bands."""
    return f"checkpoints/{job_id}"


@asynccontextmanager
async def checkpoints(blobs: Blobs, job: Job, folder: Path) -> AsyncGenerator[Path]:
    """A folder for the bands of a run: those of earlier attempts are in it, new ones are stored as they come.

    What cannot be read or stored is computed again, should it come to that: a store that is away stops nobody.
    """
    folder.mkdir()
    if job.compute_starts:
        await _restore(blobs, job, folder)
    storing = asyncio.create_task(_keep_storing(blobs, job, folder, {path.name for path in folder.iterdir()}))
    try:
        yield folder
    finally:
        storing.cancel()
        await asyncio.wait([storing])


async def forget(blobs: Blobs, job_id: str) -> None:
    """Remove the bands of a job that has ended."""
    try:
        await blobs.delete_below(prefix_of(job_id))
    except StorageUnavailable as error:
        logger.warning("The bands of job %s stay until the next sweep: %s", job_id, error)


async def _restore(blobs: Blobs, job: Job, folder: Path) -> None:
    try:
        async for page in blobs.pages(prefix_of(job.id)):
            for stored in page:
                async with blobs.local(stored.key) as path:
                    await asyncio.to_thread(shutil.copyfile, path, folder / stored.key.rpartition("/")[2])
    except (NotFound, StorageUnavailable) as error:
        logger.warning("Not all bands of job %s can be had again: %s", job.id, error)


async def _keep_storing(blobs: Blobs, job: Job, folder: Path, known: set[str]) -> None:
    while True:
        for path in sorted(folder.glob(_PATTERN)):
            if path.name not in known:
                await _store(blobs, job, path)
                known.add(path.name)
        await asyncio.sleep(_LOOK_SECONDS)


async def _store(blobs: Blobs, job: Job, path: Path) -> None:
    try:
        # The run has what the band holds in memory: the file may go.
        await blobs.put_file(f"{prefix_of(job.id)}/{path.name}", path)
    except StorageUnavailable as error:
        logger.warning("The band %s of job %s is not stored: %s", path.name, job.id, error)
