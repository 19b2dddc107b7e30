from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from enlarger.errors import NotFound
from enlarger.jobs.blobs import LocalBlobs, write_durably

pytestmark = pytest.mark.anyio

KEY = "outputs/1/1/1.png"


async def read(blobs: LocalBlobs, key: str) -> bytes:
    async with blobs.local(key) as path:
        return path.read_bytes()


async def test_blob_comes_back_and_can_be_replaced(blobs: LocalBlobs) -> None:
    await blobs.put(KEY, b"one")
    assert await read(blobs, KEY) == b"one"
    await blobs.put(KEY, b"two")
    assert await read(blobs, KEY) == b"two"


async def test_file_is_taken_over(blobs: LocalBlobs) -> None:
    async with blobs.scratch() as folder:
        (folder / "result").write_bytes(b"big")
        await blobs.put_file(KEY, folder / "result")
        assert not (folder / "result").exists()
    assert await read(blobs, KEY) == b"big"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second filesystem")
async def test_file_of_another_filesystem_is_taken_over(blobs: LocalBlobs) -> None:
    source = Path(f"/dev/shm/enlarger-test-{os.getpid()}")
    source.write_bytes(b"far")
    await blobs.put_file(KEY, source)
    assert await read(blobs, KEY) == b"far"
    assert not source.exists()


async def test_scratch_folder_is_gone_afterwards(blobs: LocalBlobs) -> None:
    async with blobs.scratch() as first, blobs.scratch() as second:
        assert first != second
        (first / "left").write_bytes(b"x")
    assert not first.exists()
    assert not second.exists()


async def test_scratch_of_a_killed_server_is_cleared(blobs: LocalBlobs) -> None:
    async with blobs.scratch() as folder:
        (folder.parent / "left").mkdir()
    await blobs.put(KEY, b"kept")
    await blobs.clear_scratch()
    assert not folder.parent.exists()
    assert await read(blobs, KEY) == b"kept"


async def test_deleted_blob_is_not_found(blobs: LocalBlobs) -> None:
    await blobs.put(KEY, b"x")
    await blobs.delete(KEY)
    await blobs.delete(KEY)
    with pytest.raises(NotFound):
        await read(blobs, KEY)


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
