"""Up and ready are two questions."""

from __future__ import annotations

from typing import Any, cast

from enlarger.api.app import create_app
from enlarger.api.context import Check, Context
from enlarger.jobs.service import Service
from enlarger.jobs.viewer import Viewer
from enlarger.jobs.webhooks import Webhooks
from enlarger.settings import Settings

from .conftest import Running, serving


def test_running_server_is_up_and_ready(server: Running) -> None:
    assert server.http.get("/healthz").json() == {"status": "ok"}
    assert server.http.get("/readyz").json() == {
        "status": "ready",
        "checks": {"database": True, "worker": True, "webhooks": True, "retention": True},
    }


async def passes() -> bool:
    return True


async def fails() -> bool:
    return False


async def breaks() -> bool:
    raise OSError("the disk is gone")


def context_with(**checks: Check) -> Context:
    # No route under test here reaches the service.
    return Context(
        service=cast(Service, None),
        webhooks=cast(Webhooks, None),
        viewer=cast(Viewer, None),
        settings=Settings(),
        checks=checks,
        metrics=cast(Any, None),
    )


def test_server_with_a_part_that_does_not_work_is_up_but_not_ready() -> None:
    with serving(create_app(context_with(database=breaks, worker=fails, folder=passes))) as http:
        assert http.get("/healthz").status_code == 200
        answer = http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"] == {"database": False, "worker": False, "folder": True}
    assert answer.json()["message"] == answer.json()["error"] == "not ready: database, worker"
