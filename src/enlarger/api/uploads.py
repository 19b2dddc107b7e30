"""Uploads: a picture sent ahead of its submit. By ticket, or as a form in one request."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from enlarger.api.auth import Caller
from enlarger.api.bodies import body_chunks
from enlarger.api.context import Context, UseContext, is_own_page
from enlarger.api.envelopes import PROBLEMS, Envelope, asked, body_of, success
from enlarger.api.multipart import FIELD, file_part
from enlarger.jobs.blobs import DirectPut
from enlarger.jobs.job import Key
from enlarger.jobs.uploads import Upload
from enlarger.jobs.view import rfc3339

router = APIRouter(tags=["uploads"], responses=PROBLEMS)
files_router = APIRouter(tags=["uploads"], responses=PROBLEMS)
"""Where the files of tickets go: outside the API, for the address itself is the permission."""

_ANY_TYPE = "application/octet-stream"
_UNNAMED = "upload"
_BYTES = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "required": [FIELD], "properties": {FIELD: _BYTES}}


class TicketAsked(BaseModel):
    """The file to come."""

    filename: str = Field(min_length=1, max_length=1000)
    size: int = Field(ge=1, description="Bytes.")
    content_type: str = Field("", max_length=200, description="Media type, e.g. `image/png`.")


class UploadInstruction(BaseModel):
    """Send the bytes of the file like this, without the key."""

    method: Literal["PUT"]
    url: str
    headers: dict[str, str]
    expires_at: str


class Uploaded(BaseModel):
    type: Literal["image"]
    download_url: str = Field(description="What goes into `image`.")
    filename: str
    size: int


class Ticket(Uploaded):
    upload: UploadInstruction


class Received(BaseModel):
    size: int


@router.post(
    "/media/uploads",
    summary="Get a ticket for an upload",
    response_model=Envelope[Ticket],
    openapi_extra=body_of(TicketAsked),
)
async def create(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    wanted = await asked(request, TicketAsked)
    ticket = await context.service.create_upload(
        key, wanted.filename, wanted.size, wanted.content_type, may_be_direct=not is_own_page(request)
    )
    base = context.base_url(request)
    way = ticket.direct or DirectPut(
        f"{base}/uploads/{ticket.token}",
        {"Content-Type": wanted.content_type or _ANY_TYPE, "If-None-Match": "*"},
        ticket.upload.expires_at,
    )
    instruction = {
        "method": "PUT",
        "url": way.url,
        "headers": dict(way.headers),
        "expires_at": rfc3339(way.expires_at),
    }
    return success({**_told(context, base, ticket.upload, wanted.size), "upload": instruction})


@router.post(
    "/media/upload/binary",
    summary="Upload a picture as a form",
    response_model=Envelope[Uploaded],
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload_form(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    upload, size = await _received(request, context, key)
    return success(_told(context, context.base_url(request), upload, size))


@router.post("/upload", include_in_schema=False)
@router.post("/uploads", include_in_schema=False)
async def upload_form_older(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    """Names that the vendor's documents have had for the form; clients of these look for `data.url`."""
    upload, size = await _received(request, context, key)
    told = _told(context, context.base_url(request), upload, size)
    return success({**told, "url": told["download_url"]})


@files_router.put(
    "/uploads/{token}",
    summary="Send the file of a ticket",
    description="The body is the file itself. Works once and needs no key; what breaks off leaves nothing behind.",
    response_model=Envelope[Received],
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": _BYTES}}}
    },
)
async def receive(token: str, request: Request, context: UseContext) -> dict[str, Any]:
    async with aclosing(body_chunks(request)) as chunks:
        upload = await context.service.receive_upload(token, chunks)
    return success({"size": upload.size})


async def _received(request: Request, context: Context, key: Key) -> tuple[Upload, int]:
    content_type = request.headers.get("content-type", "")
    async with aclosing(body_chunks(request)) as body:
        part = await file_part(content_type, body)
        async with aclosing(part.chunks):
            filename = part.filename or _UNNAMED
            ticket = await context.service.create_upload(key, filename, None, part.content_type)
            upload = await context.service.receive_upload(ticket.token, part.chunks)
    return upload, upload.size or 0


def _told(context: Context, base: str, upload: Upload, size: int) -> dict[str, Any]:
    return {
        "type": "image",
        "download_url": context.service.link(upload.blob_key, base),
        "filename": upload.filename,
        "size": size,
    }
