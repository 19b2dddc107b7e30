"""Results by link. The link carries its own right: unguessable, signed, and good for a limited time."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse

from enlarger.api.context import UseContext
from enlarger.api.problems import Problem

router = APIRouter(tags=["files"])

# The bytes are ours, re-encoded, yet they derive from a stranger's file: no browser may take them for a page.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=86400, immutable",
}


@router.head("/files/{token}/{key:path}", include_in_schema=False)
@router.get(
    "/files/{token}/{key:path}",
    summary="The file of a result",
    description="A link from `outputs`, good for a limited time. Needs no key; answers HEAD and byte ranges.",
    response_class=FileResponse,
    responses={"4XX": {"model": Problem}},
)
async def file(token: str, key: str, context: UseContext) -> FileResponse:
    served = await context.service.open_file(token, key)
    name = key.removeprefix("outputs/").replace("/", "-")
    return FileResponse(
        served.path,
        media_type=served.media_type,
        filename=name,
        content_disposition_type="inline",
        headers=_HEADERS,
    )
