from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from enlarger.jobs import checkpoints as module
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.checkpoints import checkpoints, forget
from enlarger.jobs.job import Job
from enlarger.jobs.s3_blobs import Bucket, S3Blobs

from ..services.proxy import Proxy
from ..services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)


async def stored(blobs: LocalBlobs, job: Job) -> list[str]:
    return sorted([blob.key async for page in blobs.pages(f"checkpoints/{job.id}") for blob in page])


async def until_stored(blobs: LocalBlobs, job: Job, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await stored(blobs, job)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_bands_of_one_attempt_are_there_for_the_next(
    blobs: LocalBlobs, new_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = new_job(compute_starts=0)
    async with checkpoints(blobs, job, tmp_path / "first") as folder:
        (folder / "0-0-64.band").write_bytes(b"rows 0 to 63")
        (folder / "0-64-96.part").write_bytes(b"not whole yet")
        await until_stored(blobs, job, 1)
    async with checkpoints(blobs, replace(job, compute_starts=1), tmp_path / "second") as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"0-0-64.band": b"rows 0 to 63"}
        (folder / "0-64-96.band").write_bytes(b"rows 64 to 95")
        await until_stored(blobs, job, 2)
    await forget(blobs, job.id)
    assert await stored(blobs, job) == []


async def test_first_attempt_asks_the_store_for_nothing(
    blobs: LocalBlobs, new_job: Callable[..., Job], tmp_path: Path
) -> None:
    job = new_job()
    await blobs.put(f"checkpoints/{job.id}/0-0-64.band", b"?")
    async with checkpoints(blobs, job, tmp_path / "bands") as folder:
        assert list(folder.iterdir()) == []


async def test_store_that_is_away_stops_no_run(
    new_job: Callable[..., Job],
    tmp_path: Path,
    s3: SeaweedS3,
    s3_proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    s3_proxy.resets_after_bytes = 0
    bucket = Bucket(
        name=s3.create_bucket(),
        endpoint=f"http://127.0.0.1:{s3_proxy.port}",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )
    blobs = S3Blobs(bucket, tmp_path / "scratch", seconds=0.2)
    async with checkpoints(blobs, new_job(compute_starts=1), tmp_path / "bands") as folder:
        (folder / "0-0-64.band").write_bytes(b"rows")
        async with asyncio.timeout(20):
            while "is not stored" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert "Not all bands" in caplog.text
