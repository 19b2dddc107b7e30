"""The WaveSpeed dialect: submit, poll and cancel, in the vendor's words.

Every success is HTTP 200 exactly, in an envelope with `code` 200: several clients accept nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from contextlib import aclosing
from typing import Annotated, Any, NoReturn

from fastapi import APIRouter, Depends, Header, Path, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from enlarger.api.auth import Caller, Secret, authenticated
from enlarger.api.bodies import read_json
from enlarger.api.catalogue import ALIASES, MODEL, model_not_found
from enlarger.api.context import Context, UseContext
from enlarger.api.envelopes import PROBLEMS, Envelope
from enlarger.api.predictions import CACHING, etag_of, respond, shown, sync_timed_out
from enlarger.api.schemas import Prediction, request_schema
from enlarger.api.submission import submission_of
from enlarger.errors import InvalidOption
from enlarger.jobs.job import Job, Key
from enlarger.jobs.webhooks import checked_webhook_url

router = APIRouter(tags=["predictions"], responses=PROBLEMS)
unknown_paths = APIRouter(dependencies=[Depends(authenticated)], include_in_schema=False)
"""Takes every path, for any could be a model's: include it after all other routers, or it hides theirs."""

MAX_WAIT_SECONDS = 60.0
"""Of `Prefer: wait=n`; proxies tend to give up on a silent answer after that."""

_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{0,255}")

JobId = Annotated[str, Path(alias="id", description="`data.id` of the submit.")]
Webhook = Annotated[
    str,
    Query(description="Address that gets the prediction by POST once it has ended. Not with base64 outputs."),
]
IdempotencyKey = Annotated[
    str,
    Header(
        max_length=255,
        description="The same key with the same request gives the same prediction, for 24 hours; 422 otherwise.",
    ),
]
Prefer = Annotated[
    str, Header(description="`wait=n`: answer when the prediction has ended, after n seconds at the latest.")
]
IfNoneMatch = Annotated[
    str,
    Header(
        description="`ETag` of an earlier answer: 304 while nothing has changed; with `Prefer`, wait for it."
    ),
]

_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "As the client knows it."}}
_REQUEST_BODY = {"required": True, "content": {"application/json": {"schema": request_schema()}}}


@router.post(
    f"/{MODEL}",
    summary="Submit a picture",
    description="Answers at once with a prediction in state `created`; poll `data.urls.get` until it ends.",
    response_model=Envelope[Prediction],
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def submit(
    request: Request,
    context: UseContext,
    key: Caller,
    webhook: Webhook = "",
    idempotency_key: IdempotencyKey = "",
    prefer: Prefer = "",
) -> Response:
    submission = submission_of(await read_json(request, context.max_body_bytes), webhook)
    job = await context.service.submit(
        key,
        model="/".join(request.url.path.split("/")[-2:]),
        image=submission.image,
        options=submission.options,
        echo=submission.echo,
        webhook_url=submission.webhook_url and checked_webhook_url(submission.webhook_url, context.settings),
        idempotency_key=_checked(idempotency_key),
        base64_output=submission.is_base64,
    )
    if submission.is_sync:
        job = await context.service.wait(key, job.id, context.settings.sync_wait_seconds)
    elif seconds := wait_of(prefer):
        job = await context.service.wait(key, job.id, seconds)
    data = await shown(request, context, job)
    if submission.is_sync and not job.state.is_terminal:
        data = sync_timed_out(data, context.settings.sync_wait_seconds)
    return await respond(context, job, data)


for _alias in ALIASES:
    router.add_api_route(f"/{_alias}", submit, methods=["POST"], include_in_schema=False)


@router.get(
    "/predictions/{id}/result",
    summary="Poll a prediction",
    response_model=Envelope[Prediction],
    responses=_UNCHANGED,
)
@router.get(
    "/predictions/{id}",
    summary="The same, by the shorter path",
    response_model=Envelope[Prediction],
    responses=_UNCHANGED,
)
async def result(
    job_id: JobId,
    request: Request,
    context: UseContext,
    secret: Secret,
    prefer: Prefer = "",
    if_none_match: IfNoneMatch = "",
) -> Response:
    job = await context.service.poll(secret, job_id)
    data = await shown(request, context, job)
    applied = {}
    if (seconds := wait_of(prefer)) and not job.state.is_terminal:
        key = await context.service.authenticate(secret)
        known = if_none_match if is_known(if_none_match, etag_of(data)) else ""
        job, data = await _news(request, context, key, job, known, seconds)
        applied = {"Preference-Applied": f"wait={seconds:g}"}
    if is_known(if_none_match, etag := etag_of(data)):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": CACHING, **applied})
    return await respond(context, job, data, applied)


@router.post(
    "/predictions/{id}/cancel",
    summary="Cancel a prediction",
    description="A running one stops within a tile. One that has ended stays as it is.",
    response_model=Envelope[Prediction],
)
async def cancel(job_id: JobId, request: Request, context: UseContext, key: Caller) -> Response:
    job = await context.service.cancel(key, job_id)
    return await respond(context, job, await shown(request, context, job))


@unknown_paths.api_route(
    "/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], response_model=None
)
async def unknown(request: Request, path: str) -> NoReturn:
    if request.method != "POST":
        raise HTTPException(404)
    raise model_not_found(path)


async def _news(
    request: Request, context: Context, key: Key, job: Job, known: str, seconds: float
) -> tuple[Job, dict[str, Any]]:
    """The prediction once it has ended or, when the client knows how it stands, once it has changed."""
    if not known:
        job = await context.service.wait(key, job.id, seconds)
        return job, await shown(request, context, job)
    data = await shown(request, context, job)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), aclosing(context.service.events(key, job.id)) as events:
            async for event in events:
                if isinstance(event, Job):
                    job, data = event, await shown(request, context, event)
                    if not is_known(known, etag_of(data)):
                        break
    return job, data


def wait_of(prefer: str) -> float:
    """Seconds of `wait=n` in a `Prefer` header, at most MAX_WAIT_SECONDS; 0 when it asks for nothing."""
    found = _WAIT.search(prefer)
    return min(float(found[1]), MAX_WAIT_SECONDS) if found else 0.0


def is_known(if_none_match: str, etag: str) -> bool:
    """Whether an `If-None-Match` header holds the tag; compared weakly, as RFC 9110 wants for GET."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return tags == ["*"] or etag.removeprefix("W/") in tags


def _checked(idempotency_key: str) -> str:
    if not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
        raise InvalidOption("Idempotency-Key must be 1 to 255 visible ASCII characters", "Idempotency-Key")
    return idempotency_key
