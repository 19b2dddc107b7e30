"""Presigned URLs: permission to do one thing with one object of an S3 store, without its keys.

AWS Signature Version 4 in the query of a URL ("Authenticating Requests: Using Query Parameters" in the S3 API
reference). obstore signs the host alone; here headers are signed as well, so that the store itself refuses a body
of another length, or a second one.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote, urlsplit

from enlarger.jobs.blobs import DirectPut

MAX_SECONDS = 604_800
"""S3 refuses URLs of a longer life: a week."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_LINK_SECONDS = 900
"""Life of a URL that a client is sent on to at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Signs URLs of one bucket. endpoint: `https://host[:port]`; prefix: before every key, no slash at its ends."""

    endpoint: str
    bucket: str
    region: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    prefix: str = ""

    def url(
        self,
        method: str,
        key: str,
        *,
        now: float,
        seconds: int,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> str:
        """Good for `method` on `key` from `now` (Unix seconds) for 1 to MAX_SECONDS `seconds`.

        headers: what the request must carry, just so, besides its host. query: what the URL asks for, for example
        `response-content-type`.
        """
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{self.region}/s3/aws4_request"
        signed = {
            "host": urlsplit(self.endpoint).netloc,
            **{k.lower(): v for k, v in (headers or {}).items()},
        }
        names = ";".join(sorted(signed))
        asked = _encoded(
            {
                **(query or {}),
                "X-Amz-Algorithm": _ALGORITHM,
                "X-Amz-Credential": f"{self.access_key}/{scope}",
                "X-Amz-Date": stamp,
                "X-Amz-Expires": str(seconds),
                "X-Amz-SignedHeaders": names,
            }
        )
        path = "/".join(quote(part) for part in (self.bucket, self.prefix, key) if part)
        lines = [f"{name}:{signed[name].strip()}" for name in sorted(signed)]
        request = "\n".join([method, f"/{path}", asked, *lines, "", names, "UNSIGNED-PAYLOAD"])
        to_sign = "\n".join([_ALGORITHM, stamp, scope, sha256(request.encode()).hexdigest()])
        signature = hmac.digest(self._key(stamp[:8]), to_sign.encode(), "sha256").hex()
        return f"{self.endpoint}/{path}?{asked}&X-Amz-Signature={signature}"

    def _key(self, day: str) -> bytes:
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return key


class Presigned:
    """The `Direct` of an S3 store. clock: Unix seconds."""

    def __init__(self, signer: Signer, clock: Callable[[], float]) -> None:
        self._signer = signer
        self._clock = clock

    def put(self, key: str, size: int, media_type: str, seconds: float) -> DirectPut:
        now, life = self._clock(), min(int(seconds), MAX_SECONDS)
        headers = {"Content-Type": media_type, "If-None-Match": "*"}
        # The length is signed and not told: every client sends its own, and some let nobody name it.
        signed = {**headers, "Content-Length": str(size)}
        return DirectPut(
            self._signer.url("PUT", key, now=now, seconds=life, headers=signed), headers, now + life
        )

    def get(self, key: str, method: str, answer: Mapping[str, str]) -> str:
        query = {f"response-{name.lower()}": value for name, value in answer.items()}
        return self._signer.url(method, key, now=self._clock(), seconds=_LINK_SECONDS, query=query)


def _encoded(query: Mapping[str, str]) -> str:
    return "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items())
    )
