"""Links: unguessable, expiring names for stored files, so that a result can be fetched without a key."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from math import ceil

_DAY_SECONDS = 86_400
_URL = re.compile(r"https?://[^/?#]+/files/(?P<token>[^/?#]+)/(?P<key>[^?#]+)", re.IGNORECASE)


def sign(secret: bytes, key: str, expires_at: int) -> str:
    """The token, `<expires_at>.<signature>`, that opens the blob `key` until `expires_at` (Unix seconds)."""
    message = f"{expires_at}\n{key}".encode("utf-8", "surrogatepass")
    digest = hmac.digest(secret, message, sha256)
    return f"{expires_at}.{urlsafe_b64encode(digest).decode().rstrip('=')}"


def token_for_days(secret: bytes, key: str, now: float, days: int) -> str:
    """The token that opens the blob `key` for `days` to `days` + 1 from `now` (Unix seconds)."""
    # Rounded up to whole days: polls of the same day show the same URL, which clients and caches like.
    return sign(secret, key, (ceil(now / _DAY_SECONDS) + days) * _DAY_SECONDS)


def verify(secret: bytes, key: str, token: str, now: float) -> bool:
    """Whether `token` was signed for `key` with `secret` and has not expired."""
    expires, _, _ = token.partition(".")
    # Twelve digits reach the year 33658; Python would happily parse a megabyte of them.
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 12):
        return False
    genuine = hmac.compare_digest(
        token.encode("utf-8", "surrogatepass"), sign(secret, key, int(expires)).encode()
    )
    return genuine and now < int(expires)


def parse(url: str) -> tuple[str, str] | None:
    """Token and blob key of a URL that has the form of a link, under whatever host; None when it has not."""
    match = _URL.fullmatch(url)
    return (match["token"], match["key"]) if match else None
