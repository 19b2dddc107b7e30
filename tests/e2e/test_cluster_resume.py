"""A large picture whose worker is killed goes on with another one, from what is in the store."""

from __future__ import annotations

import asyncio
import io
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import requests
from PIL import Image
from pydantic import SecretStr

from enlarger.drivers import open_blobs
from enlarger.jobs.blobs import Blobs
from enlarger.settings import Settings

from ..services.postgres import Postgres
from ..services.s3 import SeaweedS3
from .cluster import Cluster, Rows
from .conftest import eventually

WIDTH, HEIGHT = 900, 1800
"""Three rows of windows."""


def smooth() -> bytes:
    """A picture that is soon read and written, and has no two rows alike."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([x * 255 // WIDTH, y * 255 // HEIGHT, (x + y) % 256], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def store_of(cluster: Cluster, folder: Path) -> Blobs:
    """Where the cluster keeps its pictures."""
    environment = cluster.environment
    settings = Settings(
        data_dir=folder,
        blob_url=environment["ENLARGER_BLOB_URL"],
        s3_endpoint=environment["ENLARGER_S3_ENDPOINT"],
        s3_access_key=SecretStr(environment["ENLARGER_S3_ACCESS_KEY"]),
        s3_secret_key=SecretStr(environment["ENLARGER_S3_SECRET_KEY"]),
    )
    return open_blobs(settings, time.time)


def bands(blobs: Blobs, job_id: str) -> list[str]:
    async def listed() -> list[str]:
        return [blob.key async for page in blobs.pages(f"checkpoints/{job_id}") for blob in page]

    return asyncio.run(listed())


def result_of(cluster: Cluster, job_id: str) -> bytes:
    [link] = cluster.links(job_id)
    return requests.get(link, timeout=60).content


def test_picture_of_a_killed_worker_goes_on_where_it_was_and_comes_out_the_same(
    postgres: Postgres, s3: SeaweedS3, tmp_path: Path
) -> None:
    # The second run must not be given the result of the first.
    settings = {"ENLARGER_CHECKPOINT_MEGAPIXELS": "0.5", "ENLARGER_REUSE_RESULTS": "false"}
    cluster = Cluster(tmp_path, postgres, s3, ENLARGER_LEASE_SECONDS="4", **settings)
    with closing(cluster), closing(Rows(cluster)) as rows:
        cluster.start(apis=1, workers=1)
        blobs, [first] = store_of(cluster, tmp_path / "looking"), cluster.workers
        picture = smooth()
        struck = cluster.submit(picture, scale=1)
        eventually(lambda: bands(blobs, struck), "the first band in the store")
        assert rows.job(struck)["state"] == "processing"
        first.kill()
        cluster.start(apis=0, workers=1)
        row = rows.until_ended(struck)
        assert (row["state"], row["compute_starts"]) == ("completed", 2), row["error_message"]
        resumed = row["report"]["resumed"]
        assert 0 < resumed["rows"] < resumed["of"]
        assert bands(blobs, struck) == []

        whole = cluster.submit(picture, scale=1)
        assert rows.until_ended(whole)["report"]["resumed"]["rows"] == 0
        assert result_of(cluster, struck) == result_of(cluster, whole)
