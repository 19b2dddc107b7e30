"""History: the predictions of a key, page by page, and their end."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from enlarger.api.account import seconds_of
from enlarger.api.auth import Caller
from enlarger.api.context import Context, UseContext
from enlarger.api.envelopes import PROBLEMS, Envelope, asked, body_of, success
from enlarger.api.predictions import shown
from enlarger.api.schemas import Prediction
from enlarger.api.wavespeed import JobId
from enlarger.errors import NotFound
from enlarger.jobs.job import Key

router = APIRouter(tags=["history"], responses=PROBLEMS)

MAX_IDS = 1000


class PageAsked(BaseModel):
    """A page of predictions, newest first; fields other than these are ignored."""

    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(20, ge=1, le=100)
    model: str = Field("", max_length=200, description="Only predictions of this model id.")
    status: Literal["", "created", "processing", "completed", "failed", "cancelled", "timeout"] = Field(
        "", description="Only predictions in this state; none is ever in `timeout`."
    )
    created_after: datetime | None = Field(None, description="ISO 8601; UTC when it names no zone.")
    created_before: datetime | None = Field(None, description="ISO 8601; UTC when it names no zone.")


class PredictionPage(BaseModel):
    page: int
    items: list[Prediction]


class IdsAsked(BaseModel):
    ids: list[str] = Field(max_length=MAX_IDS, description="Unknown ones are skipped.")


class Deleted(BaseModel):
    deleted_count: int


class DeletedOne(BaseModel):
    id: str
    status: Literal["deleted"]


@router.post(
    "/predictions",
    summary="List predictions",
    response_model=Envelope[PredictionPage],
    openapi_extra=body_of(PageAsked, required=False),
)
async def search(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    return success(await _page(request, context, key, await asked(request, PageAsked)))


@router.get("/predictions", summary="The same, by query", response_model=Envelope[PredictionPage])
async def listed(
    wanted: Annotated[PageAsked, Query()], request: Request, context: UseContext, key: Caller
) -> dict[str, Any]:
    return success(await _page(request, context, key, wanted))


@router.post(
    "/predictions/delete",
    summary="Delete predictions and their files",
    response_model=Envelope[Deleted],
    openapi_extra=body_of(IdsAsked),
)
async def delete_many(request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    wanted = await asked(request, IdsAsked)
    return success({"deleted_count": await context.service.delete(key, wanted.ids)})


@router.delete(
    "/predictions/{id}",
    summary="Delete a prediction and its files",
    description="One that has not ended yet is cancelled.",
    response_model=Envelope[DeletedOne],
)
async def delete_one(job_id: JobId, context: UseContext, key: Caller) -> dict[str, Any]:
    if not await context.service.delete(key, [job_id]):
        raise NotFound(f"Prediction not found: {job_id[:64]}")
    return success({"id": job_id, "status": "deleted"})


async def _page(request: Request, context: Context, key: Key, wanted: PageAsked) -> dict[str, Any]:
    jobs = await context.service.history(
        key,
        page=wanted.page,
        page_size=wanted.page_size,
        model=wanted.model,
        status=wanted.status,
        created_after=seconds_of(wanted.created_after) if wanted.created_after else None,
        created_before=seconds_of(wanted.created_before) if wanted.created_before else None,
    )
    return {"page": wanted.page, "items": [await shown(request, context, job) for job in jobs]}
