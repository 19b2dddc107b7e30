"""Metrics for Prometheus: to this machine itself, and to whoever holds a key with the scope admin."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST

from enlarger.api.auth import administrator, authenticated, secret_of
from enlarger.api.context import UseContext
from enlarger.api.problems import Problem

router = APIRouter(tags=["health"])

_bearer = HTTPBearer(auto_error=False, scheme_name="key")
_RELAYED = ("forwarded", "via", "x-forwarded-for", "x-real-ip", "origin")
"""Headers of a request that speaks for somebody else: a proxy's client, or a page in a browser."""


@router.get(
    "/metrics",
    summary="What the server has done and has to do",
    description="Prometheus text. Open to this machine itself; others need a key with the scope `admin`.",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, "4XX": {"model": Problem}},
)
async def metrics(
    request: Request,
    context: UseContext,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Response:
    if not is_from_this_machine(request):
        await administrator(context, await authenticated(context, await secret_of(credentials)))
    return Response(await context.metrics(), media_type=CONTENT_TYPE_LATEST)


def is_from_this_machine(request: Request) -> bool:
    """Whether a process of this machine asks, for itself and by a local name."""
    peer, name = request.client.host if request.client else "", request.url.hostname or ""
    return (
        _is_loopback(peer)
        and (name == "localhost" or _is_loopback(name))
        and not any(header in request.headers for header in _RELAYED)
    )


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
