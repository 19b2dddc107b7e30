"""Who sweeps what many servers share. That a sweep removes what it should is in tests/jobs/test_retention.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Job, State
from enlarger.jobs.retention import Retention
from enlarger.jobs.store import Store
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio

SOON_SECONDS = 20


async def swept_once(retention: Retention) -> None:
    """One round of its loop: `stop` lets the sweep under way end."""
    running = asyncio.create_task(retention.run())
    await asyncio.sleep(0)
    await retention.stop()
    await asyncio.wait_for(running, SOON_SECONDS)


@pytest.mark.parametrize("settings", ["postgresql"], indirect=True)  # SQLite has one server
async def test_one_server_sweeps_at_a_time_and_another_when_that_one_is_gone(
    store: Store, settings: Settings, clock: Any, new_job: Callable[..., Job], tmp_path: Path
) -> None:
    def server(holder: str) -> Retention:
        blobs = LocalBlobs(tmp_path / holder)
        return Retention(database=store.database, blobs=blobs, settings=settings, clock=clock, holder=holder)

    async def add_expired() -> Job:
        job = new_job(state=State.COMPLETED, finished_at=clock.now - 86_400 * 400)
        await store.add(job)
        return job

    async def is_there(job: Job) -> bool:
        return await store.get(job.id) is not None

    first = await add_expired()
    await swept_once(server("a"))
    second = await add_expired()
    await swept_once(server("b"))
    assert (await is_there(first), await is_there(second)) == (False, True)
    clock.now += settings.sweep_seconds + 1
    await swept_once(server("b"))
    assert not await is_there(second)


async def test_every_server_sweeps_the_pictures_on_its_own_disk(
    store: Store, settings: Settings, clock: Any, tmp_path: Path
) -> None:
    clock.now = 4e9  # long after the files of this test were made
    for holder in ("a", "b"):
        blobs = LocalBlobs(tmp_path / holder)
        await blobs.put("pyramids/gone/input.tif", b"zoom")
        await swept_once(
            Retention(database=store.database, blobs=blobs, settings=settings, clock=clock, holder=holder)
        )
        assert [blob async for page in blobs.pages("pyramids") for blob in page] == []
