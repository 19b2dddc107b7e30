from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from enlarger.errors import AlreadyExists, InvalidOption, NotFound, PayloadTooLarge
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Key
from enlarger.jobs.service import Service
from enlarger.jobs.uploads import Upload
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 10_000  # several writes to the disk


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def announce(
    service: Service, key: Key, size: int | None, name: str = "cat.png", content_type: str = ""
) -> str:
    return (await service.create_upload(key, name, size, content_type)).token


def stored(settings: Settings) -> list[str]:
    root = settings.data_dir / "blobs"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_upload_is_stored_as_it_was_sent(
    service: Service, blobs: LocalBlobs, key: Key, clock: Any
) -> None:
    ticket = await service.create_upload(key, "cat.png", len(DATA), "image/png")
    chunks = [DATA[at : at + 65_536] for at in range(0, len(DATA), 65_536)]
    upload = await service.receive_upload(ticket.token, stream(*chunks))
    assert upload == replace(ticket.upload, received_at=clock.now)
    assert (upload.key_id, upload.size) == (key.id, len(DATA))
    async with blobs.local(upload.blob_key) as path:
        assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("name", "content_type", "extension"),
    [
        ("cat.png", "image/png", "png"),
        ("cat.JPEG", "", "jpg"),
        ("cat", "image/webp; q=1", "webp"),
        ("cat.png", "image/tiff", "tiff"),
        ("../../etc/passwd", "", "bin"),
        ("page.html", "text/html", "bin"),
        ("", "", "bin"),
    ],
)
async def test_extension_is_one_of_a_picture_or_promises_nothing(
    service: Service, key: Key, name: str, content_type: str, extension: str
) -> None:
    ticket = await service.create_upload(key, name, None, content_type)
    assert ticket.upload.blob_key == f"uploads/{ticket.upload.id}/1.{extension}"


async def test_size_need_not_be_known_before(service: Service, key: Key) -> None:
    upload = await service.receive_upload(await announce(service, key, None), stream(b"ab", b"", b"c"))
    assert upload.size == 3


@pytest.mark.parametrize(
    ("size", "chunks", "error"),
    [
        (3, [b"ab"], InvalidOption),
        (3, [b"ab", b"cd"], PayloadTooLarge),
        (None, [bytes(600), bytes(600)], PayloadTooLarge),
        (None, [], InvalidOption),
    ],
)
async def test_upload_of_another_size_leaves_nothing_and_may_be_repeated(
    service: Service,
    settings: Settings,
    key: Key,
    size: int | None,
    chunks: list[bytes],
    error: type[Exception],
) -> None:
    object.__setattr__(settings, "max_upload_bytes", 1000)
    token = await announce(service, key, size)
    with pytest.raises(error):
        await service.receive_upload(token, stream(*chunks))
    assert stored(settings) == []
    assert (await service.receive_upload(token, stream(b"abc"))).size == 3


@pytest.mark.parametrize(
    ("size", "error"), [(0, InvalidOption), (-1, InvalidOption), (1001, PayloadTooLarge)]
)
async def test_ticket_for_no_bytes_or_too_many_is_refused(
    service: Service, settings: Settings, key: Key, size: int, error: type[Exception]
) -> None:
    object.__setattr__(settings, "max_upload_bytes", 1000)
    with pytest.raises(error):
        await announce(service, key, size)


async def test_film_is_refused_before_it_is_sent(service: Service, key: Key) -> None:
    with pytest.raises(InvalidOption, match="no picture"):
        await announce(service, key, 3, "a.mp4", "video/mp4")


@pytest.mark.parametrize("leaves", [ConnectionResetError, asyncio.CancelledError])
async def test_client_that_vanishes_leaves_nothing(
    service: Service, settings: Settings, key: Key, leaves: type[BaseException]
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise leaves

    token = await announce(service, key, 2 * len(DATA))
    with pytest.raises(leaves):
        await service.receive_upload(token, broken())
    assert list((settings.data_dir / "blobs" / ".scratch").iterdir()) == []
    assert stored(settings) == []


async def test_nothing_is_seen_before_the_last_byte(service: Service, settings: Settings, key: Key) -> None:
    async def watched() -> AsyncIterator[bytes]:
        yield DATA
        assert [path for path in stored(settings) if not path.startswith(".scratch")] == []
        yield b"!"

    await service.receive_upload(await announce(service, key, len(DATA) + 1), watched())
    assert len(stored(settings)) == 1


async def test_file_is_written_once(service: Service, blobs: LocalBlobs, key: Key) -> None:
    token = await announce(service, key, 3)
    upload = await service.receive_upload(token, stream(b"one"))
    with pytest.raises(AlreadyExists):
        await service.receive_upload(token, stream(b"two"))
    async with blobs.local(upload.blob_key) as path:
        assert path.read_bytes() == b"one"


async def test_of_two_uploads_with_one_ticket_at_once_one_wins(
    service: Service, blobs: LocalBlobs, settings: Settings, key: Key
) -> None:
    both, gate = asyncio.Barrier(2), b""

    async def slow(data: bytes) -> AsyncIterator[bytes]:
        await both.wait()
        yield data + gate

    token = await announce(service, key, 3)
    results = await asyncio.gather(
        *(service.receive_upload(token, slow(data)) for data in (b"one", b"two")), return_exceptions=True
    )
    [upload] = [result for result in results if isinstance(result, Upload)]
    assert sum(isinstance(result, AlreadyExists) for result in results) == 1
    async with blobs.local(upload.blob_key) as path:
        assert path.read_bytes() == (b"one", b"two")[results.index(upload)]
    assert stored(settings) == [upload.blob_key]


async def test_wrong_and_expired_tickets_are_not_found(
    service: Service, settings: Settings, key: Key, clock: Any
) -> None:
    token, other = await announce(service, key, 3), await announce(service, key, 3)
    swapped = other.partition(".")[0] + "." + token.partition(".")[2]
    clock.now += settings.upload_seconds
    for wrong in ("", "x", token[:-1], swapped, "." + token, token, "\ud800.1.x"):
        with pytest.raises(NotFound, match="ask for a new one"):
            await service.receive_upload(wrong, stream(b"abc"))


async def test_ticket_opens_no_file_and_a_link_takes_no_upload(service: Service, key: Key) -> None:
    ticket = await service.create_upload(key, "cat.png", 3, "")
    signed = ticket.token.partition(".")[2]
    with pytest.raises(NotFound):
        async with service.open_file(signed, ticket.upload.blob_key):
            pass
    link_token = service.link(ticket.upload.blob_key, "").split("/")[2]
    with pytest.raises(NotFound):
        await service.receive_upload(f"{ticket.upload.id}.{link_token}", stream(b"abc"))
