"""Is the process up, and can it do its work? For load balancers, containers and the start page."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from enlarger.api.context import Check, UseContext
from enlarger.api.problems import Problem

log = logging.getLogger(__name__)

router = APIRouter(tags=["health"])

CHECK_SECONDS = 5.0
"""A part that has not answered by then counts as not working."""


@router.get("/healthz", summary="The process answers")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get(
    "/readyz",
    summary="The service can take and finish jobs",
    response_model=None,
    responses={503: {"model": Problem, "description": "A part does not work; `checks` says which."}},
)
async def readyz(context: UseContext) -> JSONResponse:
    checks = {name: await _passes(name, check) for name, check in context.checks.items()}
    if all(checks.values()):
        return JSONResponse({"status": "ready", "checks": checks})
    failed = ", ".join(name for name, passed in checks.items() if not passed)
    message = f"not ready: {failed}"
    problem = Problem(code=503, message=message, error=message, error_code="not_ready")
    return JSONResponse({**problem.model_dump(), "status": "not ready", "checks": checks}, 503)


async def _passes(name: str, check: Check) -> bool:
    try:
        return await asyncio.wait_for(check(), CHECK_SECONDS)
    except Exception:
        log.exception("the health check %r failed", name)
        return False
