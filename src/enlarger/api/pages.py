"""The pages people open: playground, API docs, and the files these load. Nothing comes from elsewhere.

All files are read once, when the application is made. Pages name their files below a folder whose name changes with
them, so that browsers may keep them for ever; modules and styles name each other relatively and so stay below it.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from enlarger.api.packing import takes_gzip
from enlarger.api.wavespeed import is_known

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).parent.parent / "web"

# The same policy for every page: own files only, nothing inline, nothing evaluated, no framing. blob: is a picture
# that the user chose and the page shows before it is sent.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_ASK_EACH_TIME = "no-cache"
_KEEP = "public, max-age=31536000, immutable"

_TEXTS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
_PICTURES = {
    ".avif": "image/avif",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
_VERSION = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent. `gzipped` is empty where that would not be shorter."""

    data: bytes
    gzipped: bytes
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Site:
    """Every file of the pages by its path. `version` names what they hold."""

    assets: Mapping[str, Asset]
    version: str


def read_site(folder: Path = FOLDER) -> Site:
    """The site in a folder: all its files of known kinds."""
    types = _TEXTS | _PICTURES
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in types and path.is_file()
    }
    digest = sha256()
    for name, data in files.items():
        digest.update(b"%s\0%d\0" % (name.encode(), len(data)) + data)
    version = digest.hexdigest()[:16]
    assets: dict[str, Asset] = {}
    for name, data in files.items():
        suffix = Path(name).suffix
        if suffix == ".html":
            data = data.replace(b'"/web/', b'"/web/%s/' % version.encode())
        assets[name] = _asset(data, types[suffix], is_text=suffix in _TEXTS)
    return Site(assets, version)


def _asset(data: bytes, media_type: str, *, is_text: bool) -> Asset:
    gzipped = gzip.compress(data, 9, mtime=0) if is_text else b""
    etag = f'W/"{sha256(data).hexdigest()[:32]}"'
    return Asset(data, gzipped if len(gzipped) < len(data) else b"", media_type, etag)


def site_of(request: Request) -> Site:
    return cast(Site, request.app.state.site)


UseSite = Annotated[Site, Depends(site_of)]


@router.get("/")
async def start_page(request: Request, site: UseSite) -> Response:
    return _sent(request, site.assets["index.html"], _ASK_EACH_TIME)


@router.get("/docs")
async def docs_page(request: Request, site: UseSite) -> Response:
    return _sent(request, site.assets["docs.html"], _ASK_EACH_TIME)


@router.get("/web/{path:path}")
async def asset(path: str, request: Request, site: UseSite) -> Response:
    version, _, rest = path.partition("/")
    # A page of an older version still gets the files there are now, to keep for this once.
    name = rest if _VERSION.fullmatch(version) else path
    found = site.assets.get(name)
    if found is None or name.endswith(".html"):
        raise HTTPException(404)
    return _sent(request, found, _KEEP if version == site.version else _ASK_EACH_TIME)


def _sent(request: Request, found: Asset, caching: str) -> Response:
    headers = {"Cache-Control": caching, "ETag": found.etag, "Vary": "Accept-Encoding"}
    # What is no page keeps the policy all answers have: opened by itself it may do nothing.
    if found.media_type == _TEXTS[".html"]:
        headers["Content-Security-Policy"] = _POLICY
    if is_known(request.headers.get("if-none-match", ""), found.etag):
        return Response(status_code=304, headers=headers)
    data = found.data
    if found.gzipped and takes_gzip(request):
        data, headers["Content-Encoding"] = found.gzipped, "gzip"
    return Response(data, media_type=found.media_type, headers=headers)
