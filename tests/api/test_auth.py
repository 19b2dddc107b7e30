"""No key, no answer."""

from __future__ import annotations

import pytest

from .conftest import Running, picture

ROUTES = [
    ("POST", "/api/v3/wavespeed-ai/real-esrgan"),
    ("POST", "/api/v3/wavespeed-ai/no-such-model"),
    ("GET", "/api/v3/predictions/0/result"),
    ("GET", "/api/v3/predictions/0"),
    ("GET", "/api/v2/predictions/0/result"),
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
