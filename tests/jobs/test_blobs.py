from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from enlarger.errors import AlreadyExists, NotFound, StorageFull
from enlarger.jobs.blobs import LocalBlobs, check_free_space, delete_files, write_durably

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


async def test_file_is_created_once(blobs: LocalBlobs) -> None:
    for data in (b"one", b"two"):
        async with blobs.scratch() as folder:
            (folder / "file").write_bytes(data)
            if data == b"one":
                await blobs.create_file(KEY, folder / "file")
                assert not (folder / "file").exists()
                continue
            with pytest.raises(AlreadyExists):
                await blobs.create_file(KEY, folder / "file")
    assert await read(blobs, KEY) == b"one"


async def test_copy_outlives_and_outstays_its_source(blobs: LocalBlobs) -> None:
    await blobs.put(KEY, b"one")
    await blobs.copy(KEY, "inputs/2")
    await blobs.put(KEY, b"two")
    assert await read(blobs, "inputs/2") == b"one"
    await blobs.delete(KEY)
    assert await read(blobs, "inputs/2") == b"one"
    with pytest.raises(NotFound):
        await blobs.copy(KEY, "inputs/3")


async def test_list_names_every_blob_and_no_temporary_file(blobs: LocalBlobs) -> None:
    assert await blobs.list() == []
    keys = {KEY, "inputs/1", "uploads/3/1.png"}
    for key in keys:
        await blobs.put(key, b"?")
    async with blobs.scratch() as folder:
        (folder / "half").write_bytes(b"?")
        assert {blob.key for blob in await blobs.list()} == keys


async def test_files_of_a_job_go_together_and_leave_those_of_others(blobs: LocalBlobs) -> None:
    others = {"inputs/10", "outputs/10/1/1.png", "uploads/1/1.png"}
    for key in ("inputs/1", "outputs/1/1/1.png", "outputs/1/2/1.png", *others):
        await blobs.put(key, b"?")
    for _ in range(2):
        await delete_files(blobs, "1")
        assert {blob.key for blob in await blobs.list()} == others
    for key in ("..", "../..", "inputs/../outputs", ""):
        with pytest.raises(NotFound):
            await blobs.delete_below(key)


async def test_full_disk_is_told_before_it_is_full(blobs: LocalBlobs) -> None:
    free = await blobs.free_bytes()
    await check_free_space(blobs, 0, 0)
    with pytest.raises(StorageFull) as refusal:
        await check_free_space(blobs, 2 * free, 0)
    assert refusal.value.retry_after_seconds > 0
