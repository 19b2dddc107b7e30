"""Preflight: what a submit would do, without doing it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from enlarger.api.auth import Caller
from enlarger.api.bodies import read_json
from enlarger.api.catalogue import ALIASES, MODEL
from enlarger.api.context import UseContext
from enlarger.api.envelopes import PROBLEMS, Envelope, success
from enlarger.api.schemas import request_schema
from enlarger.api.submission import submission_of

router = APIRouter(tags=["predictions"], responses=PROBLEMS)

_REQUEST_BODY = {"required": True, "content": {"application/json": {"schema": request_schema()}}}


@router.post(
    f"/{MODEL}/preflight",
    summary="What a submit would do",
    description="Takes what a submit takes. Answers with the exact size, the memory and the time the picture would "
    "need, or with the refusal it would end in. Fetches the picture and runs nothing.",
    response_model=Envelope[dict[str, Any]],
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def preflight(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    submission = submission_of(await read_json(request, context.max_body_bytes))
    return success(await context.service.preflight(key, submission.image, submission.options))


for _alias in ALIASES:
    router.add_api_route(f"/{_alias}/preflight", preflight, methods=["POST"], include_in_schema=False)
