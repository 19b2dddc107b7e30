"""Packing: gzip, where the client takes it. For long texts; pictures and streams go out as they are."""

from __future__ import annotations

import gzip
import re

from fastapi import Request
from fastapi.responses import Response

_NO_GZIP = re.compile(r"(?:gzip|\*)\s*;\s*q=0(?:\.0*)?$")


def takes_gzip(request: Request) -> bool:
    """Whether `Accept-Encoding` offers gzip and does not refuse it."""
    codings = [coding.strip().lower() for coding in request.headers.get("accept-encoding", "").split(",")]
    offered = [coding for coding in codings if coding.partition(";")[0].strip() in ("gzip", "*")]
    return bool(offered) and not any(_NO_GZIP.fullmatch(coding) for coding in offered)


def packed_json(request: Request, text: str) -> Response:
    """An answer of JSON text, gzipped where the client takes it."""
    headers = {"Vary": "Accept-Encoding"}
    if not takes_gzip(request):
        return Response(text, media_type="application/json", headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(gzip.compress(text.encode(), 6), media_type="application/json", headers=headers)
