"""Service: what a client of the API can ask of its jobs. Every call names the key it is made with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from enlarger.engine.networks.cards import models
from enlarger.engine.options import Options
from enlarger.errors import InvalidOption, NotFound, Overloaded, Unauthorized
from enlarger.jobs import links
from enlarger.jobs.blobs import Blobs
from enlarger.jobs.job import EXTENSIONS, Job, Key, Output
from enlarger.jobs.keys import secret_hash
from enlarger.jobs.queue import Queue
from enlarger.jobs.sources import InlineSource, parse_image
from enlarger.jobs.store import Store
from enlarger.settings import Settings

_DAY_SECONDS = 86_400
_FIRST_POLL_SECONDS = 0.02
_LAST_POLL_SECONDS = 0.5

_MEDIA_TYPES = {extension: media_type for media_type, extension in EXTENSIONS.items()}


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A stored file that may be sent to whoever holds its link."""

    path: Path
    media_type: str


class Service:
    """Submit, get, wait. Holds no state of its own: any number may share one store, queue and blobs.

    clock: Unix seconds. new_id: 32 lower-case hex characters, unguessable. link_secret: signs links to files.
    """

    def __init__(
        self,
        *,
        store: Store,
        blobs: Blobs,
        queue: Queue,
        settings: Settings,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        link_secret: bytes,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._link_secret = link_secret

    async def authenticate(self, secret: str) -> Key:
        """The key of a secret. Raises Unauthorized when it is unknown or revoked."""
        key = await self._store.key_by_hash(secret_hash(secret))
        if key is None or key.revoked_at is not None:
            raise Unauthorized("Invalid API key: create one with `enlarger keys create`")
        return key

    async def submit(
        self, key: Key, *, model: str, image: str, options: Options, echo: Mapping[str, Any]
    ) -> Job:
        """Accept a job. When this returns the job survives a crash of the server.

        image: http(s) URL, data URI or base64. echo: the request as sent; an inline picture in its `image` is
        replaced by a note of its size. Raises InvalidOption(field="image"), PayloadTooLarge, Overloaded.
        """
        check_model(options.model, self._settings.weights_dir)
        source = parse_image(image, self._settings.max_inline_bytes)
        await self._check_backlog()
        job_id = self._new_id()
        source_url, source_blob = "", ""
        if isinstance(source, InlineSource):
            source_blob = f"inputs/{job_id}"
            await self._blobs.put(source_blob, source.data)
            echo = {**echo, "image": f"(inline picture, {len(source.data)} bytes)"}
        else:
            source_url = source.url
        job = Job(
            id=job_id,
            key_id=key.id,
            model=model,
            input=echo,
            options=asdict(options),
            source_url=source_url,
            source_blob=source_blob,
            created_at=self._clock(),
        )
        await self._store.add(job)
        await self._queue.enqueue(job.id)
        return job

    async def get(self, key: Key, job_id: str) -> Job:
        """The job. Raises NotFound when there is none or it belongs to another key."""
        job = await self._store.get(job_id, key.id)
        if job is None:
            raise NotFound(f"Prediction not found: {job_id[:64]}")
        return job

    async def wait(self, key: Key, job_id: str, seconds: float) -> Job:
        """The job as soon as it has ended, or as it stands after `seconds`. Raises as `get`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause = _FIRST_POLL_SECONDS
        while True:
            job = await self.get(key, job_id)
            left = deadline - loop.time()
            if job.state.is_terminal or left <= 0:
                return job
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, _LAST_POLL_SECONDS)

    def output_url(self, output: Output, base_url: str) -> str:
        """A link to a result that needs no key, valid for `retention_days` to `retention_days` + 1."""
        # Rounded up to whole days: polls of the same day show the same URL, which clients and caches like.
        last_day = ceil(self._clock() / _DAY_SECONDS) + self._settings.retention_days
        token = links.sign(self._link_secret, output.blob_key, last_day * _DAY_SECONDS)
        return f"{base_url}/files/{token}/{output.blob_key}"

    async def open_file(self, token: str, key: str) -> ServedFile:
        """The file behind a link. Raises NotFound when the link is wrong or expired, or the file is gone."""
        if not links.verify(self._link_secret, key, token, self._clock()):
            raise NotFound(
                "File not found: the link is wrong or has expired; poll the prediction for a new one"
            )
        async with self._blobs.local(key) as path:
            return ServedFile(path, _MEDIA_TYPES[key.rpartition(".")[2]])

    async def _check_backlog(self) -> None:
        limit = self._settings.max_backlog_jobs
        if await self._store.count_unfinished() >= limit:
            raise Overloaded(
                f"The server holds {limit} unfinished jobs, as many as it takes (max_backlog_jobs): try again later"
            )


def check_model(name: str, weights_dir: Path | None) -> None:
    """Raises InvalidOption for a name of no model. Whether its weights are here shows when the job runs."""
    known = models(weights_dir)
    if name != "auto" and name not in known:
        raise InvalidOption(f"model must be one of {', '.join(known)} or auto, not {name!r}", "model")
