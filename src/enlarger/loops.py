"""Loops: what works beside the requests for as long as a process lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

log = logging.getLogger(__name__)


class Loop(Protocol):
    """Something that works beside the requests, from `run` until `stop`."""

    async def run(self) -> None: ...
    async def stop(self) -> None: ...


@asynccontextmanager
async def running(name: str, loop: Loop) -> AsyncGenerator[asyncio.Task[None]]:
    """A loop as a task. Its failure is logged and makes the service unready; requests go on."""

    async def run() -> None:
        try:
            await loop.run()
        except Exception:
            log.exception("the loop of %s ended; start the server again", name)

    task = asyncio.create_task(run(), name=name)
    try:
        yield task
    finally:
        await loop.stop()
        await task


def runs(task: asyncio.Task[None]) -> Callable[[], Awaitable[bool]]:
    async def goes_on() -> bool:
        return not task.done()

    return goes_on
