"""Context: what every route may use. Built by the composition root, carried by the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from enlarger.jobs.service import Service
from enlarger.jobs.viewer import Viewer
from enlarger.jobs.webhooks import Webhooks
from enlarger.settings import Settings

Check = Callable[[], Awaitable[bool]]

_OTHER_FIELDS_BYTES = 64 * 1024
"""Room in a submit beside the base64 of its picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`checks` say, by name, whether a part of the service works; all of them true means ready.

    `metrics` gives the metrics in the text format of Prometheus.
    """

    service: Service
    webhooks: Webhooks
    viewer: Viewer
    settings: Settings
    checks: Mapping[str, Check]
    metrics: Callable[[], Awaitable[bytes]]

    def base_url(self, request: Request) -> str:
        """Scheme and host for the links of an answer, e.g. `https://pictures.example`."""
        return self.settings.public_base_url or f"{request.url.scheme}://{request.url.netloc}"

    @property
    def max_body_bytes(self) -> int:
        """Of a submit. Base64 writes three bytes as four characters."""
        return self.settings.max_inline_bytes * 4 // 3 + _OTHER_FIELDS_BYTES


async def context_of(request: Request) -> Context:
    # Not a plain function: FastAPI would run it in a thread, at twice the cost of the query of a poll.
    return cast(Context, request.app.state.context)


def is_own_page(request: Request) -> bool:
    """Whether a page of this server asks: its policy lets it reach nothing but this server."""
    return request.headers.get("sec-fetch-site") == "same-origin"


UseContext = Annotated[Context, Depends(context_of)]
