"""What has been handed to the disk when a call returns. The calls of the system are counted as they pass."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from enlarger.jobs.durable import adopt, create, link, write_durably, write_once

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/fd").is_dir(), reason="asks Linux for the names of open files"
)

Write = Callable[[Path, Path], None]

WAYS: dict[str, Write] = {
    "write_durably": lambda source, target: write_durably(target, source.read_bytes()),
    "write_once": lambda source, target: write_once(target, source.read_bytes()),
    "adopt": adopt,
    "create": create,
    "link": link,
}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, set[str]]]:
    """Of every fsync: the inode, and the names that were in the folder, or beside the file, at that moment."""
    seen: list[tuple[int, set[str]]] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append((path.stat().st_ino, names_in(path.parent if path.is_file() else path)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    return seen


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"picture")
    return path


@pytest.mark.parametrize("way", WAYS)
def test_file_and_every_name_that_leads_to_it_are_on_the_disk(
    way: str, source: Path, tmp_path: Path, synced: list[tuple[int, set[str]]]
) -> None:
    target = tmp_path / "new" / "folder" / "key"
    WAYS[way](source, target)
    assert target.read_bytes() == b"picture"
    inodes = {inode for inode, _ in synced}
    # `link` gives a second name to what is on the disk already.
    paths = [tmp_path, tmp_path / "new", tmp_path / "new" / "folder", *([target] if way != "link" else [])]
    assert {path.stat().st_ino for path in paths} <= inodes
    assert names_in(target.parent) == {"key"}
    # The folder was asked for after it had the name, or the name may be missing on the disk.
    folder = target.parent.stat().st_ino
    assert any(inode == folder and "key" in names for inode, names in synced)


@pytest.mark.parametrize("way", ["write_durably", "adopt", "create"])
def test_file_is_on_the_disk_before_it_has_its_name(
    way: str, source: Path, tmp_path: Path, synced: list[tuple[int, set[str]]]
) -> None:
    target = tmp_path / "new" / "key"
    WAYS[way](source, target)
    file = target.stat().st_ino
    assert all("key" not in names for inode, names in synced if inode == file)
