"""A key reaches its own, and of that only what its scopes allow."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx2
import pytest

from .conftest import SUBMIT, Running, picture

TICKETS = "/api/v3/media/uploads"


@pytest.fixture(scope="module")
def other(server: Running) -> Iterator[httpx2.Client]:
    with server.client(server.add_key("other")) as client:
        yield client


def test_prediction_of_another_key_is_as_good_as_none(server: Running, other: httpx2.Client) -> None:
    mine = server.finished(server.submit())
    for method, path in [
        ("GET", f"/api/v3/predictions/{mine['id']}/result"),
        ("GET", f"/api/v3/predictions/{mine['id']}"),
        ("GET", f"/api/v3/predictions/{mine['id']}/events"),
        ("GET", f"/api/v3/predictions/{mine['id']}/outputs/0/viewer"),
        ("GET", f"/api/v3/predictions/{mine['id']}/input/viewer"),
        ("GET", f"/api/v3/predictions/{mine['id']}/report"),
        ("POST", f"/api/v3/predictions/{mine['id']}/cancel"),
        ("DELETE", f"/api/v3/predictions/{mine['id']}"),
    ]:
        theirs = other.request(method, path)
        unknown = other.request(method, path.replace(mine["id"], "0" * 32))
        assert theirs.status_code == unknown.status_code == 404, path
        assert theirs.json()["message"].replace(mine["id"], "0" * 32) == unknown.json()["message"]
    assert server.poll(mine["id"]).json()["data"] == mine


def test_list_and_bulk_delete_see_only_one_s_own(server: Running, other: httpx2.Client) -> None:
    mine = server.finished(server.submit())["id"]
    theirs = other.post(SUBMIT, json={"image": picture()}).json()["data"]["id"]
    listed = [item["id"] for item in other.post("/api/v3/predictions", json={}).json()["data"]["items"]]
    assert theirs in listed
    assert mine not in listed
    answer = other.post("/api/v3/predictions/delete", json={"ids": [mine, theirs]})
    assert answer.json()["data"]["deleted_count"] == 1
    assert server.poll(mine).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "submits", "reads"),
    [({"submit"}, True, False), ({"read"}, False, True), ({"admin"}, False, False)],
)
def test_key_may_do_what_its_scopes_say(
    server: Running, scopes: set[str], submits: bool, reads: bool
) -> None:
    with server.client(server.add_key("narrow", scopes=frozenset(scopes))) as client:
        for path, body, may in [
            (SUBMIT, {"image": picture()}, submits),
            (f"{SUBMIT}/preflight", {"image": picture()}, submits),
            (TICKETS, {"filename": "a.png", "size": 5}, submits),
            ("/api/v3/predictions/delete", {"ids": ["x"]}, submits),
            ("/api/v3/predictions", {}, reads),
            (
                "/api/v3/user/usage_stats",
                {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-02T00:00:00Z"},
                reads,
            ),
        ]:
            answer = client.post(path, json=body)
            assert answer.status_code == (200 if may else 403), (path, answer.text)
            if not may:
                assert answer.json()["error_code"] == "forbidden"
                assert [scope for scope in scopes if scope in answer.json()["message"]]


def test_key_that_submits_may_wait_for_its_own_result(server: Running) -> None:
    with server.client(server.add_key("writer", scopes=frozenset({"submit"}))) as client:
        answer = client.post(SUBMIT, json={"image": picture(), "enable_sync_mode": True})
        assert answer.json()["data"]["status"] == "completed"


def test_rate_of_a_key_is_limited_and_says_when_to_come_back(server: Running) -> None:
    with server.client(server.add_key("slow", rate_per_minute=2)) as client:
        answers = [client.post(SUBMIT, json={"image": picture()}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["error_code"] == "rate_limited"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert server.submit().status_code == 200


def test_key_ends_when_it_expires(server: Running) -> None:
    with server.client(server.add_key("short", expires_at=time.time() + 1000)) as client:
        assert client.get("/api/v3/balance").status_code == 200
        server.clock_offset_seconds = 1001
        try:
            assert client.get("/api/v3/balance").status_code == 401
        finally:
            server.clock_offset_seconds = 0
