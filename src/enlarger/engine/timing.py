"""Milliseconds by stage, for the report of a result."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

Timings = dict[str, float]


@contextmanager
def timed(timings: Timings, stage: str) -> Generator[None]:
    """Add the time the block takes to `timings[stage]`."""
    started = time.perf_counter()
    yield
    taken = (time.perf_counter() - started) * 1000
    timings[stage] = round(timings.get(stage, 0.0) + taken, 1)
