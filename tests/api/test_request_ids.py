from __future__ import annotations

import logging

import httpx2
import pytest

from .conftest import Running


def test_every_answer_has_an_id_of_its_own(server: Running, stranger: httpx2.Client) -> None:
    answers = [
        stranger.get(f"{server.url}{path}")
        for path in ("/healthz", "/healthz", "/nowhere", "/api/v3/balance")
    ]
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    assert len(ids) == len(answers)
    assert all(len(each) == 32 for each in ids)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("req-1.2_3", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("two words", False),
        ("", False),
        ("{evil}", False),
    ],
)
def test_id_of_a_proxy_is_kept_when_it_is_a_plain_word(
    server: Running, stranger: httpx2.Client, sent: str, kept: bool
) -> None:
    answer = stranger.get(f"{server.url}/healthz", headers={"X-Request-Id": sent})
    assert (answer.headers["X-Request-Id"] == sent) is kept


def test_request_is_logged_by_its_route_not_its_path(
    server: Running, stranger: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "enlarger.api.request_ids")
    stranger.get(f"{server.url}/files/secret-token/outputs/x/1/1.png")
    stranger.get(f"{server.url}/nowhere/secret-token?key=secret-token")
    stranger.get(f"{server.url}/healthz")
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("GET /files/{token}/{key:path}: 404 in ") for line in lines)
    assert "secret-token" not in caplog.text
    assert not any("healthz" in line for line in lines), "reads that succeed are logged as debug only"
