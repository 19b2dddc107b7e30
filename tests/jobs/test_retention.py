from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert, select

from enlarger.errors import NotFound
from enlarger.jobs.blobs import LocalBlobs, input_key
from enlarger.jobs.job import Job, Key, Output, State
from enlarger.jobs.presigned import Presigned, Signer
from enlarger.jobs.retention import Retention, Swept
from enlarger.jobs.rows import columns_of_job
from enlarger.jobs.s3_blobs import Bucket, S3Blobs
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.tables import jobs, uploads
from enlarger.jobs.uploads import Uploads
from enlarger.settings import Settings

from ..services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3

pytestmark = pytest.mark.anyio

DAY = 86_400


@pytest.fixture
def retention(store: Store, blobs: LocalBlobs, settings: Settings, clock: Any) -> Retention:
    return Retention(database=store.database, blobs=blobs, settings=settings, clock=clock)


def stored(settings: Settings) -> set[str]:
    root = settings.data_dir / "blobs"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


async def ended(store: Store, blobs: LocalBlobs, job: Job, state: State, finished_at: float) -> str:
    """A job with picture and result; the key of its result."""
    key = f"outputs/{job.id}/1/1.png"
    output = Output(blob_key=key, media_type="image/png", width=1, height=1, bytes=1, sha256="")
    await store.add(replace(job, state=state, finished_at=finished_at, outputs=(output,)))
    await blobs.put(input_key(job.id), b"picture")
    await blobs.put(key, b"result")
    await blobs.put(f"pyramids/{job.id}/input.tif", b"the picture, larger and smaller")
    return key


async def test_ended_jobs_go_after_seven_days_with_their_files(
    retention: Retention,
    store: Store,
    blobs: LocalBlobs,
    settings: Settings,
    clock: Any,
    new_job: Callable[..., Job],
) -> None:
    old, young, endless = new_job(), new_job(), new_job(created_at=1.0)
    await ended(store, blobs, old, State.COMPLETED, clock.now - 7 * DAY - 1)
    kept = await ended(store, blobs, young, State.FAILED, clock.now - 7 * DAY + 1)
    await store.add(endless)
    await blobs.put(input_key(endless.id), b"picture")
    assert await retention.sweep() == Swept(jobs=1)
    assert await store.get(old.id) is None
    assert await store.get(young.id)
    assert await store.get(endless.id) == endless
    pyramid = f"pyramids/{young.id}/input.tif"
    assert stored(settings) == {input_key(young.id), kept, pyramid, input_key(endless.id)}
    assert await retention.sweep() == Swept()


async def test_uploads_go_after_seven_days_and_unused_tickets_when_they_expire(
    retention: Retention, service: Service, settings: Settings, key: Key, clock: Any
) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield b"cat"

    used = await service.create_upload(key, "a.png", 3, "")
    await service.receive_upload(used.token, stream())
    await service.create_upload(key, "b.png", 3, "")
    assert await retention.sweep() == Swept()
    clock.now += settings.upload_seconds
    assert await retention.sweep() == Swept(uploads=1)
    assert stored(settings) == {used.upload.blob_key}
    clock.now += 7 * DAY
    assert await retention.sweep() == Swept(uploads=1)
    assert stored(settings) == set()
    assert list((settings.data_dir / "blobs" / "uploads").iterdir()) == []


async def test_upload_whose_ticket_was_swept_meanwhile_leaves_nothing(
    retention: Retention, service: Service, settings: Settings, key: Key, clock: Any
) -> None:
    async def late() -> AsyncIterator[bytes]:
        yield b"c"
        clock.now += settings.upload_seconds
        await retention.sweep()
        yield b"at"

    ticket = await service.create_upload(key, "a.png", 3, "")
    with pytest.raises(NotFound, match="ask for a new one"):
        await service.receive_upload(ticket.token, late())
    assert stored(settings) == set()


async def test_files_without_a_row_go_after_an_hour(
    retention: Retention,
    store: Store,
    blobs: LocalBlobs,
    settings: Settings,
    clock: Any,
    new_job: Callable[..., Job],
) -> None:
    clock.now = time.time()
    job, going = new_job(), new_job(state=State.PROCESSING)
    kept = {await ended(store, blobs, job, State.COMPLETED, clock.now), input_key(job.id)}
    kept.add(f"pyramids/{job.id}/input.tif")
    await store.add(going)
    lost = {input_key("e" * 32), f"outputs/{'e' * 32}/1/1.png", f"uploads/{'e' * 32}/1.png"}
    lost.add(f"pyramids/{'e' * 32}/output-0.tif")
    beaten, pending = f"outputs/{job.id}/2/1.png", f"outputs/{going.id}/1/1.png"
    for key in (*lost, beaten, pending):
        await blobs.put(key, b"?")
    assert await retention.sweep() == Swept()
    clock.now += 3601
    assert await retention.sweep() == Swept(orphans=5)
    assert stored(settings) == kept | {pending}


