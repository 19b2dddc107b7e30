"""Pyramids as a cache: made once for all, kept within a quota, gone with what they belong to."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from PIL import Image

from enlarger.engine.decoder import Decoder, DecoderLimits
from enlarger.engine.pyramid_file import open_pyramid
from enlarger.errors import InvalidPicture, NotFound, StorageFull
from enlarger.jobs.blobs import LocalBlobs, Stored
from enlarger.jobs.pyramids import Pyramids, Wanted, remove_oldest

pytestmark = pytest.mark.anyio

FIRST = Wanted(key="pyramids/1/input.tif", source_key="inputs/1")
OTHERS = [Wanted(key=f"pyramids/{number}/input.tif", source_key="inputs/1") for number in (2, 3, 4)]


@dataclass
class Writer:
    """A decoder whose calls are counted and can be held up."""

    decoder: Decoder
    calls: list[Path] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)

    def __call__(self, path: Path, target: Path, /, *, frame: int = 0) -> None:
        self.calls.append(path)
        self.started.set()
        assert self.gate.wait(30)
        self.decoder.write_pyramid(path, target, frame=frame)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(DecoderLimits(max_pixels=10**6))) as opened:
        yield opened


@pytest.fixture
def writer(decoder: Decoder) -> Writer:
    writer = Writer(decoder)
    writer.gate.set()
    return writer


@pytest.fixture
async def pyramids(blobs: LocalBlobs, writer: Writer, tmp_path: Path) -> AsyncIterator[Pyramids]:
    Image.effect_noise((700, 400), 50).save(tmp_path / "picture.png")
    await blobs.put("inputs/1", (tmp_path / "picture.png").read_bytes())
    opened = over(blobs, writer)
    yield opened
    await opened.close()


def over(blobs: LocalBlobs, writer: Writer, *, most_bytes: int = 10**9, free: int = 0) -> Pyramids:
    return Pyramids(blobs, writer, open_pyramid, most_bytes=most_bytes, min_free_bytes=free)


async def yes() -> bool:
    return True


async def stored(blobs: LocalBlobs) -> list[Stored]:
    return [blob async for page in blobs.pages("pyramids") for blob in page]


async def keys(blobs: LocalBlobs) -> set[str]:
    return {blob.key for blob in await stored(blobs)}


async def touched_last(blobs: LocalBlobs, key: str) -> None:
    """The clock of files ticks every few milliseconds: touch it until that shows."""
    async with asyncio.timeout(30):
        while True:
            async with blobs.local(key) as path:
                os.utime(path)
            newest = sorted(await stored(blobs), key=lambda blob: blob.touched_at)[-2:]
            if newest[-1].key == key and newest[-1].touched_at > newest[0].touched_at:
                return
            await asyncio.sleep(0.001)


async def test_many_who_ask_at_once_wait_for_one_making(pyramids: Pyramids, writer: Writer) -> None:
    found = await asyncio.gather(*(pyramids.get(FIRST, yes) for _ in range(10)))
    assert len(writer.calls) == 1
    assert len({id(pyramid) for pyramid in found}) == 1
    assert (found[0].levels[0].width, found[0].levels[0].height) == (700, 400)
    assert await pyramids.get(FIRST, yes) is found[0]
    assert len(writer.calls) == 1


async def test_who_hangs_up_does_not_take_it_away_from_the_others(pyramids: Pyramids, writer: Writer) -> None:
    writer.gate.clear()
    impatient = asyncio.create_task(pyramids.get(FIRST, yes))
    assert await asyncio.to_thread(writer.started.wait, 30)
    patient = asyncio.create_task(pyramids.get(FIRST, yes))
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    writer.gate.set()
    assert (await patient).tile_size
    assert len(writer.calls) == 1


async def test_a_failure_that_nobody_waits_for_is_no_noise(
    pyramids: Pyramids, blobs: LocalBlobs, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    await blobs.put("inputs/2", b"no picture")
    writer.gate.clear()
    asking = asyncio.create_task(pyramids.get(replace(FIRST, source_key="inputs/2"), yes))
    assert await asyncio.to_thread(writer.started.wait, 30)
    asking.cancel()
    writer.gate.set()
    await pyramids.get(OTHERS[0], yes)  # made after it
    gc.collect()
    assert "never retrieved" not in caplog.text
    assert (await pyramids.get(FIRST, yes)).tile_size


async def test_a_restart_finds_what_was_made_before(
    pyramids: Pyramids, blobs: LocalBlobs, writer: Writer
) -> None:
    tile = (await pyramids.get(FIRST, yes)).tile(0, 0, 0)
    later = over(blobs, writer)
    known = await later.known(FIRST.key)
    assert known
    assert known.tile(0, 0, 0) == tile
    assert await later.known("pyramids/9/input.tif") is None
    assert len(writer.calls) == 1


async def test_a_file_that_was_damaged_is_made_again(
    pyramids: Pyramids, blobs: LocalBlobs, writer: Writer
) -> None:
    tile = (await pyramids.get(FIRST, yes)).tile(0, 0, 0)
    await blobs.put(FIRST.key, b"II*\0 and then the power went")
    assert (await over(blobs, writer).get(FIRST, yes)).tile(0, 0, 0) == tile
    assert len(writer.calls) == 2


async def test_a_picture_that_is_damaged_leaves_nothing_behind(pyramids: Pyramids, blobs: LocalBlobs) -> None:
    await blobs.put("inputs/2", b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(InvalidPicture):
        await pyramids.get(replace(FIRST, source_key="inputs/2"), yes)
    assert await keys(blobs) == set()
    assert (await pyramids.get(FIRST, yes)).tile_size
    with pytest.raises(NotFound):
        await pyramids.get(replace(OTHERS[0], source_key="inputs/3"), yes)


async def test_the_one_not_looked_at_for_longest_makes_room(
    pyramids: Pyramids, blobs: LocalBlobs, writer: Writer
) -> None:
    await pyramids.get(FIRST, yes)
    [one] = await stored(blobs)
    few = over(blobs, writer, most_bytes=2 * one.bytes + 1)
    await few.get(OTHERS[0], yes)
    await touched_last(blobs, FIRST.key)
    await few.get(OTHERS[1], yes)
    assert await keys(blobs) == {FIRST.key, OTHERS[1].key}
    none = over(blobs, writer, most_bytes=0)
    assert (await none.get(OTHERS[2], yes)).tile(0, 0, 0)
    assert await keys(blobs) == {OTHERS[2].key}
    assert await remove_oldest(blobs, 0) == []


async def test_a_pyramid_removed_behind_its_back_is_made_again(
    pyramids: Pyramids, blobs: LocalBlobs, writer: Writer
) -> None:
    first = await pyramids.get(FIRST, yes)
    await blobs.delete(FIRST.key)
    with pytest.raises(FileNotFoundError):
        first.tile(0, 0, 0)
    pyramids.forget(FIRST.key)
    assert (await pyramids.get(FIRST, yes)).tile(0, 0, 0)
    assert len(writer.calls) == 2


async def test_what_is_deleted_while_it_is_made_is_not_kept(
    pyramids: Pyramids, blobs: LocalBlobs, writer: Writer
) -> None:
    async def no() -> bool:
        return False

    with pytest.raises(NotFound, match="deleted"):
        await pyramids.get(FIRST, no)
    assert await keys(blobs) == set()


async def test_a_full_disk_refuses_before_anything_is_made(
    pyramids: Pyramids, blobs: LocalBlobs, writer: Writer, tmp_path: Path
) -> None:
    full = over(blobs, writer, free=shutil.disk_usage(tmp_path).total)
    with pytest.raises(StorageFull):
        await full.get(FIRST, yes)
    assert writer.calls == []


async def test_closing_ends_what_is_under_way_and_leaves_no_half(
    blobs: LocalBlobs, pyramids: Pyramids, writer: Writer
) -> None:
    writer.gate.clear()
    asking = asyncio.create_task(pyramids.get(FIRST, yes))
    assert await asyncio.to_thread(writer.started.wait, 30)
    await pyramids.close()
    writer.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await keys(blobs) == set()
