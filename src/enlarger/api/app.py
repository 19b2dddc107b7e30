"""The application: routers in their order, failures as problems, headers every answer has."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enlarger.api import files, health, pages, problems, wavespeed
from enlarger.api.context import Context

_DESCRIPTION = "Real-ESRGAN behind the WaveSpeed REST API. Send the key as `Authorization: Bearer <key>`."
_DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
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
    problems.install(app)
    app.add_middleware(DefaultHeaders)
    # Any page may call: what it needs is the key, which no browser sends by itself.
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    app.include_router(wavespeed.router, prefix="/api/v3")
    # Older clients of the vendor submit to v3 and poll v2, or the other way round.
    app.include_router(wavespeed.router, prefix="/api/v2", include_in_schema=False)
    app.include_router(files.router)
    app.include_router(health.router)
    app.include_router(pages.router)
    app.include_router(wavespeed.unknown_paths, prefix="/api/v3")
    app.include_router(wavespeed.unknown_paths, prefix="/api/v2")
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
