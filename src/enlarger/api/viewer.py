"""The viewer: pictures of a prediction tile by tile, and the report of how its result came to be."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from enlarger.api.auth import Caller
from enlarger.api.context import Context, UseContext
from enlarger.api.envelopes import PROBLEMS, Envelope, success
from enlarger.api.problems import Problem
from enlarger.api.wavespeed import JobId
from enlarger.jobs.job import Job
from enlarger.jobs.viewer import INPUT, output

router = APIRouter(tags=["viewer"], responses=PROBLEMS)
tiles_router = APIRouter(tags=["viewer"])

# As for files: no browser may take a picture for a page.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=86400, immutable",
}
_MOST = 10**6

OutputIndex = Annotated[int, Path(alias="n", ge=0, le=_MOST, description="Index in `outputs`, from 0.")]
Place = Annotated[int, Path(ge=0, le=_MOST)]


class ViewerLevel(BaseModel):
    """One zoom of a picture, in pixels, and its tiles."""

    width: int
    height: int
    columns: int
    rows: int


class View(BaseModel):
    """A picture that can be looked at tile by tile."""

    width: int
    height: int
    tile_size: int = Field(
        description="Width and height of every tile, pixels; those at the right and lower edge are padded."
    )
    media_type: str = Field(
        description="Of the tiles: `image/webp` where the picture has alpha, else `image/jpeg`."
    )
    levels: list[ViewerLevel] = Field(
        description="The whole picture first; each further level is half of the one before, rounded down."
    )
    url: str = Field(
        description="Of the tiles, with `{level}`, `{column}` and `{row}`, each from 0. Needs no key."
    )


class OutputFacts(BaseModel):
    """What a result is."""

    media_type: str
    width: int
    height: int
    bytes: int
    sha256: str


class Report(BaseModel):
    """How a result came to be."""

    outputs: list[OutputFacts] = Field(
        description="As in `outputs` of the prediction; empty until it is completed."
    )
    queued_ms: int | None = Field(description="Time until work on it began; null while it waits.")
    total_ms: int | None = Field(description="Time from submit to end; null until it has ended.")
    report: dict[str, Any] = Field(description="What the engine did; empty until it is completed.")


@router.get(
    "/predictions/{id}/outputs/{n}/viewer",
    summary="Look at a result tile by tile",
    description="Answers once the tiles are there: the first time that takes some seconds for a large picture. It is "
    "shown in sRGB with 8 bits a sample; of an animation, its first frame.",
    response_model=Envelope[View],
)
async def output_viewer(
    job_id: JobId, index: OutputIndex, request: Request, context: UseContext, key: Caller
) -> dict[str, Any]:
    return await _viewed(context, request, await context.service.get(key, job_id), output(index))


@router.get(
    "/predictions/{id}/input/viewer",
    summary="Look at the input tile by tile",
    description="The picture as it was sent, upright as its EXIF orientation wants it, as results are.",
    response_model=Envelope[View],
)
async def input_viewer(job_id: JobId, request: Request, context: UseContext, key: Caller) -> dict[str, Any]:
    return await _viewed(context, request, await context.service.get(key, job_id), INPUT)


@router.get(
    "/predictions/{id}/report",
    summary="How a result came to be",
    description="What the engine did, with its timings, and what the result is.",
    response_model=Envelope[Report],
)
async def report(job_id: JobId, context: UseContext, key: Caller) -> dict[str, Any]:
    job = await context.service.get(key, job_id)
    facts = [OutputFacts.model_validate(output, from_attributes=True) for output in job.outputs]
    return success(
        {
            "outputs": facts,
            "queued_ms": _milliseconds(job.created_at, job.started_at),
            "total_ms": _milliseconds(job.created_at, job.finished_at),
            "report": dict(job.report),
        }
    )


@tiles_router.get(
    "/tiles/{token}/{id}/{picture}/{level}/{column}/{row}",
    summary="A tile of a picture",
    description="By the `url` that a viewer route gives, good for a limited time. Needs no key.",
    response_class=Response,
    responses={
        200: {"content": {"image/*": {"schema": {"type": "string", "format": "binary"}}}},
        "4XX": {"model": Problem},
    },
)
async def tile(
    token: str, job_id: JobId, picture: str, level: Place, column: Place, row: Place, context: UseContext
) -> Response:
    found = await context.viewer.tile(token, job_id, picture, (level, column, row))
    return Response(found.data, media_type=found.media_type, headers=_HEADERS)


async def _viewed(context: Context, request: Request, job: Job, picture: str) -> dict[str, Any]:
    return success(await context.viewer.view(job, picture, context.base_url(request)))


def _milliseconds(start: float, end: float | None) -> int | None:
    # Of two machines, whose clocks agree to a few milliseconds.
    return None if end is None else max(0, round(1000 * (end - start)))
