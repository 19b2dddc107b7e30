"""Durable: files that are on the disk, with all names that lead to them, when a call returns.

A disk takes milliseconds to say that it has something, however little that is, and says so to all who ask at once. So
what has to be waited for is waited for together. All calls block.
"""

from __future__ import annotations

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkstemp

from enlarger.errors import AlreadyExists, NotFound

_WAITING = ThreadPoolExecutor(64, "disk")
"""They hold a descriptor and wait."""


def write_durably(path: Path, data: bytes) -> None:
    """Write a file for its owner's eyes: whole, or not there at all, also after a power cut."""
    temporary, changed = _written(path, data)
    try:
        _sync(temporary, *changed)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_once(path: Path, data: bytes) -> None:
    """As `write_durably`, in half the time, for a path that nobody looks at before this returns.

    Whoever looks sees the whole file or none, but a power cut before this returns may leave it without its bytes.
    """
    temporary, changed = _written(path, data)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path, path.parent, *changed)


def adopt(source: Path, target: Path) -> None:
    """Make the file `source` the file `target`: whole, or as before, also after a power cut."""
    _sync(source, *_make_folder(target.parent))
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


def create(source: Path, target: Path) -> None:
    """As `adopt`, if there is no `target` yet. Both are on one filesystem. Raises AlreadyExists."""
    _sync(source, *_make_folder(target.parent))
    try:
        target.hardlink_to(source)  # unlike a rename, this fails when the name is taken
    except FileExistsError as error:
        raise AlreadyExists(f"A file is stored already as {target.name!r}") from error
    _sync(target.parent)
    source.unlink()


def link(source: Path, target: Path) -> None:
    """A second name for the file, which must be durable. Raises NotFound."""
    changed = _make_folder(target.parent)
    try:
        target.hardlink_to(source)
    except FileExistsError:
        return
    except FileNotFoundError as error:
        raise NotFound(f"No file is stored as {source.name!r}") from error
    _sync(target.parent, *changed)


def _written(path: Path, data: bytes) -> tuple[Path, list[Path]]:
    """A file with a name of its own beside `path`, and the folders above that have changed for it."""
    changed = _make_folder(path.parent)
    handle, temporary = mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return Path(temporary), changed


def _make_folder(folder: Path) -> list[Path]:
    """Make the folder and its parents; those that have a new name in them, for a file is as safe as its folders."""
    if folder.is_dir():
        return []
    changed = _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    return [*changed, folder.parent]


def _sync(path: Path, *others: Path) -> None:
    waiting = [_WAITING.submit(_sync_one, other) for other in others]
    _sync_one(path)
    for other in waiting:
        other.result()


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
