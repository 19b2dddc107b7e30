"""Request ids: every request has one, in its log lines and in the header X-Request-Id of its answer."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

logger = logging.getLogger(__name__)

_USABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """Takes the id a proxy or client sent when it is a plain word, else makes one; logs each request once.

    Reads that succeed are logged as debug, the rest as info.
    """

    def __init__(self, app: ASGIApp, new_id: Callable[[], str]) -> None:
        self.app = app
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _USABLE.fullmatch(sent) else self._new_id()
        status, began = 500, perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                spent = round((perf_counter() - began) * 1000)
                # Polls come by the hundred, and a line costs a tenth of what a poll does.
                level = logging.DEBUG if scope["method"] == "GET" and status < 400 else logging.INFO
                # Not the path: links to files are paths, and a stranger chooses the rest.
                logger.log(level, "%s %s: %d in %d ms", scope["method"], _route_of(scope), status, spent)


def _route_of(scope: Scope) -> str:
    """The pattern of the route that answered, such as /files/{token}/{key:path}."""
    route = scope.get("route")
    return str(getattr(route, "path", "(no route)"))
