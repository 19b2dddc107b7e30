"""Viewer: the pictures of a prediction tile by tile, so that nobody has to load one whole to look at a part.

A picture is `input`, or `output-0` for the first of the outputs. Links to tiles carry their own right, like files.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from enlarger.errors import NotFound
from enlarger.jobs import links
from enlarger.jobs.job import Job
from enlarger.jobs.pyramids import Pyramid, Pyramids, Wanted
from enlarger.jobs.store import Store

INPUT = "input"
_OUTPUT = re.compile(r"output-(0|[1-9][0-9]{0,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture, as a file a browser shows."""

    data: bytes
    media_type: str


def output(index: int) -> str:
    """The picture that is `outputs[index]`."""
    return f"output-{index}"


class Viewer:
    """Shows pictures of predictions at any zoom. clock: Unix seconds; link_secret: signs links to tiles."""

    def __init__(
        self,
        *,
        store: Store,
        pyramids: Pyramids,
        clock: Callable[[], float],
        link_secret: bytes,
        retention_days: int,
    ) -> None:
        self._store = store
        self._pyramids = pyramids
        self._clock = clock
        self._link_secret = link_secret
        self._retention_days = retention_days

    async def view(self, job: Job, picture: str, base_url: str) -> dict[str, Any]:
        """Size, levels and the link of the tiles, once they can be had. Raises NotFound and as `Pyramids.get`."""
        pyramid = await self._pyramid(job, picture)
        key = f"tiles/{job.id}/{picture}"
        token = links.token_for_days(self._link_secret, key, self._clock(), self._retention_days)
        whole = pyramid.levels[0]
        return {
            "width": whole.width,
            "height": whole.height,
            "tile_size": pyramid.tile_size,
            "media_type": pyramid.media_type,
            "levels": [
                {"width": level.width, "height": level.height, "columns": level.columns, "rows": level.rows}
                for level in pyramid.levels
            ],
            "url": f"{base_url}/tiles/{token}/{job.id}/{picture}/{{level}}/{{column}}/{{row}}",
        }

    async def tile(self, token: str, job_id: str, picture: str, place: tuple[int, int, int]) -> Tile:
        """The tile at (level, column, row). Raises NotFound when the link is wrong or expired or nothing is there."""
        if not links.verify(self._link_secret, f"tiles/{job_id}/{picture}", token, self._clock()):
            raise NotFound("Tile not found: the link is wrong or has expired; ask the viewer for a new one")
        key = _key(job_id, picture)
        pyramid = await self._pyramids.known(key)
        if pyramid is not None:
            try:
                return Tile(await asyncio.to_thread(pyramid.tile, *place), pyramid.media_type)
            except FileNotFoundError:
                self._pyramids.forget(key)
        # It made room for others in the meantime.
        if (job := await self._store.get(job_id)) is None:
            raise NotFound("Tile not found: the prediction is gone")
        pyramid = await self._pyramid(job, picture)
        return Tile(await asyncio.to_thread(pyramid.tile, *place), pyramid.media_type)

    async def _pyramid(self, job: Job, picture: str) -> Pyramid:
        async def is_wanted() -> bool:
            return await self._store.get(job.id) is not None

        return await self._pyramids.get(_wanted(job, picture), is_wanted)


def _key(job_id: str, picture: str) -> str:
    return f"pyramids/{job_id}/{picture}.tif"


def _wanted(job: Job, picture: str) -> Wanted:
    key = _key(job.id, picture)
    if picture == INPUT:
        if not job.source_blob:
            raise NotFound("The input picture of this prediction is not here: it has not been fetched")
        return Wanted(key=key, source_key=job.source_blob, frame=job.options.get("frame") or 0)
    number = _OUTPUT.fullmatch(picture)
    if number is None or int(number[1]) >= len(job.outputs):
        raise NotFound(f"This prediction has {len(job.outputs)} outputs, and no {picture[:64]}")
    return Wanted(key=key, source_key=job.outputs[int(number[1])].blob_key)
