"""The catalogue: which models this server has, what they take, and that they cost nothing."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from enlarger.api.auth import Caller
from enlarger.api.context import UseContext
from enlarger.api.envelopes import PROBLEMS, Envelope, asked, body_of, success
from enlarger.api.packing import packed_json
from enlarger.api.problems import RequestError
from enlarger.api.schemas import request_schema
from enlarger.engine.networks.cards import models as networks_of
from enlarger.errors import NotFound
from enlarger.settings import Settings

router = APIRouter(tags=["catalogue"], responses=PROBLEMS)

MODEL = "wavespeed-ai/real-esrgan"
ALIASES = ("nightmareai/real-esrgan",)
"""Other names that clients use for the same model."""

_LIMITS = (
    "max_inline_bytes",
    "max_upload_bytes",
    "max_input_bytes",
    "max_input_megapixels",
    "max_output_megapixels",
)
"""Settings that a form can tell before a picture is sent."""
_PRICE = 0.0
"""Nobody is billed here, yet clients show a price before they submit."""


class ModelSchema(BaseModel):
    """How to run a model over HTTP."""

    type: str = "model_run"
    method: str = "POST"
    server: str
    api_path: str
    request_schema: dict[str, Any]


class ModelSchemas(BaseModel):
    api_schemas: list[ModelSchema]


class CatalogueEntry(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    name: str
    base_price: float = Field(description="US dollars a run: 0.")
    description: str
    type: str
    sort_order: int
    api_schema: ModelSchemas


class PriceAsked(BaseModel):
    """The run to be priced; its inputs make no difference."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str = Field(description=f"`{MODEL}`.", examples=[MODEL])
    inputs: dict[str, Any] = Field(default_factory=dict[str, Any])


class Price(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    price: float = Field(description="0.")
    discounted_price: float = Field(description="0.")
    discount_rate: float = Field(description="0.")
    currency: str


class UnitPrice(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    unit_price: float = Field(description="0.")
    currency: str


@router.get("/models", summary="The models of this server", response_model=Envelope[list[CatalogueEntry]])
async def models(request: Request, context: UseContext, _: Caller) -> Response:
    run = ModelSchema(
        server=context.base_url(request),
        api_path=f"/api/v3/{MODEL}",
        request_schema=_of_this_server(request_schema(), context.settings),
    )
    entry = CatalogueEntry(
        model_id=MODEL,
        name=MODEL,
        base_price=_PRICE,
        description="Real-ESRGAN: enlarge a picture by any factor up to 10.",
        type="image-to-image",
        sort_order=1,
        api_schema=ModelSchemas(api_schemas=[run]),
    )
    # The schema is long, and the first thing the page asks for.
    return packed_json(request, json.dumps(success([entry.model_dump()])))


@router.post(
    "/model/price",
    summary="The price of a run",
    response_model=Envelope[Price],
    openapi_extra=body_of(PriceAsked),
)
async def price(request: Request, _: Caller) -> dict[str, Any]:
    return success(
        {
            "model_id": await _known_model(request),
            "price": _PRICE,
            "discounted_price": _PRICE,
            "discount_rate": 0.0,
            "currency": "USD",
        }
    )


@router.post(
    "/model/pricing",
    summary="The same, in its older form",
    response_model=Envelope[UnitPrice],
    openapi_extra=body_of(PriceAsked),
)
async def pricing(request: Request, _: Caller) -> dict[str, Any]:
    return success({"model_id": await _known_model(request), "unit_price": _PRICE, "currency": "USD"})


def _of_this_server(schema: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The schema of a request with what differs from server to server: the networks there are, and the limits."""
    networks = [{"value": "auto", "description": "Chosen by scale and cost."}] + [
        {"value": spec.name, "description": spec.summary}
        for spec in networks_of(settings.weights_dir).values()
    ]
    properties = {**schema["properties"], "model": {**schema["properties"]["model"], "x-choices": networks}}
    limits = {name: getattr(settings, name) for name in _LIMITS}
    return {**schema, "properties": properties, "x-limits": limits}


def model_not_found(name: str) -> RequestError:
    """The vendor answers 400, not 404, for a model it does not have."""
    return RequestError(
        400, f"model not found: {name[:200]!r}; this server has {MODEL}", error_code=NotFound.code
    )


async def _known_model(request: Request) -> str:
    name = (await asked(request, PriceAsked)).model_id
    if name not in (MODEL, *ALIASES):
        raise model_not_found(name)
    return name
