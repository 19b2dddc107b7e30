"""Pyramids: stored pictures at every zoom, made when somebody first looks closely and kept while there is room.

They are blobs like others, `pyramids/<job id>/<picture>.tif`, and can be made again at any time.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from enlarger.errors import InvalidPicture, NotFound
from enlarger.jobs.blobs import Blobs, check_free_space

_MOST_OPEN = 16
"""Where the tiles lie is kept for so many pyramids: half a megabyte for one of 16k × 16k."""
_TOUCH_SECONDS = 60.0


class Level(Protocol):
    """One zoom of a picture, in pixels, and how many tiles it has."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def rows(self) -> int: ...


class Pyramid(Protocol):
    """A picture at every zoom. Level 0 is the whole picture, each further one half of the one before."""

    @property
    def media_type(self) -> str: ...
    @property
    def tile_size(self) -> int: ...
    @property
    def levels(self) -> tuple[Level, ...]: ...

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile as a picture file. Raises NotFound outside the picture, FileNotFoundError when it is gone."""
        ...


class Write(Protocol):
    def __call__(self, path: Path, target: Path, /, *, frame: int = 0) -> None:
        """Write the picture file `path` as the pyramid `target`; blocks. Raises InvalidPicture, OutOfMemory."""
        ...


Read = Callable[[Path], Pyramid]
"""Opens a pyramid that was written before; blocks. Raises InvalidPicture for any other file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A pyramid by its blob key, and the picture it is made of: a blob, and a frame of it."""

    key: str
    source_key: str
    frame: int = 0


@dataclass(slots=True)
class _Open:
    pyramid: Pyramid
    touched_at: float = -math.inf


class Pyramids:
    """Gives pyramids, made one at a time. What was not looked at for longest goes when they pass `most_bytes`."""

    def __init__(
        self, blobs: Blobs, write: Write, read: Read, *, most_bytes: int, min_free_bytes: int
    ) -> None:
        self._blobs = blobs
        self._write = write
        self._read = read
        self._most_bytes = most_bytes
        self._min_free_bytes = min_free_bytes
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._making: dict[str, asyncio.Task[Pyramid]] = {}
        self._turn = asyncio.Lock()

    async def known(self, key: str) -> Pyramid | None:
        """The pyramid, if it is there."""
        found = self._open.pop(key, None)
        try:
            if found is None:
                async with self._blobs.local(key) as path:
                    found = _Open(await asyncio.to_thread(self._read, path))
            if time.monotonic() - found.touched_at > _TOUCH_SECONDS:
                async with self._blobs.local(key) as path:
                    os.utime(path)
                found.touched_at = time.monotonic()
        except NotFound:
            return None
        except InvalidPicture:  # of a disk that lost a part
            await self._blobs.delete(key)
            return None
        self._open[key] = found  # the last one is the one used last
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)
        return found.pyramid

    async def get(self, wanted: Wanted, is_wanted: Callable[[], Awaitable[bool]]) -> Pyramid:
        """The pyramid, made now if need be, once for all who wait for it.

        It is removed again if it is not wanted any more when it is done. Raises NotFound, InvalidPicture,
        PictureTooLarge, OutOfMemory, StorageFull.
        """
        if found := await self.known(wanted.key):
            return found
        making = self._making.get(wanted.key)
        if making is None:
            making = asyncio.create_task(self._made(wanted, is_wanted))
            self._making[wanted.key] = making
            making.add_done_callback(lambda task: self._ended(wanted.key, task))
        # Whoever hangs up does not take it away from the others.
        return await asyncio.shield(making)

    def forget(self, key: str) -> None:
        """The file of this pyramid is gone."""
        self._open.pop(key, None)

    async def close(self) -> None:
        """Stop what is being made. The call of `write` under way goes on until its owner ends it."""
        making = [*self._making.values()]
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)

    def _ended(self, key: str, task: asyncio.Task[Pyramid]) -> None:
        del self._making[key]
        if not task.cancelled():
            task.exception()  # seen, even where nobody waits for it any more

    async def _made(self, wanted: Wanted, is_wanted: Callable[[], Awaitable[bool]]) -> Pyramid:
        async with (
            self._turn,
            self._blobs.scratch() as folder,
            self._blobs.local(wanted.source_key) as source,
        ):
            await check_free_space(self._blobs, 0, self._min_free_bytes)
            target = folder / "pyramid"
            await asyncio.to_thread(self._write, source, target, frame=wanted.frame)
            await asyncio.to_thread(self._read, target)
            await self._blobs.put_file(wanted.key, target)
        if not await is_wanted():
            await self._blobs.delete(wanted.key)
            raise NotFound("The prediction was deleted while its picture was being prepared")
        for key in await remove_oldest(self._blobs, self._most_bytes):
            self.forget(key)
        if found := await self.known(wanted.key):
            return found
        raise NotFound("The prepared picture is gone already: ask again")


async def remove_oldest(blobs: Blobs, most_bytes: int) -> list[str]:
    """Remove pyramids, those not used for longest first, until `most_bytes` hold them; the newest always stays."""
    found = [blob async for page in blobs.pages("pyramids") for blob in page]
    stored = sorted(found, key=lambda blob: blob.touched_at)
    total = sum(blob.bytes for blob in stored)
    removed: list[str] = []
    for blob in stored[:-1]:
        if total <= most_bytes:
            break
        await blobs.delete(blob.key)
        total -= blob.bytes
        removed.append(blob.key)
    return removed
