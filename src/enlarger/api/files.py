"""Results by link. The link carries its own right: unguessable, signed, and good for a limited time."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse

from enlarger.api.context import UseContext
from enlarger.api.problems import Problem

router = APIRouter(tags=["files"])

# A result is our own encoding of a stranger's picture, an upload is a stranger's bytes: no browser may take either
# for a page.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=86400, immutable",
}


@router.head("/files/{token}/{key:path}", include_in_schema=False)
@router.get(
    "/files/{token}/{key:path}",
    summary="The file of a result or an upload",
    description="A link from `outputs` or the `download_url` of an upload, good for a limited time. Needs no key; "
    "answers HEAD and byte ranges.",
    response_class=FileResponse,
    responses={
        200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "A part of it."},
        304: {"description": "The client has it."},
        "4XX": {"model": Problem},
    },
)
async def file(token: str, key: str, context: UseContext) -> FileResponse:
    served = await context.service.open_file(token, key)
    name = key.partition("/")[2].replace("/", "-")
    return FileResponse(
        served.path,
        media_type=served.media_type,
        filename=name,
        content_disposition_type="inline" if served.inline else "attachment",
        headers=_HEADERS,
    )
