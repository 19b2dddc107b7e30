"""SplitBlobs: what can be made again stays on this machine's disk, everything else goes to a far store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from enlarger.jobs.blobs import Blobs, Direct, LocalBlobs, Stored

NEAR = "pyramids/"
"""Prefix of the keys that stay near: a viewer reads a pyramid tile by tile, too often for a far store."""


class SplitBlobs:
    """The blobs of `far`, but for those below NEAR, which are in `near`: every machine has its own."""

    def __init__(self, near: LocalBlobs, far: Blobs) -> None:
        self._near = near
        self._far = far

    @property
    def direct(self) -> Direct | None:
        return self._far.direct

    async def put(self, key: str, data: bytes) -> None:
        await self._of(key).put(key, data)

    async def put_file(self, key: str, path: Path) -> None:
        await self._of(key).put_file(key, path)

    async def create_file(self, key: str, path: Path) -> None:
        await self._of(key).create_file(key, path)

    async def copy(self, source: str, target: str) -> None:
        await self._far.copy(source, target)

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        return self._far.scratch()

    async def clear_scratch(self) -> None:
        await self._near.clear_scratch()
        await self._far.clear_scratch()

    def local(self, key: str) -> AbstractAsyncContextManager[Path]:
        return self._of(key).local(key)

    async def size(self, key: str) -> int:
        return await self._of(key).size(key)

    async def delete(self, key: str) -> None:
        await self._of(key).delete(key)

    async def delete_below(self, prefix: str) -> None:
        await self._of(prefix).delete_below(prefix)

    async def pages(self, prefix: str = "") -> AsyncGenerator[list[Stored]]:
        if not prefix or f"{prefix}/".startswith(NEAR):
            async for page in self._near.pages(prefix):
                yield page
        if not f"{prefix}/".startswith(NEAR):
            async for page in self._far.pages(prefix):
                yield page

    async def free_bytes(self) -> int:
        return await self._near.free_bytes()

    def _of(self, key: str) -> Blobs:
        return self._near if key.startswith(NEAR) else self._far
