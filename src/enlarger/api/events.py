"""Server-sent events: a prediction as it goes on. `status`, `progress` and `tile`, and a sign of life in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event

from enlarger.api.auth import Caller
from enlarger.api.context import Context, UseContext
from enlarger.api.envelopes import PROBLEMS
from enlarger.api.predictions import shown
from enlarger.api.wavespeed import JobId
from enlarger.jobs.changes import TileDone
from enlarger.jobs.job import Job, Key

router = APIRouter(tags=["predictions"], responses=PROBLEMS)

KEEP_ALIVE_SECONDS = 15.0
"""Proxies close a connection on which nothing happens for a minute or less."""
_KEEP_ALIVE = b": keep-alive\n\n"
_RECONNECT_MS = 2000

_DESCRIPTION = """\
The stream begins with how the prediction stands and ends with its end. `status`: the prediction, as a poll shows it,
whenever its state has changed. `progress`: `{progress, stage, queue_position, eta_seconds}`. `tile`: `{x, y, w, h,
done, total}`, a rectangle of the result that is computed, in its pixels. A client that comes back with the
`Last-Event-ID` of the end gets 204 and need not come again."""

_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"enum": ["status", "progress", "tile"]},
        "data": {"type": "string", "description": "JSON."},
        "id": {"type": "string", "description": "Of a status, for `Last-Event-ID`."},
        "retry": {"type": "integer", "description": "Milliseconds to wait before coming back."},
    },
}

LastEventId = Annotated[str, Header(description="`id` of the last event seen; any other value is fine too.")]


@router.get(
    "/predictions/{id}/events",
    summary="Watch a prediction",
    description=_DESCRIPTION,
    response_class=StreamingResponse,
    responses={
        200: {"content": {"text/event-stream": {"schema": _EVENT}}},
        204: {"description": "The client has seen the end."},
    },
)
async def events(
    job_id: JobId, request: Request, context: UseContext, key: Caller, last_event_id: LastEventId = ""
) -> Response:
    job = await context.service.get(key, job_id)
    if job.state.is_terminal and last_event_id == _event_id(job):
        return Response(status_code=204)
    stream = with_keep_alive(_told(request, context, key, job), KEEP_ALIVE_SECONDS)
    return StreamingResponse(
        stream,
        media_type="text/event-stream",
        # The last one stops nginx from collecting the stream before it passes it on.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def with_keep_alive(events: AsyncGenerator[bytes], seconds: float) -> AsyncGenerator[bytes]:
    """The events, and a comment after every `seconds` in which there was none."""
    pending: asyncio.Task[bytes | None] | None = None
    async with aclosing(events):
        try:
            while True:
                pending = pending or asyncio.create_task(_next(events))
                await asyncio.wait({pending}, timeout=seconds)
                if not pending.done():
                    yield _KEEP_ALIVE
                    continue
                event, pending = pending.result(), None
                if event is None:
                    return
                yield event
        finally:
            if pending is not None:
                pending.cancel()
                await asyncio.wait({pending})


async def _next(events: AsyncIterator[bytes]) -> bytes | None:
    return await anext(events, None)


async def _told(request: Request, context: Context, key: Key, job: Job) -> AsyncGenerator[bytes]:
    told = ""
    async with aclosing(context.service.events(key, job.id)) as changes:
        async for change in changes:
            if isinstance(change, TileDone):
                yield _event("tile", _tile(change))
            elif isinstance(change, Job):
                data = await shown(request, context, change)
                if told != (told := _event_id(change)):
                    yield _event("status", data, told)
                else:
                    yield _event("progress", {name: data[name] for name in _PROGRESS})


_PROGRESS = ("progress", "stage", "queue_position", "eta_seconds")


def _tile(tile: TileDone) -> dict[str, int]:
    return {
        "x": tile.left,
        "y": tile.top,
        "w": tile.width,
        "h": tile.height,
        "done": tile.done,
        "total": tile.total,
    }


def _event_id(job: Job) -> str:
    """A job that was taken up again after a crash is told anew."""
    return f"{job.state.value}-{job.epoch}"


def _event(name: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    retry = _RECONNECT_MS if event_id is not None else None
    return format_sse_event(event=name, data_str=json.dumps(data), id=event_id, retry=retry)
