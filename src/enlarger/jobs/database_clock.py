"""The database's clock: what all machines of a service go by, however wrong their own clocks are.

Between two looks it goes on with the machine's monotonic clock, which no administrator and no NTP server sets.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from sqlalchemy import extract, func, select

from enlarger.jobs.database import Database

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""Between two looks. Quartz drifts by less than 100 millionths: 3 ms in that time."""
_NOW = select(extract("epoch", func.clock_timestamp()))


class DatabaseClock:
    """Call it for Unix seconds, after the first `look`. monotonic: seconds from anywhere, never set."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._offset = 0.0
        self._stopped = asyncio.Event()

    def __call__(self) -> float:
        return self._monotonic() + self._offset

    async def look(self) -> None:
        """Ask the database. Raises Overloaded when it is away."""
        before = self._monotonic()
        now = float(await self._database.read(lambda connection: connection.execute(_NOW).scalar_one()))
        # The answer is of some moment in between; half of the trip is the best guess.
        self._offset = now - (before + self._monotonic()) / 2

    async def run(self) -> None:
        """Look every LOOK_SECONDS until `stop`; while the database is away the clock just goes on."""
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), LOOK_SECONDS)
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 (whatever it was, the clock goes on)
                logger.warning("The database does not tell the time: %s", error)

    async def stop(self) -> None:
        """`run` returns after the look under way."""
        self._stopped.set()
