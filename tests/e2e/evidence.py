"""Evidence: what kills and other faults are judged by, gathered past the server."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests

from ..receiver import Receiver


class Told:
    """What the receiver was told, each message checked within the minutes for which its signature holds."""

    def __init__(self, url: str, key: str, receiver: Receiver) -> None:
        answer = requests.get(
            f"{url}/api/v3/webhook/secret", headers={"Authorization": f"Bearer {key}"}, timeout=60
        )
        self._secret = str(answer.json()["data"]["secret"])
        self._receiver = receiver
        self._genuine: set[str] = set()
        self.count = self.forged = 0

    def genuine(self) -> set[str]:
        """The ids of the jobs of which a signed message says that they completed."""
        for message in self._receiver.received[self.count :]:
            self.count += 1
            prediction = json.loads(message.body)
            if is_genuine(message.headers, message.body, self._secret):
                assert prediction["id"] == message.headers["webhook-id"]
                assert prediction["status"] == "completed", prediction["error"]
                self._genuine.add(prediction["id"])
            else:
                self.forged += 1
        return self._genuine


def is_genuine(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """By the recipe of docs/webhooks.md."""
    sent_at = headers["webhook-timestamp"]
    if abs(time.time() - int(sent_at)) > 300:
        return False
    signed = f"{headers['webhook-id']}.{sent_at}.".encode() + body
    digest = hmac.new(secret.removeprefix("whsec_").encode(), signed, hashlib.sha256).hexdigest()
    return hmac.compare_digest(headers["webhook-signature"], f"v3,{digest}")


def is_whole(links: Sequence[str], row: Mapping[str, Any]) -> bool:
    """Whether there is one result, of the newest claim, and its link gives the bytes whose hash the row holds."""
    outputs = row["outputs"] or []
    if isinstance(outputs, str):  # SQLite has no type for JSON
        outputs = json.loads(outputs)
    if not len(links) == len(outputs) == 1:
        return False
    (output,), (url,) = outputs, links
    answer = requests.get(url, timeout=60)
    return (
        output["blob_key"].split("/")[:3] == ["outputs", row["id"], str(row["epoch"])]
        and answer.ok
        and len(answer.content) == output["bytes"]
        and hashlib.sha256(answer.content).hexdigest() == output["sha256"]
    )
