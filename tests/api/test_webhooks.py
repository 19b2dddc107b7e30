"""Webhooks over HTTP: the secret, the message, the log, the replay; and who may see them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import httpx2
import pytest

from ..receiver import Received, Receiver, eventually
from .conftest import Running, running


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Running]:
    allowed = {"allow_private_networks": "127.0.0.0/8", "allow_ports": str(receiver.port)}
    with running(tmp_path_factory.mktemp("data"), **allowed) as this:
        yield this


def told(receiver: Receiver, job_id: str, times: int = 1) -> list[Received]:
    def look() -> list[Received] | None:
        found = [message for message in receiver.received if message.headers["webhook-id"] == job_id]
        return found if len(found) >= times else None

    return eventually(look, f"webhook {times} of {job_id}") or []


def secret_of(server: Running) -> str:
    return str(server.http.get("/api/v3/webhook/secret").json()["data"]["secret"])


def is_signed(message: Received, secret: str) -> bool:
    """The vendor's recipe."""
    at, identifier = message.headers["webhook-timestamp"], message.headers["webhook-id"]
    signed = f"{identifier}.{at}.".encode() + message.body
    wanted = "v3," + hmac.new(secret[6:].encode(), signed, hashlib.sha256).hexdigest()
    return abs(time.time() - int(at)) < 300 and hmac.compare_digest(
        wanted, message.headers["webhook-signature"]
    )


def test_message_is_the_prediction_itself_and_signed(server: Running, receiver: Receiver) -> None:
    prediction = server.finished(server.submit(webhook_url=receiver.url))
    (message,) = told(receiver, prediction["id"])
    body = json.loads(message.body)
    assert is_signed(message, secret_of(server))
    assert (body["id"], body["status"], body["error"]) == (prediction["id"], "completed", "")
    shared = prediction.keys() & body.keys() - {"urls", "outputs"}
    assert {"input", "model", "created_at", "has_nsfw_contents", "timings", "executionTime"} <= shared
    assert {name: body[name] for name in shared} == {name: prediction[name] for name in shared}
    assert body["urls"]["get"].endswith(f"/api/v3/predictions/{prediction['id']}/result")
    assert len(body["outputs"]) == 1


def test_failure_is_told_too(server: Running, receiver: Receiver) -> None:
    prediction = server.finished(server.submit(image="bm90IGEgcGljdHVyZQ==", webhook_url=receiver.url))
    (message,) = told(receiver, prediction["id"])
    body = json.loads(message.body)
    assert (body["status"], body["outputs"], body["code"]) == ("failed", [], 1401)
    assert body["error"] == prediction["error"]


def test_log_shows_attempts_and_replay_makes_one_more(server: Running, receiver: Receiver) -> None:
    prediction = server.finished(server.submit(webhook_url=receiver.url))
    told(receiver, prediction["id"])
    path = f"/api/v3/predictions/{prediction['id']}/deliveries"

    def ended(count: int) -> list[dict[str, object]]:
        def look() -> list[dict[str, object]] | None:
            log = server.http.get(path).json()["data"]
            done = [delivery for delivery in log if delivery["status"] == "delivered"]
            return log if len(done) == count else None

        return eventually(look, f"{count} deliveries in the log") or []

    (first,) = ended(1)
    assert (first["url"], first["next_attempt_at"]) == (receiver.url, None)
    assert [attempt["status"] for attempt in first["attempts"]] == [200]  # pyright: ignore
    replayed = server.http.post(f"{path}/{first['id']}/replay").json()["data"]
    assert replayed["status"] == "pending"
    first_message, second_message = told(receiver, prediction["id"], times=2)
    assert first_message.headers["webhook-id"] == second_message.headers["webhook-id"]
    assert len(ended(2)) == 2


def test_nobody_else_sees_or_replays_a_delivery(
    server: Running, receiver: Receiver, stranger: httpx2.Client
) -> None:
    prediction = server.finished(server.submit(webhook_url=receiver.url))
    told(receiver, prediction["id"])
    path = f"{server.url}/api/v3/predictions/{prediction['id']}/deliveries"
    assert stranger.get(path).status_code == 401
    assert stranger.post(f"{path}/{prediction['id']}/replay").status_code == 401
    assert stranger.get(f"{server.url}/api/v3/webhook/secret").status_code == 401
    assert server.http.get(f"/api/v3/predictions/{'0' * 32}/deliveries").status_code == 404
    unknown = server.http.post(f"{path}/{'0' * 32}/replay")
    assert unknown.status_code == 404
    assert "Delivery not found" in unknown.json()["message"]


def test_another_key_finds_no_delivery_and_has_another_secret(server: Running, receiver: Receiver) -> None:
    prediction = server.finished(server.submit(webhook_url=receiver.url))
    told(receiver, prediction["id"])
    path = f"/api/v3/predictions/{prediction['id']}/deliveries"
    with server.client(server.add_key("other")) as other:
        assert other.get(path).status_code == 404
        assert other.post(f"{path}/{prediction['id']}/replay").status_code == 404
        assert other.get("/api/v3/webhook/secret").json()["data"]["secret"] != secret_of(server)


@pytest.mark.parametrize(("scope", "sees", "replays"), [("read", 200, 403), ("submit", 403, 404)])
def test_log_is_for_readers_and_replay_for_submitters(
    server: Running, scope: str, sees: int, replays: int
) -> None:
    path = f"/api/v3/predictions/{'0' * 32}/deliveries"
    with server.client(server.add_key(scope, scopes=frozenset({scope}))) as narrow:
        assert narrow.get("/api/v3/webhook/secret").status_code == sees
        assert narrow.get(path).status_code == (404 if sees == 200 else sees)
        assert narrow.post(f"{path}/{'0' * 32}/replay").status_code == replays


def test_webhook_this_server_would_never_call_is_refused_at_submit(server: Running) -> None:
    answer = server.submit(webhook_url="http://hooks.test:22/")
    assert answer.status_code == 400
    assert "ENLARGER_ALLOW_PORTS" in answer.json()["message"]


def test_prediction_without_a_webhook_has_an_empty_log(server: Running) -> None:
    prediction = server.finished(server.submit())
    assert server.http.get(f"/api/v3/predictions/{prediction['id']}/deliveries").json()["data"] == []
