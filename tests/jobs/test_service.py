from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import event

from enlarger.engine.options import Options
from enlarger.errors import (
    FeatureUnavailable,
    Forbidden,
    IdempotencyConflict,
    InvalidOption,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    StorageFull,
    Unauthorized,
)
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.changes import TileDone
from enlarger.jobs.job import Job, Key, Output, Scope, State
from enlarger.jobs.keys import secret_hash
from enlarger.jobs.queue import Entry
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.worker import Worker
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio

MODEL = "wavespeed-ai/real-esrgan"
PICTURE = base64.b64encode(b"a picture").decode()


async def submit(
    service: Service, key: Key, image: str = PICTURE, idempotency_key: str = "", **echo: Any
) -> Job:
    return await service.submit(
        key,
        model=MODEL,
        image=image,
        options=Options(scale=2.5),
        echo={"image": image, **echo},
        idempotency_key=idempotency_key,
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
    claimed = await store.claim(Entry(jobs[0].id), 1.0)
    assert claimed
    await store.fail(claimed, "timed_out", "", 2.0)
    assert (await submit(service, key)).state is State.CREATED


async def test_more_submits_at_once_than_the_server_can_take_are_refused(
    store: Store, blobs: LocalBlobs, settings: Settings, key: Key, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    monkeypatch.setattr("enlarger.jobs.service._CHECKS_AT_ONCE", 2)
    monkeypatch.setattr("enlarger.jobs.service._SUBMITS_AT_ONCE", 2)
    numbers = iter(range(10))
    service = Service(
        store=store,
        blobs=blobs,
        settings=settings,
        clock=clock,
        new_id=lambda: f"{next(numbers):032x}",
        link_secret=b"s" * 32,
    )
    await store.add_key(key, secret_hash("wsk_right"))
    told = await asyncio.gather(*(submit(service, key) for _ in range(4)), return_exceptions=True)
    assert [type(each) for each in told] == [Job, Job, Overloaded, Overloaded]
    checks = (service.authenticate("wsk_right") for _ in range(4))
    told = await asyncio.gather(*checks, return_exceptions=True)
    assert [type(each) for each in told] == [Key, Key, Overloaded, Overloaded]
    assert await submit(service, key) == await store.get(f"{4:032x}")


async def test_submits_that_will_be_refused_are_no_longer_written_to_the_disk(
    service: Service, blobs: LocalBlobs, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    put = blobs.put

    async def counted(blob_key: str, data: bytes) -> None:
        written.append(blob_key)
        await put(blob_key, data)

    monkeypatch.setattr(blobs, "put", counted)
    jobs = [await submit(service, key) for _ in range(3)]
    for _ in range(3):
        with pytest.raises(Overloaded, match="max_backlog_jobs"):
            await submit(service, key)
    assert len(written) == 4
    await service.cancel(key, jobs[0].id)
    assert await submit(service, key)


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


async def test_job_of_another_key_is_not_found(service: Service, store: Store, key: Key) -> None:
    job = await submit(service, key, seed=1)
    stranger = replace(key, id="b" * 32)
    await store.add_key(stranger, secret_hash("wsk_stranger"))
    for call in (
        service.get(stranger, job.id),
        service.wait(stranger, job.id, 0),
        service.cancel(stranger, job.id),
        anext(service.events(stranger, job.id)),
        service.poll("wsk_stranger", job.id),
        service.get(key, "f" * 32),
        service.cancel(key, "f" * 32),
    ):
        with pytest.raises(NotFound, match=r"^Prediction not found: "):
            await call
    assert await service.delete(stranger, [job.id]) == 0
    assert await service.history(stranger) == []
    assert await service.get(key, job.id) == job


@pytest.mark.parametrize("scope", Scope)
async def test_key_may_do_no_more_than_its_scopes_say(
    service: Service, store: Store, key: Key, scope: Scope
) -> None:
    job = await submit(service, key)
    narrow = replace(key, scopes=frozenset({scope}))
    await store.add_key(narrow, secret_hash("wsk_narrow"))
    calls = {
        Scope.SUBMIT: [
            lambda: submit(service, narrow),
            lambda: service.create_upload(narrow, "a.png", 3, "image/png"),
            lambda: service.cancel(narrow, job.id),
            lambda: service.delete(narrow, ["f" * 32]),
        ],
        Scope.READ: [
            lambda: service.poll("wsk_narrow", job.id),
            lambda: service.history(narrow),
            lambda: service.usage(narrow, 0, 1),
        ],
        Scope.ADMIN: [],
    }
    for needed, attempts in calls.items():
        for attempt in attempts:
            if needed is scope:
                await attempt()
                continue
            with pytest.raises(Forbidden, match=f"needs {needed.value}"):
                await attempt()


async def test_poll_checks_key_and_job_in_one_query(
    service: Service, store: Store, key: Key, clock: Any
) -> None:
    await store.add_key(replace(key, expires_at=clock.now + 10), secret_hash("wsk_right"))
    job = await submit(service, key)
    statements: list[str] = []
    event.listen(
        store.database.reader,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_rest: statements.append(statement),
    )
    assert await service.poll("wsk_right", job.id) == job
    assert len(statements) == 1
    with pytest.raises(Unauthorized):
        await service.poll("wsk_wrong", job.id)
    clock.now += 10
    with pytest.raises(Unauthorized):
        await service.poll("wsk_right", job.id)


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


async def assert_not_found(service: Service, link: str) -> None:
    with pytest.raises(NotFound):
        async with service.open_file(*opened_by(link)):
            pass


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
    async with service.open_file(*opened_by(url)) as served:
        assert (served.path.read_bytes(), served.media_type) == (b"result", "image/webp")
    clock.now += 86_402
    await assert_not_found(service, url)


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
    await assert_not_found(service, url)


async def test_link_without_a_valid_signature_is_not_found(service: Service, output: Output) -> None:
    token, key = opened_by(service.output_url(output, ""))
    for forged in ((token, "inputs/1"), (token[:-1], key), ("", key), (token, "../../key")):
        await assert_not_found(service, f"/files/{'/'.join(forged)}")


async def uploaded(service: Service, key: Key, data: bytes, filename: str = "cat.png") -> str:
    """The link to a file sent the way clients do."""

    async def stream() -> AsyncIterator[bytes]:
        yield data

    ticket = await service.create_upload(key, filename, len(data), "")
    upload = await service.receive_upload(ticket.token, stream())
    return service.link(upload.blob_key, "http://127.0.0.1:8000")


async def test_own_link_is_read_from_the_store_under_whatever_host(
    service: Service, blobs: LocalBlobs, key: Key, output: Output
) -> None:
    links = [await uploaded(service, key, b"uploaded"), service.output_url(output, "https://up.example.org")]
    for link, data in zip(links, (b"uploaded", b"result"), strict=True):
        alias = link.replace("127.0.0.1:8000", "some.alias:99")
        job = await submit(service, key, alias)
        assert (job.source_url, job.input) == ("", {"image": alias})
        async with blobs.local(job.source_blob) as path:
            assert path.read_bytes() == data


async def test_job_keeps_its_picture_when_the_upload_goes(
    service: Service, blobs: LocalBlobs, key: Key
) -> None:
    link = await uploaded(service, key, b"uploaded")
    job = await submit(service, key, link)
    await blobs.delete(opened_by(link)[1])
    async with blobs.local(job.source_blob) as path:
        assert path.read_bytes() == b"uploaded"
    with pytest.raises(InvalidOption, match="gone: upload it again"):
        await submit(service, key, link)


async def test_expired_own_link_is_refused_and_a_forged_one_is_an_ordinary_url(
    service: Service, key: Key, clock: Any
) -> None:
    link = await uploaded(service, key, b"uploaded")
    token, _ = opened_by(link)
    forged = link.replace(token, token[:-1] + ("A" if token[-1] != "A" else "B"))
    assert (await submit(service, key, forged)).source_url == forged
    clock.now += 9 * 86_400
    with pytest.raises(InvalidOption, match="has expired"):
        await submit(service, key, link)


async def test_uploaded_file_is_never_shown_as_a_page(service: Service, key: Key) -> None:
    async with service.open_file(*opened_by(await uploaded(service, key, b"<html>", "page.html"))) as served:
        assert (served.media_type, served.disposition) == ("application/octet-stream", "attachment")


async def test_repeated_submit_leaves_one_job_and_one_file(
    service: Service, store: Store, settings: Settings, key: Key
) -> None:
    jobs = await asyncio.gather(*(submit(service, key, idempotency_key="once") for _ in range(5)))
    assert len({job.id for job in jobs}) == 1
    assert await store.unfinished() == [Entry(jobs[0].id)]
    assert [path.name for path in (settings.data_dir / "blobs" / "inputs").iterdir()] == [jobs[0].id]
    with pytest.raises(IdempotencyConflict):
        await submit(service, key, "aGk=", idempotency_key="once")
    with pytest.raises(InvalidOption, match="255 characters"):
        await submit(service, key, idempotency_key="x" * 256)


async def test_rate_limited_submit_leaves_no_file(
    service: Service, store: Store, settings: Settings, key: Key
) -> None:
    slow = replace(key, rate_per_minute=1)
    await store.add_key(slow, "hash")
    job = await submit(service, slow)
    with pytest.raises(RateLimited) as refusal:
        await submit(service, slow)
    assert refusal.value.retry_after_seconds == pytest.approx(60)
    assert [path.name for path in (settings.data_dir / "blobs" / "inputs").iterdir()] == [job.id]


async def test_nothing_is_taken_while_the_disk_is_nearly_full(
    service: Service, store: Store, settings: Settings, key: Key
) -> None:
    ticket = await service.create_upload(key, "cat.png", 3, "image/png")
    # Frozen for users; the disk of the test machine cannot be filled instead.
    object.__setattr__(settings, "min_free_bytes", 10**18)

    async def stream() -> AsyncIterator[bytes]:
        yield b"cat"

    for attempt in (
        submit(service, key),
        submit(service, key, "http://example.com/cat.png"),
        service.create_upload(key, "cat.png", 3, "image/png"),
        service.receive_upload(ticket.token, stream()),
    ):
        with pytest.raises(StorageFull, match="min_free_bytes"):
            await attempt
    assert await store.unfinished() == []


async def test_cancelled_job_that_waits_is_never_computed(
    service: Service, worker: Worker, device: Any, key: Key
) -> None:
    job = await submit(service, key)
    cancelled = await service.cancel(key, job.id)
    assert cancelled.state is State.CANCELLED
    assert await service.cancel(key, job.id) == cancelled
    await worker.run_job(Entry(job.id))
    assert device.pictures == []


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_job_under_way_lets_go_of_the_device_at_once(
    service: Service, worker: Worker, device: Any, settings: Settings, key: Key, end: str
) -> None:
    device.gate.clear()
    job, other = await submit(service, key), await submit(service, key, "aGk=")
    running = asyncio.create_task(worker.run_job(Entry(job.id)))
    await asyncio.wait_for(device.started.wait(), 20)
    if end == "cancel":
        assert (await service.cancel(key, job.id)).state is State.CANCELLED
    else:
        assert await service.delete(key, [job.id, "f" * 32]) == 1
    await asyncio.wait_for(running, 20)
    assert device.busy == 0
    device.gate.set()
    await worker.run_job(Entry(other.id))
    assert (await service.get(key, other.id)).state is State.COMPLETED
    assert not (settings.data_dir / "blobs" / "outputs" / job.id).exists()


async def test_deleted_job_is_gone_with_its_files_and_links(
    service: Service, worker: Worker, settings: Settings, key: Key
) -> None:
    job = await submit(service, key)
    await worker.run_job(Entry(job.id))
    done = await service.get(key, job.id)
    link = service.output_url(done.outputs[0], "")
    assert await service.delete(key, [job.id]) == 1
    assert await service.delete(key, [job.id]) == 0
    with pytest.raises(NotFound):
        await service.get(key, job.id)
    await assert_not_found(service, link)
    assert list((settings.data_dir / "blobs").rglob(f"*{job.id}*")) == []
    with pytest.raises(InvalidOption, match="at most 1000"):
        await service.delete(key, ["f" * 32] * 1001)


async def test_events_tell_every_tile_and_end_with_the_end(
    service: Service, worker: Worker, device: Any, key: Key
) -> None:
    device.gate.clear()
    job = await submit(service, key)
    running: asyncio.Task[bool] | None = None
    told: list[Any] = []
    async for event_ in service.events(key, job.id):
        told.append(event_)
        running = running or asyncio.create_task(worker.run_job(Entry(job.id)))
        if isinstance(event_, TileDone):
            device.gate.set()
    assert running
    await running
    states = [event_.state for event_ in told if isinstance(event_, Job)]
    assert states[0] is State.CREATED
    assert states[-1] is State.COMPLETED
    assert [tile.fraction for tile in told if isinstance(tile, TileDone)] == [0.5]


async def test_nobody_waits_any_longer_once_the_server_lets_go(service: Service, key: Key) -> None:
    job = await submit(service, key)
    waiting = asyncio.create_task(service.wait(key, job.id, 3600))
    events = service.events(key, job.id)
    assert await anext(events) == job
    watching = asyncio.create_task(anext(events, None))
    await asyncio.sleep(0)
    service.let_go()
    async with asyncio.timeout(60):
        assert await waiting == job
        assert await watching is None
        assert await service.wait(key, job.id, 3600) == job


async def test_events_end_when_the_job_is_deleted(service: Service, key: Key) -> None:
    job = await submit(service, key)
    events = service.events(key, job.id)
    assert await anext(events) == job
    await service.delete(key, [job.id])
    assert [event_ async for event_ in events] == []


async def test_history_is_newest_first_by_page_and_by_filter(
    service: Service, store: Store, key: Key, clock: Any, new_job: Any
) -> None:
    jobs = [new_job(created_at=clock.now + n, model=f"m/{n % 2}") for n in range(5)]
    for job in jobs:
        await store.add(job)
    jobs.reverse()
    assert await service.history(key, page_size=2) == jobs[:2]
    assert await service.history(key, page=3, page_size=2) == jobs[4:]
    assert await service.history(key, model="m/1") == [jobs[1], jobs[3]]
    assert await service.history(key, created_after=clock.now + 3) == jobs[:2]
    assert await service.history(key, created_before=clock.now + 1) == jobs[3:]
    assert await service.history(key, status="timeout") == []
    cancelled = await service.cancel(key, jobs[0].id)
    assert await service.history(key, status="cancelled") == [cancelled]
    for bad in ({"page": 0}, {"page_size": 101}, {"page_size": 0}, {"page": 10**30}):
        with pytest.raises(InvalidOption, match="must be from 1 to"):
            await service.history(key, **bad)


async def test_usage_counts_by_day_and_model_and_outlives_the_jobs(
    service: Service, worker: Worker, device: Any, key: Key, clock: Any
) -> None:
    first_day = clock.now
    await worker.run_job(Entry((await submit(service, key)).id))
    await service.cancel(key, (await submit(service, key)).id)
    clock.now += 86_400
    device.raises = RuntimeError("broken")
    failed = await submit(service, key)
    await worker.run_job(Entry(failed.id))
    await service.delete(key, [failed.id])
    days = await service.usage(key, first_day, clock.now)
    counts = [(row.model, row.completed, row.failed, row.cancelled, row.compute_ms) for row in days]
    assert counts == [(MODEL, 1, 0, 1, 12), (MODEL, 0, 1, 0, 0)]
    assert days[1].day - days[0].day == 1
    assert await service.usage(key, first_day, first_day) == days[:1]
    assert await service.usage(replace(key, id="b" * 32), first_day, clock.now) == []


async def test_position_and_eta_follow_the_line(service: Service, store: Store, key: Key, clock: Any) -> None:
    jobs = [await submit(service, key) for _ in range(3)]
    assert [await service.position_and_eta(job) for job in jobs] == [(1, 10), (2, 20), (3, 30)]
    claimed = await store.claim(Entry(jobs[0].id), clock.now)
    assert claimed
    await store.set_progress(claimed, 0.75)
    clock.now += 1.0
    assert await service.position_and_eta(claimed) == (0, 2.5)
    assert await service.position_and_eta(jobs[2]) == (2, 22.5)
    ended = await service.cancel(key, jobs[1].id)
    assert await service.position_and_eta(ended) == (None, None)


async def test_without_a_planner_there_is_no_preflight(service: Service, key: Key) -> None:
    with pytest.raises(FeatureUnavailable):
        await service.preflight(key, PICTURE, Options())
