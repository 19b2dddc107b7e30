"""Precedence: a client that waits for an answer goes before the next job, in the one process that does both."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress

_PATIENCE_SECONDS = 0.05
"""Jobs that take the device longer than this lose nothing: the next ones are taken while one computes."""


class Precedence:
    """Requests under way, and those who give way to them, in one event loop. patience_seconds: for how long."""

    def __init__(self, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self._patience_seconds = patience_seconds
        self._under_way = 0
        self._none = asyncio.Event()
        self._none.set()
        self._turn = asyncio.Lock()

    @contextmanager
    def request(self) -> Generator[None]:
        """One more request, until the exit."""
        self._under_way += 1
        self._none.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none.set()

    async def give_way(self) -> None:
        """Wait until no request is under way, but not longer than there is patience, from when it is one's turn.

        Several at once take turns: all of them together are what the requests shall be spared.
        """
        async with self._turn:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._patience_seconds):
                    await self._none.wait()
