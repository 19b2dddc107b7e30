"""Preflight: what a job would be, without running it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from anyio import Semaphore
from anyio.to_thread import run_sync

from enlarger.engine.options import Options
from enlarger.errors import FeatureUnavailable
from enlarger.jobs import guard
from enlarger.jobs.blobs import Blobs
from enlarger.jobs.sources import InlineSource, OwnSource, Source
from enlarger.jobs.weights import SharedDownloads

_AT_ONCE = 2
"""Pictures held and fetched at once for questions only."""


class Planner(Protocol):
    """Knows what the device would do with a picture."""

    async def plan(self, source: Path, options: Options) -> Mapping[str, Any]:
        """The plan, as JSON can say it, with `seconds`, the estimate of its device time; reads the header only.

        Raises the EnlargerError that the job would end with.
        """
        ...


class Preflight:
    """Fetches a picture as a job would, asks the planner, and keeps nothing."""

    def __init__(
        self, planner: Planner | None, weights: SharedDownloads, blobs: Blobs, limits: guard.Limits
    ) -> None:
        self._planner = planner
        self._weights = weights
        self._blobs = blobs
        self._limits = limits
        self._places = Semaphore(_AT_ONCE)

    async def plan(self, source: Source, options: Options) -> Mapping[str, Any]:
        """The planner's answer, and `download_bytes`: of weights that would be fetched first.

        Raises the planner's refusal, ModelUnavailable for weights that would not be fetched, and whatever keeps the
        picture from being read.
        """
        if self._planner is None:
            raise FeatureUnavailable("This server has no planner: preflight is not available")
        missing = await self._weights.missing(options)
        async with self._places, self._picture(source) as path:
            plan = await self._planner.plan(path, options)
        return {**plan, "download_bytes": sum(file.bytes for file in missing)}

    @asynccontextmanager
    async def _picture(self, source: Source) -> AsyncGenerator[Path]:
        if isinstance(source, OwnSource):
            async with self._blobs.local(source.blob_key) as path:
                yield path
            return
        async with self._blobs.scratch() as folder:
            path = folder / "source"
            if isinstance(source, InlineSource):
                await run_sync(path.write_bytes, source.data)
            else:
                await guard.fetch(source.url, path, self._limits)
            yield path
