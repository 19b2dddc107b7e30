"""Context: what every route may use. Built by the composition root, carried by the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from enlarger.jobs.service import Service

Check = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """`checks` say, by name, whether a part of the service works; all of them true means ready.

    `public_base_url` is the address clients reach the server by, without a slash at its end; empty means
    the address each request names. `max_body_bytes` bounds the body of a submit.
    """

    service: Service
    checks: Mapping[str, Check]
    public_base_url: str
    max_body_bytes: int

    def base_url(self, request: Request) -> str:
        """Scheme and host for the links of an answer, e.g. `https://pictures.example`."""
        return self.public_base_url or f"{request.url.scheme}://{request.url.netloc}"


def context_of(request: Request) -> Context:
    return cast(Context, request.app.state.context)


UseContext = Annotated[Context, Depends(context_of)]
