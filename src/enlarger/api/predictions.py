"""Predictions: how a job is shown, whichever route shows it."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from enlarger.api.context import Context
from enlarger.api.envelopes import success
from enlarger.jobs.job import Job, Output, State
from enlarger.jobs.view import view

CACHING = "private, no-cache"
"""Of a prediction: keep it if you like, and ask with its ETag each time."""
SYNC_TIMEOUT_CODE = 5004
_CHUNK_BYTES = 3 * 256 * 1024
"""Divisible by three: the base64 of the chunks is then the base64 of the whole."""


async def shown(request: Request, context: Context, job: Job) -> dict[str, Any]:
    """The prediction as `data` of an answer, with where it stands in the queue."""
    base = context.base_url(request)
    data = view(
        job,
        result_url=f"{base}/api/v3/predictions/{job.id}/result",
        output_url=lambda output: context.service.output_url(output, base),
        nsfw_threshold=context.settings.nsfw_threshold,
    )
    standing = await context.service.position_and_eta(job)
    return {
        **data,
        "progress": 1.0 if job.state is State.COMPLETED else job.progress,
        "stage": job.stage if job.state is State.PROCESSING else "",
        "queue_position": standing.position,
        "eta_seconds": standing.eta_seconds,
    }


def sync_timed_out(data: Mapping[str, Any], waited_seconds: float) -> dict[str, Any]:
    """How a prediction that outlasted enable_sync_mode is shown: clients look for the code and the words."""
    told = f"Sync mode timed out after {waited_seconds:g} s; the prediction goes on, poll urls.get for its result"
    return {**data, "status": State.PROCESSING.value, "code": SYNC_TIMEOUT_CODE, "error": told}


def etag_of(data: Mapping[str, Any]) -> str:
    """Changes whenever something that a client may wait for changes; the estimate of the end alone does not count."""
    lasting = {name: value for name, value in data.items() if name != "eta_seconds"}
    digest = sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
    return f'W/"{digest[:32]}"'


async def respond(
    context: Context, job: Job, data: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """The prediction as an answer; where it was asked for, with the files themselves in place of links."""
    headers = {"ETag": etag_of(data), "Cache-Control": CACHING, **(headers or {})}
    if not (job.base64_output and data["outputs"]):
        return Response(json.dumps(success(data)), media_type="application/json", headers=headers)
    async with AsyncExitStack() as lent:
        paths = [await lent.enter_async_context(_opened(context, output)) for output in job.outputs]
        # Results may be hundreds of megabytes: they go out as they are read, never whole in memory.
        head, *between = json.dumps(success({**data, "outputs": ["\0" for _ in paths]})).split("\\u0000")
        sizes = [(path.stat().st_size + 2) // 3 * 4 for path in paths]
        length = len(head) + sum(map(len, between)) + sum(sizes)
        return _Lending(
            lent.pop_all(),
            _interleaved(head, paths, between),
            media_type="application/json",
            headers={**headers, "Content-Length": str(length)},
        )


class _Lending(StreamingResponse):
    """Keeps the files it is made of until it is sent, or its client gone."""

    def __init__(self, lent: AsyncExitStack, content: AsyncIterator[bytes], **values: Any) -> None:
        super().__init__(content, **values)
        self._lent = lent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._lent:
            await super().__call__(scope, receive, send)


@asynccontextmanager
async def _opened(context: Context, output: Output) -> AsyncGenerator[Path]:
    token, _, key = context.service.output_url(output, "").removeprefix("/files/").partition("/")
    async with context.service.open_file(token, key) as served:
        yield served.path


async def _interleaved(head: str, paths: list[Path], between: list[str]) -> AsyncIterator[bytes]:
    yield head.encode()
    for path, after in zip(paths, between, strict=True):
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield b64encode(chunk)
        yield after.encode()
