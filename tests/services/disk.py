"""A small disk of its own for the processes of a test, which can be full: memory, in a mount namespace."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o size="$1" small "$2" && shift 2 && exec "$@"'


class SmallDisk:
    """Seen at `folder` by the process started with `before`, and by those that share its view."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._root = Path()
        # Who is not root is so in a namespace of users of his own.
        self._as_root = [] if os.getuid() == 0 else ["--map-root-user"]
        unshare = ["unshare", *self._as_root, "--mount"]
        self.before = [*unshare, "sh", "-c", _MOUNT, "sh", str(size_bytes), str(folder)]

    def shared_with(self, pid: int) -> list[str]:
        """Words before the command of a process that is to see the disk of process `pid`."""
        self._root = Path(f"/proc/{pid}/root")
        user = ["--user", "--preserve-credentials"] if self._as_root else []
        return ["nsenter", f"--target={pid}", *user, "--mount"]

    def fill(self) -> None:
        """To the last byte."""
        with self._filler.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def empty(self) -> None:
        self._filler.unlink()

    @property
    def _filler(self) -> Path:
        return self._root / self._folder.relative_to("/") / "filler"
