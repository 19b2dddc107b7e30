from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest

from enlarger.errors import NotFound, StorageFull
from enlarger.jobs.blobs import LocalBlobs, check_free_space
from enlarger.jobs.durable import write_durably

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 20
KEY = "outputs/1/1/1.png"


async def read(blobs: LocalBlobs, key: str) -> bytes:
    async with blobs.local(key) as path:
        return path.read_bytes()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second filesystem")
async def test_file_of_another_filesystem_is_taken_over(blobs: LocalBlobs) -> None:
    source = Path(f"/dev/shm/enlarger-test-{os.getpid()}")
    source.write_bytes(b"far")
    await blobs.put_file(KEY, source)
    assert await read(blobs, KEY) == b"far"
    assert not source.exists()


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "/etc/passwd",
        "../key",
        "outputs/../../key",
        "outputs//x",
        "outputs/",
        "outputs/.x",
        "outputs/a\0",
        "a/b\n",
    ],
)
async def test_key_that_leaves_the_folder_is_refused(blobs: LocalBlobs, tmp_path: Path, key: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "key").write_text("secret")
    with pytest.raises(NotFound):
        await read(blobs, key)
    with pytest.raises(NotFound):
        await blobs.put(key, b"x")
    with pytest.raises(NotFound):
        await blobs.delete(key)


async def test_failed_write_leaves_the_old_bytes_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_durably(path, b"old")
    with pytest.raises(TypeError):
        write_durably(path, "not bytes")  # type: ignore[arg-type]
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("key", b"old")]


async def test_written_file_is_for_its_owner_only(tmp_path: Path) -> None:
    write_durably(tmp_path / "new" / "key", b"x")
    assert stat.S_IMODE((tmp_path / "new" / "key").stat().st_mode) == 0o600


async def test_pictures_that_come_while_the_disk_stalls_wait_for_it_together(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, stalled = os.fsync, threading.Barrier(20)

    def stalls(descriptor: int) -> None:
        stalled.wait(WAIT_SECONDS)  # until all are there; raises when they are not
        fsync(descriptor)

    await blobs.put("inputs/0/link", b"so that the folder is there")
    folders = [f"inputs/{number}" for number in range(1, 21)]
    await asyncio.gather(*(blobs.put(f"{folder}/first", b"x") for folder in folders))
    monkeypatch.setattr(os, "fsync", stalls)
    # Two syncs a picture: of the file and of its folder.
    await asyncio.gather(*(blobs.put(f"{folder}/second", b"x") for folder in folders))
    assert [await read(blobs, f"{folder}/second") for folder in folders] == [b"x"] * 20


async def test_full_disk_is_told_before_it_is_full(blobs: LocalBlobs) -> None:
    free = await blobs.free_bytes()
    await check_free_space(blobs, 0, 0)
    with pytest.raises(StorageFull) as refusal:
        await check_free_space(blobs, 2 * free, 0)
    assert refusal.value.retry_after_seconds > 0
