"""The WaveSpeed dialect: submit and poll, in the vendor's words.

Every success is HTTP 200 exactly, in an envelope with `code` 200: several clients accept nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, NoReturn, cast

from fastapi import APIRouter, Depends, Path, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from enlarger.api.auth import Caller, authenticated
from enlarger.api.context import Context, UseContext
from enlarger.api.problems import Problem, RequestError
from enlarger.api.schemas import Envelope, request_schema
from enlarger.engine.options import Options
from enlarger.errors import InvalidOption, NotFound, PayloadTooLarge
from enlarger.jobs.job import Job
from enlarger.jobs.view import view

_PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}}

router = APIRouter(tags=["predictions"], responses=_PROBLEMS)
unknown_paths = APIRouter(dependencies=[Depends(authenticated)], include_in_schema=False)
"""Takes every path, for any could be a model's: include it after all other routers, or it hides theirs."""

JobId = Annotated[str, Path(alias="id", description="`data.id` of the submit.")]

_REQUEST_BODY = {"required": True, "content": {"application/json": {"schema": request_schema()}}}


@router.post(
    "/wavespeed-ai/real-esrgan",
    summary="Submit a picture",
    description="Answers at once with a prediction in state `created`; poll `data.urls.get` until it ends.",
    response_model=Envelope,
    openapi_extra={"requestBody": _REQUEST_BODY},
)
@router.post("/nightmareai/real-esrgan", include_in_schema=False)
async def submit(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    body = json_object(await read_body(request, context.max_body_bytes))
    image = picture_of(body)
    values = option_values(body)
    job = await context.service.submit(
        key,
        model="/".join(request.url.path.split("/")[-2:]),
        image=image,
        # The vendor's users expect PNG; `auto` asks for the natural partner of the input.
        options=Options.parse({"output_format": "png", **values}),
        echo={"image": image, **values},
    )
    return success(request, context, job)


@router.get("/predictions/{id}/result", summary="Poll a prediction", response_model=Envelope)
@router.get("/predictions/{id}", summary="The same, by the shorter path", response_model=Envelope)
async def result(job_id: JobId, request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    return success(request, context, await context.service.get(key, job_id))


@unknown_paths.api_route(
    "/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], response_model=None
)
async def unknown(request: Request, path: str) -> NoReturn:
    if request.method != "POST":
        raise HTTPException(404)
    known = "this server has wavespeed-ai/real-esrgan"
    raise RequestError(400, f"model not found: {path[:200]!r}; {known}", error_code=NotFound.code)


def success(request: Request, context: Context, job: Job) -> dict[str, Any]:
    """The envelope around a prediction."""
    base = context.base_url(request)
    data = view(
        job,
        result_url=f"{base}/api/v3/predictions/{job.id}/result",
        output_url=lambda output: context.service.output_url(output, base),
    )
    return {"code": 200, "message": "success", "data": data}


async def read_body(request: Request, max_bytes: int) -> bytearray:
    """The whole body. Raises PayloadTooLarge as soon as it is known to pass `max_bytes`.

    Raises RequestError when the client hangs up before its end.
    """
    announced = request.headers.get("content-length", "")
    too_large = PayloadTooLarge(
        f"the request body is larger than {max_bytes} bytes: "
        "send image as a URL, or raise ENLARGER_MAX_INLINE_BYTES"
    )
    if announced.isdecimal() and int(announced) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    except ClientDisconnect as error:
        raise _malformed("the request ended before its body did") from error
    return body


def json_object(data: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in `data`, whatever content type was announced. Raises RequestError otherwise."""
    try:
        body = json.loads(data, parse_constant=_not_json)
    # Nesting a thousand deep is a RecursionError, text that is no UTF-8 a ValueError.
    except (ValueError, RecursionError) as error:
        raise _malformed(f"the request body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise _malformed(f"the request body must be a JSON object, not {type(body).__name__}")
    return cast(dict[str, Any], body)


def picture_of(body: Mapping[str, Any]) -> str:
    """The field `image`. Raises RequestError when there is none, InvalidOption when it is no string."""
    image = body.get("image")
    if image is None or image == "":
        raise RequestError(
            400,
            "image is missing: give a URL, a data URI or base64",
            error_code=InvalidOption.code,
            code=1400,
        )
    if not isinstance(image, str):
        raise InvalidOption(
            f"image must be a string: a URL, a data URI or base64, not {type(image).__name__}", "image"
        )
    if not image.isascii():
        _refuse_broken_unicode(image)
    return image


def option_values(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `body` that are options, not yet validated; all else that clients send is ignored."""
    values = {spec.name: body[spec.name] for spec in fields(Options) if body.get(spec.name) is not None}
    # Some clients repeat the model id of the path in the body; ours are names without a slash.
    if isinstance(model := values.get("model"), str) and "/" in model:
        del values["model"]
    if "scale" not in values and body.get("guidance_scale") is not None:
        values["scale"] = body["guidance_scale"]
    return values


def _refuse_broken_unicode(image: str) -> None:
    # JSON can spell half of a surrogate pair; no database and no resolver takes it.
    try:
        image.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"image is not valid Unicode at character {error.start}", "image") from error


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON value")


def _malformed(message: str) -> RequestError:
    return RequestError(400, message, error_code=InvalidOption.code)
