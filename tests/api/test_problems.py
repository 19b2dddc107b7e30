"""Failures have one shape, whoever raises them."""

from __future__ import annotations

from typing import Any, NoReturn, cast

import pytest

from enlarger import errors
from enlarger.api.app import create_app
from enlarger.api.context import Context
from enlarger.api.problems import status_of
from enlarger.errors import DeviceCrashed, EnlargerError, InvalidPicture, Overloaded
from enlarger.jobs.service import Service
from enlarger.jobs.viewer import Viewer
from enlarger.jobs.webhooks import Webhooks
from enlarger.settings import Settings

from .conftest import Running, serving

EMPTY = Context(
    service=cast(Service, None),
    webhooks=cast(Webhooks, None),
    viewer=cast(Viewer, None),
    settings=Settings(),
    checks={},
    metrics=cast(Any, None),
)


@pytest.mark.parametrize("cls", errors.error_classes().values(), ids=errors.error_classes())
def test_every_error_is_the_client_s_fault_or_the_server_s(cls: type[EnlargerError]) -> None:
    assert 400 <= status_of(cls("x")) < 600


def test_status_of_a_class_without_a_row_is_its_parent_s() -> None:
    assert status_of(errors.UnsupportedFormat("x")) == status_of(InvalidPicture("x")) == 400
    assert status_of(DeviceCrashed("x")) == status_of(EnlargerError("x")) == 500


@pytest.mark.parametrize(
    ("error", "status", "code", "error_code"),
    [
        (InvalidPicture("what"), 400, 1401, "invalid_picture"),
        (errors.Forbidden("what"), 403, 403, "forbidden"),
        (errors.AlreadyExists("what"), 412, 412, "already_exists"),
        (errors.IdempotencyConflict("what"), 422, 422, "idempotency_conflict"),
        (errors.RateLimited("what"), 429, 429, "rate_limited"),
        (DeviceCrashed("what"), 500, 500, "device_crashed"),
        (Overloaded("what"), 503, 503, "overloaded"),
        (errors.StorageFull("what"), 507, 507, "storage_full"),
    ],
)
def test_error_of_the_tree_keeps_its_sentence(
    error: EnlargerError, status: int, code: int, error_code: str
) -> None:
    async def fail() -> NoReturn:
        raise error

    app = create_app(EMPTY)
    app.add_api_route("/fail", fail, response_model=None)
    with serving(app) as http:
        answer = http.get("/fail")
    assert answer.status_code == status
    assert answer.json() == {"code": code, "message": "what", "error": "what", "error_code": error_code}


@pytest.mark.parametrize(("seconds", "header"), [(0.1, "1"), (10.0, "10"), (59.2, "60")])
def test_refusal_for_now_says_in_whole_seconds_when_to_come_back(seconds: float, header: str) -> None:
    async def fail() -> NoReturn:
        raise Overloaded("busy", seconds)

    app = create_app(EMPTY)
    app.add_api_route("/fail", fail, response_model=None)
    with serving(app) as http:
        assert http.get("/fail").headers["retry-after"] == header


def test_text_that_utf8_cannot_hold_is_quoted_all_the_same() -> None:
    async def fail() -> NoReturn:
        raise errors.NotFound("no \ud800")

    app = create_app(EMPTY)
    app.add_api_route("/fail", fail, response_model=None)
    with serving(app) as http:
        assert http.get("/fail").json()["message"] == "no \ud800"


def test_unforeseen_error_tells_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> NoReturn:
        raise ZeroDivisionError("secret detail")

    app = create_app(EMPTY)
    app.add_api_route("/fail", fail, response_model=None)
    with serving(app) as http:
        answer = http.get("/fail")
    assert answer.status_code == 500
    assert (answer.json()["code"], answer.json()["error_code"]) == (500, "internal_error")
    assert answer.json()["message"] == answer.json()["error"]
    assert "secret detail" not in answer.text
    assert [
        record for record in caplog.records if record.exc_info and "secret detail" in str(record.exc_info[1])
    ]


@pytest.mark.parametrize(
    ("method", "path", "status", "error_code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/web/nothing.js", 404, "not_found"),
        ("DELETE", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_what_the_router_refuses_has_the_same_shape(
    server: Running, method: str, path: str, status: int, error_code: str
) -> None:
    answer = server.http.request(method, path)
    assert answer.status_code == status
    body = answer.json()
    assert (body["code"], body["error_code"]) == (status, error_code)
    assert body["message"] == body["error"] != ""


def test_browsers_of_other_pages_may_call(server: Running) -> None:
    asked = {
        "Origin": "https://elsewhere.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-client-name,x-client-os,x-client-version",
    }
    answer = server.http.options("/api/v3/wavespeed-ai/real-esrgan", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    allowed = {name.strip() for name in answer.headers["access-control-allow-headers"].lower().split(",")}
    assert set(asked["Access-Control-Request-Headers"].split(",")) <= allowed
    # With a star, browsers must not be told to send what they keep for the site.
    assert "access-control-allow-credentials" not in answer.headers
