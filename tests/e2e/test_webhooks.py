"""A server that is killed between the end of a job and its webhook; and what its log does not hold."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import requests

from ..receiver import Received, Receiver
from .conftest import Server, eventually, inline, png, webhooks_to
from .test_kills import SUBMIT, ended

QUICK = "realesr-animevideov3"


def call(server: Server, method: str, path: str, **values: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {server.key}"}
    return requests.request(method, server.url + path, headers=headers, timeout=60, **values)


def submit(server: Server, **fields: Any) -> str:
    body = {"image": inline(png(8, 8)), "scale": 4, "model": QUICK, **fields}
    answer = call(server, "POST", SUBMIT, json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["id"])


def messages(receiver: Receiver, job_id: str) -> list[Received]:
    return [message for message in receiver.received if message.headers["webhook-id"] == job_id]


def assert_is_signed(server: Server, message: Received) -> None:
    """By the vendor's recipe."""
    secret = str(call(server, "GET", "/api/v3/webhook/secret").json()["data"]["secret"])
    content = (
        f"{message.headers['webhook-id']}.{message.headers['webhook-timestamp']}.".encode() + message.body
    )
    wanted = hmac.new(secret[6:].encode(), content, hashlib.sha256).hexdigest()
    assert message.headers["webhook-signature"] == f"v3,{wanted}"


def test_webhook_under_way_when_the_server_is_killed_is_sent_again(
    launch: Callable[..., Server], receiver: Receiver
) -> None:
    receiver.hold.clear()
    server = launch(**webhooks_to(receiver))
    job_id = submit(server, webhook_url=receiver.url)
    eventually(lambda: receiver.under_way == 1, "the webhook to be on its way")
    server.kill()
    receiver.hold.set()
    assert len(messages(receiver, job_id)) == 1
    server.start()
    eventually(lambda: len(messages(receiver, job_id)) == 2, "the webhook to come again")
    first, second = messages(receiver, job_id)
    # Bodies differ by the address of the server at most, which has not changed.
    assert first.body == second.body
    for message in (first, second):
        assert_is_signed(server, message)
    server.stop()


def test_webhook_of_a_job_whose_receiver_was_dead_arrives_after_kills_of_the_server(
    launch: Callable[..., Server], receiver: Receiver
) -> None:
    server = launch(**webhooks_to(receiver))
    receiver.stop()
    jobs = [submit(server, webhook_url=receiver.url) for _ in range(2)]
    for job_id in jobs:
        ended(server, job_id)
        server.kill()
        server.start()
    receiver.start()
    for job_id in jobs:
        eventually(lambda job_id=job_id: messages(receiver, job_id), f"the webhook of {job_id}")
        (message, *_) = messages(receiver, job_id)
        assert json.loads(message.body)["status"] == "completed"
        assert_is_signed(server, message)
    server.stop()


def test_log_holds_ids_but_no_key_picture_link_or_url(
    launch: Callable[..., Server], receiver: Receiver
) -> None:
    server = launch(**webhooks_to(receiver), ENLARGER_LOG_LEVEL="debug", ENLARGER_LOG_JSON="true")
    picture = inline(png(40, 40, (1, 2, 3)))
    job_id = submit(server, image=picture, webhook_url=f"{receiver.url}&password=hush")
    prediction = ended(server, job_id)
    (link,) = prediction["outputs"]
    assert requests.get(link, timeout=60).status_code == 200
    assert requests.get(f"{link}x", timeout=60).status_code == 404
    eventually(lambda: messages(receiver, job_id), "the webhook")
    # A picture whose server breaks off, at an address that only its owner should know.
    failing = submit(server, image=f"http://127.0.0.1:{receiver.port}/private/picture.png?token=hush")
    receiver.then(500)
    assert ended(server, failing)["status"] == "failed"
    refused = requests.post(
        server.url + SUBMIT, headers={"Authorization": "Bearer wsk_wrong_key"}, timeout=60
    )
    assert refused.status_code == 401
    request_id = refused.headers["X-Request-Id"]
    secret = call(server, "GET", "/api/v3/webhook/secret").json()["data"]["secret"]
    server.stop()

    log = server.log()
    assert log.count(server.key) == 1  # in the address that is printed for the owner
    token = link.split("/files/")[1].split("/")[0]
    hidden = ["wsk_wrong_key", secret, token, picture, picture[:60], "hush", "/private/", "hook?for"]
    assert [text for text in hidden if text in log] == []
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert any(event.get("request_id") == request_id for event in events)
    assert any(event.get("job_id") == job_id and "delivery_id" in event for event in events)
    assert any(event.get("job_id") == failing for event in events)
