"""The application: routers in their order, failures as problems, headers every answer has."""

from __future__ import annotations

from importlib.metadata import version
from secrets import token_hex

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enlarger.api import (
    account,
    catalogue,
    events,
    files,
    health,
    history,
    metrics,
    pages,
    preflight,
    problems,
    uploads,
    viewer,
    wavespeed,
    webhooks,
)
from enlarger.api.bodies import BodyDeadline
from enlarger.api.context import Context
from enlarger.api.request_ids import RequestIds

_DESCRIPTION = "Real-ESRGAN behind the WaveSpeed REST API. Send the key as `Authorization: Bearer <key>`."
_FAMILIES = (wavespeed, preflight, events, viewer, history, uploads, catalogue, account, webhooks)
"""Routes of the API, one module a family. Fixed paths come before those with an id in them."""
_DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def create_app(context: Context) -> FastAPI:
    """The HTTP application over `context`. Starts nothing; the caller owns what the context holds."""
    app = FastAPI(
        title="enlarger",
        version=version("enlarger"),
        description=_DESCRIPTION,
        docs_url=None,  # FastAPI's own page loads scripts from a CDN; pages.py has ours
        redoc_url=None,
    )
    app.state.context = context
    app.state.site = pages.read_site()
    problems.install(app)
    app.add_middleware(BodyDeadline)
    app.add_middleware(DefaultHeaders)
    # Any page may call: what it needs is the key, which no browser sends by itself.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=["ETag", "Retry-After", "Preference-Applied"],
    )
    app.add_middleware(RequestIds, new_id=lambda: token_hex(16))
    # Older clients of the vendor submit to v3 and poll v2, or the other way round.
    for version_path in ("/api/v3", "/api/v2"):
        for family in _FAMILIES:
            app.include_router(
                family.router, prefix=version_path, include_in_schema=version_path == "/api/v3"
            )
    app.include_router(uploads.files_router)
    app.include_router(files.router)
    app.include_router(viewer.tiles_router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(pages.router)
    for version_path in ("/api/v3", "/api/v2"):
        app.include_router(wavespeed.unknown_paths, prefix=version_path)
    return app


def create_worker_app(context: Context) -> FastAPI:
    """What a worker answers: whether it works, and its metrics. Starts nothing."""
    app = FastAPI(title="enlarger worker", version=version("enlarger"), docs_url=None, redoc_url=None)
    app.state.context = context
    problems.install(app)
    app.add_middleware(DefaultHeaders)
    app.add_middleware(RequestIds, new_id=lambda: token_hex(16))
    app.include_router(health.router)
    app.include_router(metrics.router)
    return app


class DefaultHeaders:
    """Adds a header to an answer that does not set it itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_defaults(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_defaults if scope["type"] == "http" else send)
