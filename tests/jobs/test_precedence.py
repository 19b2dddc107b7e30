"""Who waits for whom, where requests and jobs share an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from enlarger.engine.options import Options
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.history import Asked
from enlarger.jobs.job import Key, State
from enlarger.jobs.keys import secret_hash
from enlarger.jobs.precedence import Precedence
from enlarger.jobs.queue import Entry, Queue
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.settings import Settings

from ..one_step import make_worker

pytestmark = pytest.mark.anyio

FOR_EVER = 3600.0
WAIT_SECONDS = 20


class SlowBlobs(LocalBlobs):
    """A disk that takes its time: `put` waits until it is let on."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked, self.let_on = asyncio.Event(), asyncio.Event()

    async def put(self, key: str, data: bytes) -> None:
        self.asked.set()
        await self.let_on.wait()
        await super().put(key, data)


async def test_nobody_waits_while_there_is_no_request() -> None:
    precedence = Precedence(FOR_EVER)
    async with asyncio.timeout(WAIT_SECONDS):
        await precedence.give_way()
        with precedence.request():
            pass
        await precedence.give_way()


async def test_whoever_gives_way_goes_on_once_the_last_request_is_answered() -> None:
    precedence = Precedence(FOR_EVER)
    with precedence.request():
        # A refusal is an answer too.
        with suppress(ValueError), precedence.request():
            waiting = asyncio.create_task(precedence.give_way())
            await asyncio.sleep(0)
            raise ValueError
        await asyncio.sleep(0)
        assert not waiting.done()
    async with asyncio.timeout(WAIT_SECONDS):
        await waiting


async def test_under_endless_requests_all_go_on_one_after_another() -> None:
    precedence, order = Precedence(0.01), list[int]()

    async def give_way(number: int) -> None:
        await precedence.give_way()
        order.append(number)

    with precedence.request():
        first, second = (asyncio.create_task(give_way(number)) for number in range(2))
        async with asyncio.timeout(WAIT_SECONDS):
            await first
            assert order == [0]
            await second


async def test_no_job_is_taken_while_a_submit_is_under_way(
    store: Store,
    queue: Queue,
    settings: Settings,
    clock: Any,
    device: Any,
    key: Key,
    new_job: Callable[..., Any],
) -> None:
    blobs, precedence = SlowBlobs(settings.data_dir / "blobs"), Precedence(FOR_EVER)
    service = Service(
        store=store,
        blobs=blobs,
        settings=settings,
        clock=clock,
        new_id=lambda: "1" * 32,
        link_secret=b"s" * 32,
        precedence=precedence,
    )
    worker = make_worker(
        store=store,
        blobs=blobs,
        queue=queue,
        compute=device,
        settings=settings,
        clock=clock,
        precedence=precedence,
    )
    await store.add_key(key, secret_hash("secret"))
    earlier = new_job(id="0" * 32, source_blob="inputs/0/link")
    await LocalBlobs(settings.data_dir / "blobs").put("inputs/0/link", b"picture")
    await store.add(earlier)
    async with asyncio.timeout(WAIT_SECONDS):
        submitting = asyncio.create_task(
            service.submit(key, model="m", image="eHg=", options=Options(), echo={})
        )
        await blobs.asked.wait()
        working = asyncio.create_task(worker.run_job(Entry(earlier.id)))
        await asyncio.sleep(0)
        # Writes happen in the order in which they are asked for: a claim would be in the row by now.
        await store.add(new_job(id="3" * 32))
        assert (await store.get(earlier.id)) == earlier
        blobs.let_on.set()
        await submitting
        await working
    assert [job.id for job in await store.history(key.id, Asked(status=State.COMPLETED.value), 1, 9)] == [
        earlier.id
    ]
