"""The list of predictions: pages, filters, and both ways to ask."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .conftest import Running, running


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that has finished five predictions, the third of which failed."""
    with running(tmp_path_factory.mktemp("busy")) as this:
        for number in range(5):
            this.finished(this.submit(face_enhance=number == 2))
        yield this


def page(server: Running, **asked: Any) -> list[dict[str, Any]]:
    answer = server.http.post("/api/v3/predictions", json=asked)
    assert answer.status_code == 200, answer.text
    data = answer.json()["data"]
    assert data["page"] == asked.get("page", 1)
    items: list[dict[str, Any]] = data["items"]
    return items


def test_newest_comes_first_and_pages_do_not_overlap(busy: Running) -> None:
    everything = page(busy)
    assert len(everything) == 5
    assert [item["created_at"] for item in everything] == sorted(
        (item["created_at"] for item in everything), reverse=True
    )
    pages = [page(busy, page=number, page_size=2) for number in (1, 2, 3, 4)]
    assert [len(items) for items in pages] == [2, 2, 1, 0]
    assert [item for items in pages for item in items] == everything


def test_item_is_what_a_poll_shows(busy: Running) -> None:
    item = page(busy)[0]
    assert busy.poll(item["id"]).json()["data"] == item


def test_status_and_model_narrow_the_list(busy: Running) -> None:
    assert [item["status"] for item in page(busy, status="failed")] == ["failed"]
    assert len(page(busy, status="completed", model="wavespeed-ai/real-esrgan")) == 4
    assert page(busy, model="nightmareai/real-esrgan") == page(busy, status="timeout") == []


def test_times_narrow_the_list_in_any_zone(busy: Running) -> None:
    middle = datetime.fromisoformat(page(busy)[2]["created_at"])
    tokyo = middle.astimezone(tz=None) + timedelta(milliseconds=1)
    assert len(page(busy, created_after=tokyo.isoformat())) == 2
    assert len(page(busy, created_before=tokyo.isoformat())) == 3
    naive = tokyo.astimezone(UTC).replace(tzinfo=None)
    assert len(page(busy, created_after=naive.isoformat())) == 2


def test_what_the_vendor_s_command_line_sends_is_understood(busy: Running) -> None:
    now = datetime.now(UTC)
    window = {
        "page": 1,
        "page_size": 20,
        "created_after": (now - timedelta(days=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "created_before": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "include_inputs": True,
    }
    assert len(page(busy, **window)) == 5


def test_query_asks_the_same(busy: Running) -> None:
    answer = busy.http.get("/api/v3/predictions", params={"page_size": 2, "status": "completed"})
    assert answer.json()["data"]["items"] == page(busy, page_size=2, status="completed")
    assert busy.http.post("/api/v3/predictions").json()["data"]["items"] == page(busy)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("page", value) for value in (0, -1, "x", 10**12)),
        *(("page_size", value) for value in (0, 101)),
        *(
            ("status", "pending"),
            ("created_after", "yesterday"),
            ("created_before", "x"),
            ("model", "m" * 201),
        ),
    ],
)
def test_bad_filter_is_refused_by_name(busy: Running, name: str, value: object) -> None:
    posted = busy.http.post("/api/v3/predictions", json={name: value})
    asked = busy.http.get("/api/v3/predictions", params={name: str(value)})
    for answer in (posted, asked):
        assert (answer.status_code, answer.json()["code"]) == (400, 1401)
        assert name in answer.json()["message"]
