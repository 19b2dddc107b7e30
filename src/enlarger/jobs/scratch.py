"""Scratch: temporary folders that several processes may share, and that outlive none of them for long."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from enlarger.errors import StorageFull, is_full_disk

_FULL_SECONDS = 60.0


@contextmanager
def told_of_full_disk() -> Generator[None]:
    """Raises StorageFull for what the system says of a full disk."""
    try:
        yield
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise StorageFull("The disk of the server is full: try again later", _FULL_SECONDS) from error


class Scratch:
    """Temporary folders below `root`. Each is locked by who uses it; the system lets go when that process dies."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @asynccontextmanager
    async def folder(self) -> AsyncGenerator[Path]:
        """A new folder, removed at exit. Raises StorageFull when it, or what is done in it, finds the disk full."""
        with told_of_full_disk():
            folder, lock = await asyncio.to_thread(self._locked)
        try:
            with told_of_full_disk():
                yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder)
            os.close(lock)

    def clear(self) -> None:
        """Remove what killed processes left."""
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            # Another process may be clearing as well.
            with suppress(FileNotFoundError, NotADirectoryError), _opened(folder) as lock:
                if _locks(lock):
                    shutil.rmtree(folder, ignore_errors=True)

    def _locked(self) -> tuple[Path, int]:
        self.root.mkdir(parents=True, exist_ok=True)
        while True:
            folder = Path(mkdtemp(dir=self.root))
            with suppress(FileNotFoundError):  # cleared away before it was locked
                lock = os.open(folder, os.O_RDONLY)
                if _locks(lock) and folder.is_dir():
                    return folder, lock
                os.close(lock)


@contextmanager
def _opened(folder: Path) -> Generator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locks(descriptor: int) -> bool:
    """Whether the lock could be had, without waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
