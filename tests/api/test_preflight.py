"""Preflight: the answer of a submit without the work."""

from __future__ import annotations

import base64

import pytest

from .conftest import SUBMIT, Running, picture

PREFLIGHT = f"{SUBMIT}/preflight"


def test_preflight_tells_size_and_time_and_runs_nothing(server: Running) -> None:
    before = server.http.post("/api/v3/predictions").json()["data"]["items"]
    answer = server.http.post(PREFLIGHT, json={"image": picture(7, 5), "scale": 2.5})
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert (data["width"], data["height"]) == (18, 13)
    assert data["eta_seconds"] >= 0.5
    assert server.http.post("/api/v3/predictions").json()["data"]["items"] == before


@pytest.mark.parametrize(
    ("fields", "code", "error_code"),
    [
        ({}, 1400, "invalid_option"),
        ({"image": picture(), "scale": 11}, 1401, "invalid_option"),
        ({"image": base64.b64encode(b"no picture").decode()}, 1401, "invalid_picture"),
        ({"image": picture(1000, 1000), "scale": 10}, 1401, "picture_too_large"),
        ({"image": "http://127.0.0.1:1/a.png"}, 1402, "address_refused"),
    ],
)
def test_preflight_gives_the_refusal_the_submit_would_end_in(
    server: Running, fields: dict[str, object], code: int, error_code: str
) -> None:
    answer = server.http.post(PREFLIGHT, json=fields)
    assert (answer.status_code, answer.json()["code"]) == (400, code), answer.text
    assert answer.json()["error_code"] == error_code


def test_older_name_of_the_model_has_a_preflight_too(server: Running) -> None:
    answer = server.http.post("/api/v2/nightmareai/real-esrgan/preflight", json={"image": picture()})
    assert answer.json()["data"]["width"] == 28
