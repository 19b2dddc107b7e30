"""Signatures: how a webhook proves who sent it. Pure functions of secret, id, time and body.

Both schemes sign `<id>.<timestamp>.<body>` with HMAC-SHA256; they differ in the key and in how the digest is written:

    wavespeed   v3,<hex>       key: the text of the secret after `whsec_`, as bytes
    standard    v1,<base64>    key: that text decoded from base64 (https://www.standardwebhooks.com)
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256

PREFIX = "whsec_"


def secret_of(master: bytes, key_id: str) -> str:
    """The webhook secret of an API key, `whsec_` and 44 characters of base64: always the same for the same key.

    master: the server's own 32 secret bytes; without them no secret can be told from another.
    """
    return PREFIX + b64encode(hmac.digest(master, f"webhook\n{key_id}".encode(), sha256)).decode()


def signed_headers(scheme: str, secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers that go with exactly these bytes. scheme: a name of SCHEMES. timestamp: Unix seconds."""
    content = f"{message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": SCHEMES[scheme](secret.removeprefix(PREFIX), content),
    }


def _wavespeed(text: str, content: bytes) -> str:
    return "v3," + hmac.digest(text.encode(), content, sha256).hex()


def _standard(text: str, content: bytes) -> str:
    return "v1," + b64encode(hmac.digest(b64decode(text), content, sha256)).decode()


SCHEMES: dict[str, Callable[[str, bytes], str]] = {"wavespeed": _wavespeed, "standard": _standard}
