"""Blobs: the same promises over a local folder and over S3."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest

from enlarger.errors import AlreadyExists, EnlargerError, NotFound, StorageUnavailable
from enlarger.jobs.blobs import Blobs, LocalBlobs, check_blobs, delete_files, input_key
from enlarger.jobs.presigned import Presigned, Signer
from enlarger.jobs.s3_blobs import Bucket, S3Blobs
from enlarger.jobs.split_blobs import SplitBlobs

from ..services.proxy import Proxy
from ..services.s3 import ACCESS_KEY, REGION, SECRET_KEY, SeaweedS3

pytestmark = pytest.mark.anyio

KEY = "outputs/1/1/1.png"
LARGE = os.urandom(20_000_000)  # several parts
SECONDS = 1.0


def bucket_of(endpoint: str, name: str, secret_key: str = SECRET_KEY) -> Bucket:
    return Bucket(
        name=name,
        prefix="some/prefix",
        endpoint=endpoint,
        region=REGION,
        access_key=ACCESS_KEY,
        secret_key=secret_key,
    )


@pytest.fixture(params=["local", "s3", "split"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "local":
        return LocalBlobs(tmp_path / "blobs")
    s3: SeaweedS3 = request.getfixturevalue("s3")
    far = S3Blobs(bucket_of(s3.endpoint, s3.create_bucket()), tmp_path / "scratch", seconds=10)
    return SplitBlobs(LocalBlobs(tmp_path / "cache"), far) if request.param == "split" else far


@pytest.fixture
def bucket_name(s3: SeaweedS3) -> str:
    return s3.create_bucket()


@pytest.fixture
def behind_proxy(s3_proxy: Proxy, bucket_name: str, tmp_path: Path) -> S3Blobs:
    """S3 through the proxy, with little patience."""
    bucket = bucket_of(f"http://127.0.0.1:{s3_proxy.port}", bucket_name)
    return S3Blobs(bucket, tmp_path / "scratch", seconds=SECONDS)


@pytest.fixture
def signer(s3: SeaweedS3, bucket_name: str) -> Signer:
    return Signer(
        endpoint=s3.endpoint,
        bucket=bucket_name,
        prefix="some/prefix",
        region=REGION,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
    )


@pytest.fixture
def direct(s3: SeaweedS3, bucket_name: str, signer: Signer, tmp_path: Path) -> S3Blobs:
    """S3 whose clients are sent to it."""
    bucket = bucket_of(s3.endpoint, bucket_name)
    return S3Blobs(bucket, tmp_path / "scratch", seconds=10, direct=Presigned(signer, time.time))


async def read(blobs: Blobs, key: str) -> bytes:
    async with blobs.local(key) as path:
        return path.read_bytes()


async def put_file(blobs: Blobs, key: str, data: bytes) -> None:
    async with blobs.scratch() as folder:
        (folder / "result").write_bytes(data)
        await blobs.put_file(key, folder / "result")
        assert not (folder / "result").exists()


async def create_file(blobs: Blobs, key: str, data: bytes) -> None:
    async with blobs.scratch() as folder:
        (folder / "upload").write_bytes(data)
        await blobs.create_file(key, folder / "upload")


async def keys(blobs: Blobs) -> set[str]:
    return {blob.key async for page in blobs.pages() for blob in page}


@pytest.mark.parametrize("data", [b"", b"one", LARGE], ids=["empty", "small", "large"])
async def test_blob_comes_back(blobs: Blobs, data: bytes) -> None:
    await blobs.put(KEY, data)
    assert await read(blobs, KEY) == data
    assert await blobs.size(KEY) == len(data)
    await blobs.put(KEY, b"two")
    assert await read(blobs, KEY) == b"two"


@pytest.mark.parametrize("data", [b"small", LARGE], ids=["small", "large"])
async def test_file_is_taken_over(blobs: Blobs, data: bytes) -> None:
    await put_file(blobs, KEY, data)
    assert await read(blobs, KEY) == data


@pytest.mark.parametrize("size", [3, 20_000_000])
async def test_file_is_created_once(blobs: Blobs, size: int) -> None:
    await create_file(blobs, KEY, b"1" * size)
    with pytest.raises(AlreadyExists):
        await create_file(blobs, KEY, b"2" * size)
    assert await read(blobs, KEY) == b"1" * size


async def test_of_many_that_create_a_file_at_once_one_wins(blobs: Blobs) -> None:
    outcomes = await asyncio.gather(
        *(create_file(blobs, KEY, str(number).encode()) for number in range(8)), return_exceptions=True
    )
    [winner] = [number for number, outcome in enumerate(outcomes) if outcome is None]
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 7
    assert await read(blobs, KEY) == str(winner).encode()


async def test_copy_outlives_and_outstays_its_source(blobs: Blobs) -> None:
    await blobs.put(KEY, b"one")
    await blobs.copy(KEY, "inputs/2/link")
    await blobs.put(KEY, b"two")
    assert await read(blobs, "inputs/2/link") == b"one"
    await blobs.delete(KEY)
    assert await read(blobs, "inputs/2/link") == b"one"
    with pytest.raises(NotFound):
        await blobs.copy(KEY, "inputs/3/link")


async def test_deleted_blob_is_not_found(blobs: Blobs) -> None:
    await blobs.put(KEY, b"x")
    await blobs.delete(KEY)
    await blobs.delete(KEY)
    with pytest.raises(NotFound):
        await read(blobs, KEY)
    with pytest.raises(NotFound):
        await blobs.size(KEY)


async def test_pages_name_every_blob_and_no_temporary_file(blobs: Blobs) -> None:
    assert await keys(blobs) == set()
    every = {KEY, "inputs/1/link", "uploads/3/1.png", "pyramids/1/input.tif"}
    before = time.time()
    for key in every:
        await blobs.put(key, b"?")
    async with blobs.scratch() as folder:
        (folder / "half").write_bytes(b"?")
        assert await keys(blobs) == every
    found = [blob async for page in blobs.pages() for blob in page]
    assert all(before - 2 < blob.touched_at < time.time() + 2 for blob in found)
    assert {blob.bytes for blob in found} == {1}
    below = [blob.key async for page in blobs.pages("pyramids") for blob in page]
    assert below == ["pyramids/1/input.tif"]


async def test_what_can_be_made_again_stays_near_and_goes_with_its_job(s3: SeaweedS3, tmp_path: Path) -> None:
    near = LocalBlobs(tmp_path / "cache")
    far = S3Blobs(bucket_of(s3.endpoint, s3.create_bucket()), tmp_path / "scratch", seconds=10)
    blobs = SplitBlobs(near, far)
    await put_file(blobs, "pyramids/1/input.tif", b"tiles")
    await put_file(blobs, "outputs/1/1/1.png", b"result")
    assert (await keys(near), await keys(far)) == ({"pyramids/1/input.tif"}, {"outputs/1/1/1.png"})
    await delete_files(blobs, "1")
    assert await keys(blobs) == set()


async def test_listing_goes_on_after_the_first_thousand(blobs: Blobs) -> None:
    every = {f"outputs/{number % 7}/1/{number}.png" for number in range(1200)}
    for batch in range(0, 1200, 50):
        await asyncio.gather(*(blobs.put(key, b"?") for key in sorted(every)[batch : batch + 50]))
    assert await keys(blobs) == every
    await blobs.delete_below("outputs/3")
    assert await keys(blobs) == {key for key in every if not key.startswith("outputs/3/")}


async def test_files_of_a_job_go_together_and_leave_those_of_others(blobs: Blobs) -> None:
    others = {"inputs/10/link", "outputs/10/1/1.png", "uploads/1/1.png"}
    for key in ("inputs/1/link", "outputs/1/1/1.png", "outputs/1/2/1.png", *others):
        await blobs.put(key, b"?")
    for _ in range(2):
        await delete_files(blobs, "1")
        assert await keys(blobs) == others


@pytest.mark.parametrize(
    "key", ["", "x", "/etc/x", "../x", "a/../../x", "a//x", "a/", "a/.x", "a/b\0", "a/b\n"]
)
async def test_key_that_is_none_is_refused(blobs: Blobs, key: str) -> None:
    for refused in (
        read(blobs, key),
        blobs.size(key),
        blobs.put(key, b"x"),
        blobs.delete(key),
        blobs.delete_below(key),
        blobs.copy(KEY, key),
        create_file(blobs, key, b"x"),
    ):
        with pytest.raises(NotFound):
            await refused


async def test_scratch_folder_is_gone_afterwards(blobs: Blobs) -> None:
    async with blobs.scratch() as first, blobs.scratch() as second:
        assert first != second
        (first / "left").write_bytes(b"x")
        await blobs.clear_scratch()
        assert (first / "left").exists()
    assert not first.exists()
    assert not second.exists()


async def test_scratch_of_a_killed_process_is_cleared(blobs: Blobs) -> None:
    async with blobs.scratch() as folder:
        left = folder.parent / "left"
        left.mkdir()
        (left / "half").write_bytes(b"x")
        await blobs.clear_scratch()
        assert folder.exists()
        assert not left.exists()


async def test_check_of_a_good_store_leaves_nothing(blobs: Blobs) -> None:
    await check_blobs(blobs, "1")
    assert await keys(blobs) == set()


async def test_free_bytes_are_those_of_the_disk(blobs: Blobs, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    assert abs(await blobs.free_bytes() - disk.f_bavail * disk.f_frsize) < 1e9


# What only a store over the network has to answer for.


async def test_input_is_held_to_the_hash_in_its_name(
    behind_proxy: S3Blobs, bucket_name: str, s3: SeaweedS3, tmp_path: Path
) -> None:
    good, bad = input_key("1", sha256(b"right").hexdigest()), input_key("2", sha256(b"other").hexdigest())
    for key in (good, bad):
        await behind_proxy.put(key, b"right")
    assert await read(behind_proxy, good) == b"right"
    with pytest.raises(EnlargerError, match="damaged"):
        await read(behind_proxy, bad)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": "no-such-bucket"}, "it has no bucket no-such-bucket"),
        ({"secret_key": "wrong"}, "it refuses the key of this server"),
    ],
)
async def test_check_says_what_is_wrong(
    s3: SeaweedS3, tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    bucket = bucket_of(s3.endpoint, **{"name": s3.create_bucket(), **changed})
    blobs = S3Blobs(bucket, tmp_path / "scratch", seconds=SECONDS)
    with pytest.raises(StorageUnavailable, match=reason):
        await check_blobs(blobs, "1")
    with pytest.raises(StorageUnavailable):
        await read(blobs, KEY)  # not NotFound: nothing is known of the blob
    with pytest.raises(StorageUnavailable):
        await keys(blobs)


async def within(seconds: float, look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_store_that_is_away_is_told_in_bounded_time(behind_proxy: S3Blobs, s3_proxy: Proxy) -> None:
    await behind_proxy.put(KEY, b"x")
    s3_proxy.resets_after_bytes = 0
    with pytest.raises(StorageUnavailable) as told:
        await asyncio.wait_for(behind_proxy.put(KEY, b"y"), 30)
    assert told.value.retry_after_seconds > 0
    assert s3_proxy.resets > 1
    s3_proxy.resets_after_bytes = None
    with s3_proxy.swallowing():
        for silent in (read(behind_proxy, KEY), behind_proxy.put(KEY, b"y"), keys(behind_proxy)):
            with pytest.raises(StorageUnavailable):
                await asyncio.wait_for(silent, 30)
    assert await read(behind_proxy, KEY) in (b"x", b"y")


async def test_file_stays_here_when_the_store_does_not_take_it(
    behind_proxy: S3Blobs, s3_proxy: Proxy
) -> None:
    s3_proxy.resets_after_bytes = 0
    async with behind_proxy.scratch() as folder:
        path = folder / "result"
        path.write_bytes(b"result")
        with pytest.raises(StorageUnavailable):
            await behind_proxy.put_file(KEY, path)
        s3_proxy.resets_after_bytes = None
        await behind_proxy.put_file(KEY, path)
    assert await read(behind_proxy, KEY) == b"result"


async def test_files_of_a_job_wait_for_the_sweep_when_the_store_is_away(
    behind_proxy: S3Blobs, s3_proxy: Proxy
) -> None:
    await behind_proxy.put(KEY, b"x")
    s3_proxy.resets_after_bytes = 0
    await delete_files(behind_proxy, "1")
    s3_proxy.resets_after_bytes = None
    assert await keys(behind_proxy) == {KEY}


async def test_connection_that_resets_now_and_then_loses_nothing(
    behind_proxy: S3Blobs, s3_proxy: Proxy
) -> None:
    async def reset_once(after_bytes: int) -> None:
        resets = s3_proxy.resets
        s3_proxy.resets_after_bytes = after_bytes
        await within(30, lambda: s3_proxy.resets > resets)
        s3_proxy.resets_after_bytes = None

    for key, data, after_bytes in ((KEY, b"x" * 500_000, 100_000), ("outputs/1/2/1.png", LARGE, 2_000_000)):
        resetting = asyncio.create_task(reset_once(after_bytes))
        await put_file(behind_proxy, key, data)
        await resetting
        assert await read(behind_proxy, key) == data


async def test_slow_store_is_waited_for(behind_proxy: S3Blobs, s3_proxy: Proxy) -> None:
    # Three seconds for the body, where the patience for an answer is one.
    s3_proxy.bytes_per_second = 1_500_000
    data = LARGE[:4_500_000]
    await put_file(behind_proxy, KEY, data)
    assert await read(behind_proxy, KEY) == data


@pytest.mark.parametrize("before", [None, b"whole"], ids=["new", "replaced"])
async def test_half_an_object_is_never_seen_when_the_store_is_killed(
    behind_proxy: S3Blobs, s3_proxy: Proxy, s3: SeaweedS3, before: bytes | None
) -> None:
    if before is not None:
        await behind_proxy.put(KEY, before)
    s3_proxy.bytes_per_second = 8_000_000
    sent = s3_proxy.sent_bytes
    putting = asyncio.create_task(put_file(behind_proxy, KEY, LARGE))
    await within(30, lambda: s3_proxy.sent_bytes > sent + len(LARGE) // 2)
    await asyncio.to_thread(s3.kill)
    with pytest.raises(StorageUnavailable):
        await putting
    await asyncio.to_thread(s3.start)
    s3_proxy.bytes_per_second = None
    if before is None:
        assert await keys(behind_proxy) == set()
        with pytest.raises(NotFound):
            await read(behind_proxy, KEY)
    else:
        assert await read(behind_proxy, KEY) == before
    await put_file(behind_proxy, KEY, LARGE)
    assert await read(behind_proxy, KEY) == LARGE


async def test_what_was_acknowledged_survives_a_kill_of_the_store(
    behind_proxy: S3Blobs, s3: SeaweedS3
) -> None:
    acknowledged: dict[str, bytes] = {}

    async def write(writer: int) -> None:
        for number in range(1000):
            key, data = f"outputs/{writer}/1/{number}.png", os.urandom(30_000)
            await behind_proxy.put(key, data)
            acknowledged[key] = data

    writing = [asyncio.create_task(write(writer)) for writer in range(4)]
    await within(30, lambda: len(acknowledged) > 40)
    await asyncio.to_thread(s3.kill)
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert all(isinstance(outcome, StorageUnavailable) for outcome in outcomes), outcomes
    await asyncio.to_thread(s3.start)
    for key, data in acknowledged.items():
        assert await read(behind_proxy, key) == data


# What clients do without the service in between.


async def test_client_sends_a_file_straight_to_the_store_once(direct: S3Blobs) -> None:
    assert direct.direct
    data = LARGE[:3_000_000]
    way = direct.direct.put(KEY, len(data), "image/png", 60)
    async with httpx2.AsyncClient() as client:
        first = await client.put(way.url, content=data, headers=dict(way.headers))
        again = await client.put(way.url, content=data[::-1], headers=dict(way.headers))
    assert (first.status_code, again.status_code) == (200, 412)
    assert await read(direct, KEY) == data


@pytest.mark.parametrize(
    ("data", "changed"),
    [
        (b"123", {}),
        (b"1234567", {}),
        (b"12345", {"Content-Type": "text/html"}),
        (b"12345", {"If-None-Match": ""}),
    ],
    ids=["too short", "too long", "another type", "overwriting"],
)
async def test_store_takes_just_what_the_ticket_says(
    direct: S3Blobs, data: bytes, changed: dict[str, str]
) -> None:
    assert direct.direct
    way = direct.direct.put(KEY, 5, "image/png", 60)
    async with httpx2.AsyncClient() as client:
        answer = await client.put(way.url, content=data, headers={**way.headers, **changed})
    assert answer.status_code == 403
    assert await keys(direct) == set()


async def test_store_hands_a_file_out_with_the_headers_asked_for(direct: S3Blobs) -> None:
    assert direct.direct
    await direct.put(KEY, b"result")
    asked = {"Content-Type": "image/png", "Content-Disposition": 'attachment; filename="1-1.png"'}
    async with httpx2.AsyncClient() as client:
        answer = await client.get(direct.direct.get(KEY, "GET", asked))
        head = await client.head(direct.direct.get(KEY, "HEAD", asked))
        part = await client.get(direct.direct.get(KEY, "GET", asked), headers={"Range": "bytes=1-2"})
        other = await client.get(direct.direct.get(KEY, "GET", asked).replace("1.png?", "2.png?"))
    assert (answer.status_code, answer.content) == (200, b"result")
    assert {name: answer.headers[name] for name in asked} == asked
    assert (head.status_code, head.headers["content-length"]) == (200, "6")
    assert (part.status_code, part.content) == (206, b"es")
    assert other.status_code == 403


async def test_permission_ends(direct: S3Blobs, signer: Signer) -> None:
    await direct.put(KEY, b"result")
    async with httpx2.AsyncClient() as client:
        url = signer.url("GET", KEY, now=time.time() - 100, seconds=60)
        assert (await client.get(url)).status_code == 403
