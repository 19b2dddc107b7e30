"""Results by link. The link carries its own right: unguessable, signed, and good for a limited time."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, RedirectResponse, Response

from enlarger.api.context import UseContext, is_own_page
from enlarger.api.problems import Problem
from enlarger.jobs.files import CACHING, ServedFile

router = APIRouter(tags=["files"])

# A result is our own encoding of a stranger's picture, an upload is a stranger's bytes: no browser may take either
# for a page.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": CACHING,
}

Name = Annotated[
    str,
    Query(
        max_length=150,
        pattern=r"^[^\x00-\x1f\x7f/\\]*$",
        description="What a browser saves it as; the extension is that of the file.",
    ),
]


async def _found(
    request: Request, token: str, key: str, context: UseContext
) -> AsyncGenerator[ServedFile | str]:
    """The file, until the answer is sent; or where the store hands it out itself."""
    url = None if is_own_page(request) else await context.service.direct_url(token, key, request.method)
    if url is not None:
        yield url
        return
    async with context.service.open_file(token, key) as served:
        yield served


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
        307: {"description": "The object store has it: follow `Location`."},
        304: {"description": "The client has it."},
        "4XX": {"model": Problem},
    },
)
async def file(found: Annotated[ServedFile | str, Depends(_found)], name: Name = "") -> Response:
    if isinstance(found, str):
        # The link stays good for days, where it leads to only for minutes.
        return RedirectResponse(found, HTTPStatus.TEMPORARY_REDIRECT, {"Cache-Control": "no-store"})
    return FileResponse(
        found.path,
        media_type=found.media_type,
        filename=_saved_as(name, found.filename),
        content_disposition_type=found.disposition,
        headers=_HEADERS,
    )


def _saved_as(name: str, made: str) -> str:
    return PurePosixPath(name).stem + PurePosixPath(made).suffix if name else made
