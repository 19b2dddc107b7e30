"""Intake: from the `image` of a request to bytes in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256

from enlarger.errors import InvalidOption, NotFound
from enlarger.jobs.blobs import Blobs, check_free_space, input_key
from enlarger.jobs.sources import InlineSource, OwnSource, Source, UrlSource, own_source, parse_image
from enlarger.settings import Settings

_LARGE_CHARACTERS = 1_000_000
"""From here on base64 is decoded, and what comes out hashed, in a thread: a megabyte takes about a millisecond."""


class Intake:
    """Reads what requests name as their picture. clock: Unix seconds; link_secret: signs links to files."""

    def __init__(
        self, *, blobs: Blobs, settings: Settings, clock: Callable[[], float], link_secret: bytes
    ) -> None:
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._link_secret = link_secret

    async def read(self, image: str) -> Source:
        """What the text means. Fetches nothing. Raises InvalidOption(field="image"), PayloadTooLarge."""
        limit = self._settings.max_inline_bytes
        if len(image) < _LARGE_CHARACTERS:
            source = parse_image(image, limit)
        else:
            source = await asyncio.to_thread(parse_image, image, limit)
        if isinstance(source, UrlSource):
            return own_source(source.url, self._link_secret, self._clock()) or source
        return source

    async def check_space(self, source: Source) -> None:
        """Raises StorageFull when the disk is too full to take the picture, or any."""
        incoming = len(source.data) if isinstance(source, InlineSource) else 0
        await check_free_space(self._blobs, incoming, self._settings.min_free_bytes)

    async def store(self, job_id: str, source: InlineSource | OwnSource) -> str:
        """Store the picture for the job; its key. Raises InvalidOption when the link leads to nothing any more."""
        if isinstance(source, InlineSource):
            key = input_key(job_id, await _sha256(source.data))
            await self._blobs.put(key, source.data)
            return key
        try:
            key = input_key(job_id)
            await self._blobs.copy(source.blob_key, key)
            return key
        except NotFound as error:
            raise InvalidOption(
                "image is a link of this server to a file that is gone: upload it again", "image"
            ) from error


async def _sha256(data: bytes) -> str:
    hashed = sha256(data) if len(data) < _LARGE_CHARACTERS else await asyncio.to_thread(sha256, data)
    return hashed.hexdigest()
