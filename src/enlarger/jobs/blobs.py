"""Blobs: the bytes of pictures, by key.

`inputs/<job id>/<content>`, `outputs/<job id>/<epoch>/1.<extension>`, `pyramids/<job id>/<picture>.tif`,
`checkpoints/<job id>/<band>` and `uploads/<upload id>/1.<extension>`: what belongs to one owner lies below one
prefix, and goes with it. The last part of an input's key is the SHA-256 of its bytes where these passed through the
service, and `link` where the store copied them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from enlarger.errors import AlreadyExists, NotFound, StorageFull, StorageUnavailable
from enlarger.jobs.durable import adopt, create, link, write_once
from enlarger.jobs.scratch import Scratch, told_of_full_disk

logger = logging.getLogger(__name__)

_FULL_SECONDS = 60.0
_WRITES_AT_ONCE = 32
"""Those that come while the disk stalls then wait for it together; asyncio's own few threads would take turns."""
_PROBE = b"enlarger was here"
# No part may start with a dot: that rules out "..", hidden files and our own temporary names.
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob that is there. `touched_at`: when it got this key or was last used, Unix seconds."""

    key: str
    touched_at: float
    bytes: int


@dataclass(frozen=True, slots=True)
class DirectPut:
    """How a client sends a blob straight to the store: a PUT of its bytes with just these headers."""

    url: str
    headers: Mapping[str, str]
    expires_at: float
    """Unix seconds."""


class Direct(Protocol):
    """What lets clients reach single blobs of the store without the service in between."""

    def put(self, key: str, size: int, media_type: str, seconds: float) -> DirectPut:
        """Permission to create the blob, of just `size` bytes, within `seconds`."""
        ...

    def get(self, key: str, method: str, answer: Mapping[str, str]) -> str:
        """A URL for a GET or HEAD (`method`) of the blob, good for minutes.

        answer: headers the store shall answer with, of Content-Type, Content-Disposition and Cache-Control.
        """
        ...


class Blobs(Protocol):
    """Where pictures are kept. A blob is complete or absent, and never changes its bytes half-way.

    The exception: a power cut during `put` may leave the blob incomplete. Its key must be one that nobody knows yet.

    Every method that goes to the store raises StorageUnavailable when that is away.
    """

    @property
    def direct(self) -> Direct | None:
        """None when every byte goes through the service."""
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Store `data`; durable when it returns."""
        ...

    async def put_file(self, key: str, path: Path) -> None:
        """Take the file over as the blob; durable when it returns, and `path` is gone."""
        ...

    async def create_file(self, key: str, path: Path) -> None:
        """As `put_file`, but raises AlreadyExists, and changes nothing, when there is such a blob."""
        ...

    async def copy(self, source: str, target: str) -> None:
        """Make `target` the bytes of `source`, which may then be deleted. Durable. Raises NotFound."""
        ...

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A temporary folder from which `put_file` is cheap; removed at exit."""
        ...

    async def clear_scratch(self) -> None:
        """Remove what killed processes left in their temporary folders."""
        ...

    def local(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A local file with the blob's bytes, to be read and not changed, until the exit. Raises NotFound."""
        ...

    async def size(self, key: str) -> int:
        """Bytes of the blob. Raises NotFound."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the blob; nothing happens when there is none."""
        ...

    async def delete_below(self, prefix: str) -> None:
        """Remove every blob whose key starts with `prefix` and a slash."""
        ...

    def pages(self, prefix: str = "") -> AsyncIterator[list[Stored]]:
        """Every blob, or those whose key starts with `prefix` and a slash, some at a time."""
        ...

    async def free_bytes(self) -> int:
        """How much more this machine can take in: where blobs are put together before they are stored."""
        ...


async def check_free_space(blobs: Blobs, incoming_bytes: int, min_free_bytes: int) -> None:
    """Raises StorageFull when less than `min_free_bytes` would be left."""
    free = await blobs.free_bytes()
    if free - incoming_bytes < min_free_bytes:
        raise StorageFull(
            f"The server has {free // 1_000_000} MB of disk space left, too little to take more "
            f"(min_free_bytes is {min_free_bytes // 1_000_000} MB): try again later",
            _FULL_SECONDS,
        )


