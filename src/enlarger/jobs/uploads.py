"""Uploads: files that clients send ahead of the job that uses them.

A ticket names one file and carries its own right: its holder may write that file, once, and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from anyio.to_thread import run_sync
from sqlalchemy import insert, select, update

from enlarger.errors import AlreadyExists, InvalidOption, NotFound, PayloadTooLarge
from enlarger.jobs import links
from enlarger.jobs.blobs import Blobs, DirectPut, check_free_space
from enlarger.jobs.database import Database
from enlarger.jobs.files import UPLOAD_EXTENSIONS, media_type_of
from enlarger.jobs.job import Key
from enlarger.jobs.tables import uploads
from enlarger.settings import Settings

_DIRECT_SECONDS = 3600.0
"""How much longer than its permission an upload straight to the store may take."""
_SAME = {"jpeg": "jpg", "tif": "tiff", "heif": "heic"}
_UNKNOWN = "bin"
_ADD = insert(uploads)
_WRITE_BYTES = 1 << 20
"""Chunks of the network are small; one trip to a thread for each would cost more than the write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file announced, and perhaps received. Times are Unix seconds."""

    id: str
    key_id: str
    filename: str
    blob_key: str
    size: int | None
    """Bytes, as announced and then as received; None when not announced."""
    created_at: float
    expires_at: float
    """Until when it may be sent."""
    received_at: float | None = None


@dataclass(frozen=True, slots=True)
class Ticket:
    """An upload and the token that allows it; with `direct` its file goes straight to the store instead."""

    upload: Upload
    token: str
    direct: DirectPut | None = None


class Uploads:
    """Tickets and what becomes of them. clock: Unix seconds."""

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        settings: Settings,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        secret: bytes,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._secret = secret

    async def create(
        self, key: Key, filename: str, size: int | None, content_type: str, *, may_be_direct: bool = True
    ) -> Ticket:
        """A ticket for one file; `may_be_direct`: it may lead straight to the store.

        Raises InvalidOption, PayloadTooLarge, StorageFull.
        """
        self._check_size(size)
        extension = _extension(filename, content_type)
        now, upload_id, life = self._clock(), self._new_id(), self._settings.upload_seconds
        blob_key = f"uploads/{upload_id}/1.{extension}"
        direct = self._direct(blob_key, size) if may_be_direct else None
        if direct is None:
            await check_free_space(self._blobs, size or 0, self._settings.min_free_bytes)
        upload = Upload(
            id=upload_id,
            key_id=key.id,
            filename=filename[:255],
            blob_key=blob_key,
            size=size,
            created_at=now,
            # What was begun in time may arrive later, and only the store sees it.
            expires_at=now + life + (_DIRECT_SECONDS if direct else 0.0),
        )
        await self._database.write(lambda connection: connection.execute(_ADD, asdict(upload)))
        token = links.sign(self._secret, _subject(upload_id), int(upload.expires_at))
        return Ticket(upload, f"{upload_id}.{token}", direct)

    def _direct(self, blob_key: str, size: int | None) -> DirectPut | None:
        direct = self._blobs.direct
        if direct is None or size is None or size <= self._settings.direct_upload_bytes:
            return None
        media_type = media_type_of(blob_key)
        return direct.put(blob_key, size, media_type, self._settings.upload_seconds)

    async def receive(self, token: str, stream: AsyncIterator[bytes]) -> Upload:
        """Store the file of a ticket. Until it is complete and on the disk nothing of it can be seen.

        Raises NotFound (token), AlreadyExists (received before), PayloadTooLarge and InvalidOption (size),
        StorageFull, and whatever `stream` raises.
        """
        upload = await self._announced(token)
        async with self._blobs.scratch() as folder:
            path = folder / "upload"
            size = await self._save(stream, path, upload.size)
            await self._blobs.create_file(upload.blob_key, path)
        received = {"size": size, "received_at": self._clock()}
        statement = update(uploads).where(uploads.c.id == upload.id).values(**received).returning(*uploads.c)
        row = await self._database.write(
            lambda connection: connection.execute(statement).mappings().one_or_none()
        )
        if row is None:
            # Its time ran out while it was being sent, and the sweep has taken the ticket away.
            await self._blobs.delete(upload.blob_key)
            raise _no_ticket()
        return Upload(**row)

    async def _announced(self, token: str) -> Upload:
        upload_id, _, signed = token.partition(".")
        if not links.verify(self._secret, _subject(upload_id), signed, self._clock()):
            raise _no_ticket()
        query = select(uploads).where(uploads.c.id == upload_id)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        if row is None:
            raise _no_ticket()
        upload = Upload(**row)
        if upload.received_at is not None:
            raise AlreadyExists("The file of this ticket has been received: ask for a new ticket")
        return upload

    async def _save(self, stream: AsyncIterator[bytes], path: Path, announced: int | None) -> int:
        limit = self._settings.max_upload_bytes if announced is None else announced
        size, waiting = 0, bytearray()
        with path.open("wb") as file:
            async for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise self._too_large(limit, announced)
                waiting += chunk
                if len(waiting) >= _WRITE_BYTES:
                    waiting = await self._flushed(file, waiting)
            await self._flushed(file, waiting)
        if announced is not None and size != announced:
            raise InvalidOption(
                f"The upload has {size} bytes, its ticket says {announced}: send it again", "size"
            )
        if not size:
            raise InvalidOption("The upload is empty", "size")
        return size

    async def _flushed(self, file: BinaryIO, waiting: bytearray) -> bytearray:
        await check_free_space(self._blobs, len(waiting), self._settings.min_free_bytes)
        await run_sync(file.write, waiting)
        return bytearray()

    def _check_size(self, size: int | None) -> None:
        if size is None:
            return
        if size < 1:
            raise InvalidOption(f"size must be the number of bytes of the file, not {size}", "size")
        if size > self._settings.max_upload_bytes:
            raise self._too_large(size, None)

    def _too_large(self, size: int, announced: int | None) -> PayloadTooLarge:
        if announced is not None:
            return PayloadTooLarge(f"The upload is larger than the {announced} bytes of its ticket")
        return PayloadTooLarge(
            f"The file has {size} bytes or more, above max_upload_bytes ({self._settings.max_upload_bytes})"
        )


def _extension(filename: str, content_type: str) -> str:
    """Of the blob key: the announced type's, else the file name's, else one that promises nothing."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.startswith(("video/", "audio/")):
        raise InvalidOption(
            f"content_type {media_type[:40]!r} is no picture's: send image/...", "content_type"
        )
    suffix = filename.rpartition(".")[2].lower()
    suffix = _SAME.get(suffix, suffix)
    return UPLOAD_EXTENSIONS.get(media_type) or (suffix if suffix in UPLOAD_EXTENSIONS.values() else _UNKNOWN)


def _subject(upload_id: str) -> str:
    # No blob has such a key: a link to a file never opens an upload, nor the other way round.
    return f"ticket:{upload_id}"


def _no_ticket() -> NotFound:
    return NotFound("Upload not found: the ticket is wrong or has expired; ask for a new one")