async def test_pyramids_beyond_a_smaller_quota_go(
    store: Store, blobs: LocalBlobs, settings: Settings, clock: Any, new_job: Callable[..., Job]
) -> None:
    for job in (new_job(), new_job(), new_job()):
        await ended(store, blobs, job, State.COMPLETED, clock.now)
    [one, *_] = [blob async for page in blobs.pages("pyramids") for blob in page]
    smaller = settings.model_copy(update={"viewer_cache_bytes": 2 * one.bytes})
    retention = Retention(database=store.database, blobs=blobs, settings=smaller, clock=clock)
    assert await retention.sweep() == Swept()
    assert len([blob async for page in blobs.pages("pyramids") for blob in page]) == 2


async def test_copy_of_an_old_file_is_young(blobs: LocalBlobs, settings: Settings) -> None:
    """Its row may be a moment away: the sweep must not take the age of the bytes for the age of the name."""
    await blobs.put("uploads/1/1.png", b"old")
    os.utime(settings.data_dir / "blobs" / "uploads" / "1" / "1.png", (0, 0))
    before = time.time() - 1
    await blobs.copy("uploads/1/1.png", input_key("2"))
    [copy] = [blob async for page in blobs.pages() for blob in page if blob.key == input_key("2")]
    assert copy.touched_at > before


async def test_sweep_of_many_jobs_goes_by_batches(
    retention: Retention, store: Store, new_job: Callable[..., Job]
) -> None:
    rows = [columns_of_job(new_job(state=State.CANCELLED, finished_at=1.0)) for _ in range(510)]
    await store.database.write(lambda connection: connection.execute(insert(jobs), rows))
    assert await retention.sweep() == Swept(jobs=510)


async def test_loop_sweeps_until_it_is_stopped_and_survives_a_failure(
    store: Store,
    blobs: LocalBlobs,
    settings: Settings,
    clock: Any,
    new_job: Callable[..., Job],
    caplog: pytest.LogCaptureFixture,
) -> None:
    often = settings.model_copy(update={"sweep_seconds": 0.01})
    retention = Retention(database=store.database, blobs=blobs, settings=often, clock=clock)
    path = settings.data_dir / "enlarger.sqlite"
    execute(path, "ALTER TABLE uploads RENAME TO elsewhere")
    sweeping = asyncio.create_task(retention.run())

    async def until(reached: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(20):
            while True:
                if await reached():
                    return
                await asyncio.sleep(0.01)

    async def has_failed() -> bool:
        return "The sweep failed" in caplog.text

    async def is_gone() -> bool:
        return await store.get(job.id) is None

    await until(has_failed)
    execute(path, "ALTER TABLE elsewhere RENAME TO uploads")
    job = new_job(state=State.FAILED, finished_at=1.0)
    await store.add(job)
    await until(is_gone)
    await retention.stop()
    await asyncio.wait_for(sweeping, 20)


async def test_file_of_nobody_we_know_is_left_alone(
    retention: Retention, settings: Settings, clock: Any
) -> None:
    (settings.data_dir / "blobs").mkdir(parents=True)
    (settings.data_dir / "blobs" / "notes.txt").touch()
    clock.now = time.time() + 2 * 3600
    assert await retention.sweep() == Swept()
    assert stored(settings) == {"notes.txt"}


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, timeout=20)
    connection.execute(statement)
    connection.close()


async def test_upload_that_went_straight_to_the_store_is_found_there(
    store: Store,
    settings: Settings,
    key: Key,
    clock: Any,
    new_id: Callable[[], str],
    s3: SeaweedS3,
    tmp_path: Path,
) -> None:
    keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "endpoint": s3.endpoint}
    name = s3.create_bucket()
    presigned = Presigned(Signer(bucket=name, region="us-east-1", **keys), time.time)
    blobs = S3Blobs(Bucket(name=name, **keys), tmp_path / "scratch", seconds=10, direct=presigned)
    settings = settings.model_copy(update={"direct_upload_bytes": 2})
    database = store.database
    tickets = Uploads(
        database=database, blobs=blobs, settings=settings, clock=clock, new_id=new_id, secret=b"s" * 32
    )
    sent, kept_back = [await tickets.create(key, "a.png", 3, "") for _ in range(2)]
    assert (await tickets.create(key, "a.png", 2, "")).direct is None
    assert sent.direct
    async with httpx2.AsyncClient() as client:
        answer = await client.put(sent.direct.url, content=b"cat", headers=dict(sent.direct.headers))
    assert answer.status_code == 200
    sweeping = Retention(database=database, blobs=blobs, settings=settings, clock=clock)
    clock.now += settings.upload_seconds
    assert await sweeping.sweep() == Swept(
        uploads=1
    )  # the small one; what was begun in time may still arrive
    clock.now += 3600
    assert await sweeping.sweep() == Swept(uploads=1)
    [row] = await database.read(lambda connection: list(connection.execute(select(uploads)).mappings()))
    assert (row["id"], row["received_at"], row["size"]) == (sent.upload.id, clock.now, 3)
    assert await blobs.size(sent.upload.blob_key) == 3
    clock.now += 7 * DAY
    assert await sweeping.sweep() == Swept(uploads=1)
    with pytest.raises(NotFound):
        await blobs.size(sent.upload.blob_key)
    assert kept_back.direct
