"""Blobs: the bytes of pictures, by key. `inputs/<job id>` and `outputs/<job id>/<epoch>/1.<extension>`."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp, mkstemp
from typing import Protocol

from enlarger.errors import NotFound

# No part may start with a dot: that rules out "..", hidden files and our own temporary names.
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)+")


class Blobs(Protocol):
    """Where pictures are kept. A blob is complete or absent, and never changes its bytes half-way."""

    async def put(self, key: str, data: bytes) -> None:
        """Store `data`; durable when it returns."""
        ...

    async def put_file(self, key: str, path: Path) -> None:
        """Take the file over as the blob; durable when it returns, and `path` is gone."""
        ...

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        """A temporary folder from which `put_file` is cheap; removed at exit."""
        ...

    def local(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A local file with the blob's bytes, to be read and not changed. Raises NotFound."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the blob; nothing happens when there is none."""
        ...


class LocalBlobs:
    """Blobs as files below the folder `root`, which only one server uses at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._scratch = root / ".scratch"

    async def clear_scratch(self) -> None:
        """Remove what a killed server left in its temporary folders. Call before the first `scratch()`."""
        await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(write_durably, self._path(key), data)

    async def put_file(self, key: str, path: Path) -> None:
        await asyncio.to_thread(_adopt, path, self._path(key))

    @asynccontextmanager
    async def scratch(self) -> AsyncGenerator[Path]:
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = Path(mkdtemp(dir=self._scratch))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path]:
        """The blob's own file; it stays where it is after the exit."""
        path = self._path(key)
        if not path.is_file():
            raise NotFound(f"No file is stored as {key!r}")
        yield path

    async def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise NotFound(f"No file is stored as {key[:200]!r}")
        return self._root / key


def write_durably(path: Path, data: bytes) -> None:
    """Write a file for its owner's eyes: whole and on the disk when this returns, or not there at all."""
    _make_folder(path.parent)
    handle, temporary = mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _adopt(source: Path, target: Path) -> None:
    _make_folder(target.parent)
    _sync(source)
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another filesystem: copy beside the target first, so that the rename is still atomic.
        beside = target.with_name(f".{target.name}")
        shutil.copyfile(source, beside)
        _sync(beside)
        beside.replace(target)
        source.unlink()
    _sync(target.parent)


def _make_folder(folder: Path) -> None:
    """Make the folder and its parents durable: a file is only as safe as the names that lead to it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
