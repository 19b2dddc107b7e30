"""Balance, prices, models and usage: what clients ask before and after their work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from enlarger.engine.options import Options
from enlarger.settings import Settings

from .conftest import Running, running

MODEL = "wavespeed-ai/real-esrgan"


def data_of(server: Running, method: str, path: str, **asked: Any) -> Any:
    answer = server.http.request(method, f"/api/v3{path}", **({"json": asked} if asked else {}))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["code"], body["message"], "error" in body) == (200, "success", False)
    return body["data"]


def test_balance_is_enough_for_every_client_that_looks(server: Running) -> None:
    balance = data_of(server, "GET", "/balance")["balance"]
    assert isinstance(balance, float)
    assert balance > 1000
    assert data_of(server, "GET", "/account/balance") == {"balance": balance, "currency": "USD"}


def test_catalogue_is_sent_packed_to_whom_takes_it_so(server: Running) -> None:
    plain = server.http.get("/api/v3/models", headers={"Accept-Encoding": "identity"})
    packed = server.http.get("/api/v3/models", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
    assert packed.json() == plain.json()


def test_catalogue_tells_how_to_run_the_model(server: Running) -> None:
    (entry,) = data_of(server, "GET", "/models")
    assert (entry["model_id"], entry["type"], entry["base_price"]) == (MODEL, "image-to-image", 0)
    (run,) = entry["api_schema"]["api_schemas"]
    assert (run["type"], run["method"], run["server"]) == ("model_run", "POST", server.url)
    schema = run["request_schema"]
    assert schema["required"] == ["image"]
    assert {spec.name for spec in fields(Options)} <= schema["properties"].keys()
    assert schema["x-order-properties"][0] == "image"
    networks = [choice["value"] for choice in schema["properties"]["model"]["x-choices"]]
    assert networks[:2] == ["auto", Options().model]
    assert schema["x-limits"]["max_upload_bytes"] == Settings().max_upload_bytes
    # The address it names takes a submit.
    assert server.http.post(run["api_path"], json={}).json()["code"] == 1400


def test_every_run_is_free(server: Running) -> None:
    asked = {"model_id": MODEL, "inputs": {"scale": 4}}
    assert data_of(server, "POST", "/model/price", **asked) == {
        "model_id": MODEL,
        "price": 0,
        "discounted_price": 0,
        "discount_rate": 0,
        "currency": "USD",
    }
    assert data_of(server, "POST", "/model/pricing", **asked) == {
        "model_id": MODEL,
        "unit_price": 0,
        "currency": "USD",
    }
    answer = server.http.post("/api/v3/model/price", json={"model_id": "a/b"})
    assert (answer.status_code, "model not found" in answer.json()["message"]) == (400, True)


def test_there_are_no_bills(server: Running) -> None:
    assert data_of(server, "POST", "/billings/search", page=2, page_size=5, sort="x") == {
        "page": 2,
        "total": 0,
        "has_more": False,
        "items": [],
    }


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server on which one key has had three predictions, one of them in vain."""
    with running(tmp_path_factory.mktemp("used")) as this:
        for fails in (False, False, True):
            this.finished(this.submit(face_enhance=fails))
        yield this


def span(days: float) -> dict[str, str]:
    now = datetime.now(UTC)
    return {"start_time": (now - timedelta(days=days)).isoformat(), "end_time": now.isoformat()}


def test_usage_counts_predictions_by_day_and_model(used: Running) -> None:
    data = data_of(used, "POST", "/user/usage_stats", **span(1))
    assert data["summary"] == {"total_cost": 0, "total_requests": 3, "success_requests": 2}
    assert [(row["model_uuid"], row["total_count"]) for row in data["per_model_usage"]] == [(MODEL, 3)]
    assert sum(day["count"] for day in data["daily_usage"]) == 3
    assert all(datetime.fromisoformat(day["date"]) for day in data["daily_usage"])


def test_usage_of_another_model_or_key_is_none(used: Running) -> None:
    asked = {**span(1), "model_uuid": "a/b"}
    assert data_of(used, "POST", "/user/usage_stats", **asked)["summary"]["total_requests"] == 0
    with used.client(used.add_key("other")) as other:
        data = other.post("/api/v3/user/usage_stats", json=span(1)).json()["data"]
    assert data["summary"]["total_requests"] == 0


@pytest.mark.parametrize("asked", [{}, span(32), span(-1), {**span(1), "end_time": "never"}])
def test_span_of_usage_is_at_most_a_month(used: Running, asked: dict[str, str]) -> None:
    answer = used.http.post("/api/v3/user/usage_stats", json=asked)
    assert (answer.status_code, answer.json()["code"]) == (400, 1401)
    assert "_time" in answer.json()["message"]
