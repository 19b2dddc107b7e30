"""No key, no answer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import SUBMIT, Running, picture

ROUTES = [
    ("POST", "/api/v3/wavespeed-ai/real-esrgan"),
    ("POST", "/api/v3/wavespeed-ai/no-such-model"),
    ("GET", "/api/v3/predictions/0/result"),
    ("GET", "/api/v3/predictions/0"),
    ("GET", "/api/v2/predictions/0/result"),
    ("POST", "/api/v3/predictions/0/cancel"),
    ("DELETE", "/api/v3/predictions/0"),
    ("POST", "/api/v3/predictions/delete"),
    ("POST", "/api/v3/media/uploads"),
    ("POST", "/api/v3/media/upload/binary"),
    ("GET", "/api/v3/models"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer wrong", "Basic {}", "Token {}", "{}", "Bearer {}x", "Bearer {} {}"],
)
def test_every_route_of_the_api_wants_a_bearer_key(
    server: Running, method: str, path: str, authorization: str
) -> None:
    headers = {"Authorization": authorization.format(server.key, server.key), "X-API-Key": server.key}
    answer = server.http.request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    body = answer.json()
    assert (body["code"], body["error_code"]) == (401, "unauthorized")
    assert body["message"] == body["error"] != ""
    assert server.key not in answer.text


def test_scheme_is_read_in_any_case(server: Running) -> None:
    headers = {"Authorization": f"bearer {server.key}"}
    answer = server.http.post("/api/v3/wavespeed-ai/real-esrgan", json={"image": picture()}, headers=headers)
    assert answer.status_code == 200


def test_pages_and_health_want_no_key(server: Running) -> None:
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
        assert server.http.get(path, headers={"Authorization": ""}).status_code == 200, path


def test_every_route_of_the_api_says_that_it_wants_a_key(server: Running) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    open_routes = {
        f"{method} {path}"
        for path, methods in paths.items()
        for method, route in methods.items()
        if not route.get("security")
    }
    assert open_routes == {
        "get /healthz",
        "get /readyz",
        "get /files/{token}/{key}",
        "get /tiles/{token}/{id}/{picture}/{level}/{column}/{row}",
        "put /uploads/{token}",
    }


# What h11 lets a client send: visible latin-1, spaces and tabs.
values = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
).map(str.strip)
names = st.sampled_from(
    [
        "Prefer",
        "If-None-Match",
        "Idempotency-Key",
        "Last-Event-ID",
        "Range",
        "If-Range",
        "Content-Type",
        "Origin",
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, values, st.sampled_from(["result", "events", "deliveries"]))
def test_no_header_makes_the_server_fail(server: Running, name: str, value: str, path: str) -> None:
    headers = {name: value.encode("latin-1")}
    assert server.http.get(f"/api/v3/predictions/0/{path}", headers=headers).status_code == 404
    assert server.http.post(f"{SUBMIT}/preflight", json={}, headers=headers).status_code == 400
    assert server.http.get("/files/0/x", headers=headers).status_code == 404


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values)
def test_no_authorization_but_the_key_opens_anything(server: Running, value: str) -> None:
    for text in (value, f"Bearer {value}".strip(), f"Bearer {server.key} {value}x"):
        headers = {"Authorization": text.encode("latin-1")}
        assert server.http.get("/api/v3/balance", headers=headers).status_code == 401


def test_answers_forbid_browsers_to_do_anything_with_them(server: Running) -> None:
    headers = server.http.get("/api/v3/balance").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
