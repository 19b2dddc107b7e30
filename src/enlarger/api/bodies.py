"""Bodies: what clients send, read within limits of size and of patience."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from typing import Any, NoReturn, cast

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enlarger.api.context import Context
from enlarger.api.problems import RequestError
from enlarger.errors import InvalidOption, PayloadTooLarge

SMALL_BODY_BYTES = 64 * 1024
"""Of every request but those that carry a picture. What is larger is parsed in a thread."""

_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


class BodyDeadline:
    """Ends a request whose body comes too slowly: 408, and the connection is closed.

    The client may keep the server waiting `body_grace_seconds`, and one second more for every
    `min_body_bytes_per_second` bytes it has sent. Time in which the server does not ask for more is not the client's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        settings = cast(Context, scope["app"].state.context).settings
        now, rate = asyncio.get_running_loop().time, settings.min_body_bytes_per_second
        patience = settings.body_grace_seconds
        complete = False

        async def receive_in_time() -> Message:
            nonlocal patience, complete
            if complete:  # What follows is waiting for the client to leave.
                return await receive()
            asked_at = now()
            try:
                async with asyncio.timeout(max(patience, 0)):
                    message = await receive()
            except TimeoutError as error:
                raise _too_slow(rate) from error
            patience += len(message.get("body", b"")) / rate - (now() - asked_at)
            complete = not message.get("more_body", False)
            return message

        await self.app(scope, receive_in_time, send)


async def body_chunks(request: Request) -> AsyncGenerator[bytes]:
    """The body as it comes. Raises RequestError when the client hangs up before its end."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise malformed("the request ended before its body did") from error


async def read_body(request: Request, max_bytes: int) -> bytearray:
    """The whole body. Raises PayloadTooLarge as soon as it is known to pass `max_bytes`."""
    announced = request.headers.get("content-length", "")
    too_large = PayloadTooLarge(
        f"the request body is larger than {max_bytes} bytes: "
        "send image as a URL or upload it, or raise ENLARGER_MAX_INLINE_BYTES"
    )
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in body_chunks(request):
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return body


async def read_json(request: Request, max_bytes: int = SMALL_BODY_BYTES) -> dict[str, Any]:
    """The JSON object of the body, whatever content type was announced. Raises RequestError, PayloadTooLarge."""
    body = await read_body(request, max_bytes)
    if len(body) > SMALL_BODY_BYTES:
        return await asyncio.to_thread(json_object, body)
    return json_object(body)


def json_object(data: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in `data`. Raises RequestError when it is none."""
    try:
        # Decoded here: json.loads would take other encodings too, and half surrogate pairs written as bytes.
        body = json.loads(data.decode("utf-8-sig"), parse_constant=_not_json)
    # Nesting a thousand deep is a RecursionError, text that is no UTF-8 a ValueError.
    except (ValueError, RecursionError) as error:
        raise malformed(f"the request body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise malformed(f"the request body must be a JSON object, not {type(body).__name__}")
    fields = cast(dict[str, Any], body)
    if _HALF_PAIR.search(data):
        _refuse_half_pairs(fields)
    return fields


def _refuse_half_pairs(fields: dict[str, Any]) -> None:
    """JSON can spell half of a surrogate pair; no database and no resolver takes it."""
    for name, value in fields.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise InvalidOption(f"{name[:40]!r} is not valid Unicode", name) from error


def malformed(message: str) -> RequestError:
    """A request that cannot be read at all."""
    return RequestError(400, message, error_code=InvalidOption.code)


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON value")


def _too_slow(bytes_per_second: float) -> RequestError:
    return RequestError(
        408,
        f"the request body came too slowly: send at least {bytes_per_second:g} bytes a second",
        error_code="too_slow",
        headers={"Connection": "close"},
    )
