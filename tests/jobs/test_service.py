from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from enlarger.engine.options import Options
from enlarger.errors import InvalidOption, NotFound, Overloaded, PayloadTooLarge, Unauthorized
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Job, Key, Output, State
from enlarger.jobs.keys import secret_hash
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.worker import Worker
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio

MODEL = "wavespeed-ai/real-esrgan"
PICTURE = base64.b64encode(b"a picture").decode()


async def submit(service: Service, key: Key, image: str = PICTURE, **echo: Any) -> Job:
    return await service.submit(
        key, model=MODEL, image=image, options=Options(scale=2.5), echo={"image": image, **echo}
    )


async def test_inline_picture_is_stored_and_left_out_of_the_echo(
    service: Service, store: Store, blobs: LocalBlobs, key: Key, clock: Any
) -> None:
    job = await submit(service, key, seed=1)
    assert job == await store.get(job.id)
    assert job.input == {"image": "(inline picture, 9 bytes)", "seed": 1}
    assert Options.parse(job.options) == Options(scale=2.5)
    assert (job.state, job.key_id, job.created_at, job.source_url) == (State.CREATED, key.id, clock.now, "")
    async with blobs.local(job.source_blob) as path:
        assert path.read_bytes() == b"a picture"


async def test_url_is_kept_and_not_fetched_at_submit(service: Service, key: Key, pictures: Any) -> None:
    job = await submit(service, key, pictures.url("/cat.png"))
    assert (job.source_url, job.source_blob) == (pictures.url("/cat.png"), "")
    assert job.input == {"image": pictures.url("/cat.png")}
    assert pictures.connections == 0


@pytest.mark.parametrize(
    ("image", "error"), [("cat.png", InvalidOption), (base64.b64encode(bytes(101)).decode(), PayloadTooLarge)]
)
async def test_refused_image_leaves_nothing_behind(
    service: Service, store: Store, settings: Settings, key: Key, image: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await submit(service, key, image)
    assert await store.unfinished() == []
    assert not (settings.data_dir / "blobs").exists()


async def test_full_backlog_refuses_until_a_job_ends(service: Service, store: Store, key: Key) -> None:
    jobs = [await submit(service, key) for _ in range(3)]
    with pytest.raises(Overloaded, match="3 unfinished jobs"):
        await submit(service, key)
    claimed = await store.claim(jobs[0].id, 1.0)
    assert claimed
    await store.fail(claimed, "timed_out", "", 2.0)
    assert (await submit(service, key)).state is State.CREATED


async def test_submitted_job_reaches_the_worker(service: Service, worker: Worker, key: Key) -> None:
    working = asyncio.create_task(worker.run())
    job = await submit(service, key)
    done = await service.wait(key, job.id, 20)
    await worker.stop()
    await working
    assert done.state is State.COMPLETED


async def test_wait_gives_the_job_as_it_stands_when_time_is_up(service: Service, key: Key) -> None:
    job = await submit(service, key)
    assert await service.wait(key, job.id, 0.05) == job
    assert await service.wait(key, job.id, 0) == job


async def test_job_of_another_key_is_not_found(service: Service, key: Key) -> None:
    job = await submit(service, key)
    stranger = replace(key, id="b" * 32)
    for call in (
        service.get(stranger, job.id),
        service.wait(stranger, job.id, 0),
        service.get(key, "f" * 32),
    ):
        with pytest.raises(NotFound, match=r"^Prediction not found: "):
            await call
    assert await service.get(key, job.id) == job


async def test_secret_opens_its_key_until_it_is_revoked(service: Service, store: Store, key: Key) -> None:
    await store.add_key(key, secret_hash("wsk_right"))
    assert await service.authenticate("wsk_right") == key
    for wrong in ("wsk_wrong", "", "\ud800"):
        with pytest.raises(Unauthorized, match="enlarger keys create"):
            await service.authenticate(wrong)
    await store.revoke_key(key.id, 1.0)
    with pytest.raises(Unauthorized):
        await service.authenticate("wsk_right")


def opened_by(url: str) -> tuple[str, str]:
    """Token and blob key in the path of a link."""
    _, files, token, key = urlsplit(url).path.split("/", 3)
    assert files == "files"
    return token, key


@pytest.fixture
async def output(blobs: LocalBlobs) -> Output:
    key = "outputs/1/2/1.webp"
    await blobs.put(key, b"result")
    return Output(blob_key=key, media_type="image/webp", width=1, height=1, bytes=6, sha256="")


async def test_link_serves_the_file_for_seven_days(service: Service, output: Output, clock: Any) -> None:
    url = service.output_url(output, "https://up.example.org")
    assert url.startswith("https://up.example.org/files/")
    assert url.endswith(".webp")
    clock.now += 7 * 86_400 - 1
    served = await service.open_file(*opened_by(url))
    assert (served.path.read_bytes(), served.media_type) == (b"result", "image/webp")
    clock.now += 86_402
    with pytest.raises(NotFound):
        await service.open_file(*opened_by(url))


async def test_link_is_the_same_all_day(service: Service, output: Output, clock: Any) -> None:
    clock.now = 1_700_006_400.0 + 1  # just after a midnight (UTC)
    morning = service.output_url(output, "")
    clock.now += 86_390
    assert service.output_url(output, "") == morning
    clock.now += 20
    assert service.output_url(output, "") != morning


async def test_link_to_a_deleted_file_is_not_found(
    service: Service, blobs: LocalBlobs, output: Output
) -> None:
    url = service.output_url(output, "")
    await blobs.delete(output.blob_key)
    with pytest.raises(NotFound):
        await service.open_file(*opened_by(url))


async def test_link_without_a_valid_signature_is_not_found(service: Service, output: Output) -> None:
    token, key = opened_by(service.output_url(output, ""))
    for forged in ((token, "inputs/1"), (token[:-1], key), ("", key), (token, "../../key")):
        with pytest.raises(NotFound):
            await service.open_file(*forged)
