from __future__ import annotations

import asyncio

import pytest

from enlarger.jobs.changes import Changes, StatusChanged, TileDone, next_change, status_changed

pytestmark = pytest.mark.anyio


def tile(done: int) -> TileDone:
    return TileDone(left=0, top=0, width=1, height=1, done=done, total=1000, fraction=done / 1000)


async def test_everybody_who_listens_hears_it_in_order_and_only_of_the_job() -> None:
    changes = Changes()
    with changes.listening("a") as one, changes.listening("a") as two, changes.listening("b") as other:
        for change in (tile(1), StatusChanged()):
            changes.publish("a", change)
        for listener in (one, two):
            assert [await next_change(listener, 20), await next_change(listener, 20)] == [
                tile(1),
                StatusChanged(),
            ]
        assert other.empty()


async def test_slow_listener_keeps_the_newest_and_its_memory_is_bounded() -> None:
    changes = Changes()
    with changes.listening("a") as listener:
        for n in range(1000):
            changes.publish("a", tile(n))
        assert listener.qsize() < 500
        heard = [listener.get_nowait() for _ in range(listener.qsize())]
    assert heard[-1] == tile(999)


async def test_nobody_is_remembered_after_leaving() -> None:
    changes = Changes()
    with changes.listening("a"), changes.listening("a"):
        pass
    changes.publish("a", StatusChanged())
    assert not changes._listeners


async def test_silence_is_a_reason_to_ask_the_store() -> None:
    with Changes().listening("a") as listener:
        assert await next_change(listener, 0.01) == StatusChanged()


async def test_tiles_do_not_end_the_wait_for_a_change_of_the_row() -> None:
    changes = Changes()
    with changes.listening("a") as listener:
        waiting = asyncio.create_task(status_changed(listener, 20))
        changes.publish("a", tile(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        changes.publish("a", StatusChanged())
        await asyncio.wait_for(waiting, 20)
