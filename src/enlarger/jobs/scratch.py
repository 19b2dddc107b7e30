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


class Scratch:
    """Temporary folders below `root`. Each is locked by who uses it; the system lets go when that process dies."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @asynccontextmanager
    async def folder(self) -> AsyncGenerator[Path]:
        """A new folder, removed at exit."""
        folder, lock = await asyncio.to_thread(self._locked)
        try:
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