async def delete_files(blobs: Blobs, job_id: str) -> None:
    """Remove whatever is stored for a job that is no more; when the store is away, the sweep of orphans does it."""
    try:
        for kind in ("inputs", "outputs", "pyramids", "checkpoints"):
            await blobs.delete_below(f"{kind}/{job_id}")
    except StorageUnavailable as error:
        logger.warning("The files of job %s stay until the next sweep: %s", job_id, error)


def input_key(job_id: str, content: str = "link") -> str:
    """Key of a job's picture. content: SHA-256 of its bytes, hexadecimal."""
    return f"inputs/{job_id}/{content}"


def is_key(key: str) -> bool:
    """Whether a blob may have this key."""
    return _KEY.fullmatch(key) is not None


async def check_blobs(blobs: Blobs, name: str) -> None:
    """Create a blob, read it, fail to create it again, remove it. name: unlike that of any other check under way.

    Raises StorageUnavailable that says why it does not work.
    """
    key = f"probe/{name}"
    await _create_probe(blobs, key)
    async with blobs.local(key) as path:
        if path.read_bytes() != _PROBE:
            raise StorageUnavailable("The store of pictures gives back other bytes than it was given")
    try:
        await _create_probe(blobs, key)
    except AlreadyExists:
        await blobs.delete(key)
    else:
        raise StorageUnavailable(
            "The store of pictures does not honour If-None-Match: * and overwrites files"
        )


async def _create_probe(blobs: Blobs, key: str) -> None:
    async with blobs.scratch() as folder:
        path = folder / "probe"
        path.write_bytes(_PROBE)
        await blobs.create_file(key, path)


class LocalBlobs:
    """Blobs as files below the folder `root`, which all processes of one service may share.

    Whatever changes a folder runs in a thread, small as it is: it may wait for another file's fsync.
    """

    direct: Direct | None = None

    def __init__(self, root: Path) -> None:
        self._root = root
        self._scratch = Scratch(root / ".scratch")
        self._threads = ThreadPoolExecutor(_WRITES_AT_ONCE, "blobs")

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        return self._scratch.folder()

    async def clear_scratch(self) -> None:
        await asyncio.to_thread(self._scratch.clear)

    async def put(self, key: str, data: bytes) -> None:
        await self._written(write_once, self._path(key), data)

    async def put_file(self, key: str, path: Path) -> None:
        await self._written(adopt, path, self._path(key))

    async def create_file(self, key: str, path: Path) -> None:
        await self._written(create, path, self._path(key))

    async def copy(self, source: str, target: str) -> None:
        async with self.local(source) as path:
            await self._written(link, path, self._path(target))

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path]:
        """The blob's own file; it stays where it is after the exit."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"No file is stored as {key!r}")
        yield path

    async def size(self, key: str) -> int:
        try:
            return self._path(key).stat().st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"No file is stored as {key!r}") from error

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(_remove, self._path(key), self._root)

    async def delete_below(self, prefix: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._path(prefix), ignore_errors=True)

    async def pages(self, prefix: str = "") -> AsyncGenerator[list[Stored]]:
        yield await asyncio.to_thread(_stored, self._root, self._root / prefix)

    async def free_bytes(self) -> int:
        # Takes microseconds, where a trip to a thread takes a hundred.
        try:
            return shutil.disk_usage(self._root).free
        except FileNotFoundError:
            self._root.mkdir(parents=True, exist_ok=True)
            return shutil.disk_usage(self._root).free

    async def _written(self, write: Callable[..., None], *values: Any) -> None:
        with told_of_full_disk():
            await asyncio.get_running_loop().run_in_executor(self._threads, write, *values)

    def _path(self, key: str) -> Path:
        if not is_key(key):
            raise NotFound(f"No file is stored as {key[:200]!r}")
        return self._root / key


def _remove(path: Path, root: Path) -> None:
    path.unlink(missing_ok=True)
    # The folder of a job or an upload goes with its last file; one with other files stays.
    if path.parent.parent != root:
        with suppress(OSError):
            path.parent.rmdir()


def _stored(root: Path, start: Path) -> list[Stored]:
    found: list[Stored] = []
    for folder, names, files in os.walk(start):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            key = path.relative_to(root).as_posix()
            # A file may go between the listing and the look at it. What has no key of ours is not ours.
            with suppress(FileNotFoundError):
                if is_key(key):
                    status = path.stat()
                    # The time of the last change to the name; a copy shares the bytes, and so their older time.
                    found.append(Stored(key, status.st_ctime, status.st_size))
    return found
