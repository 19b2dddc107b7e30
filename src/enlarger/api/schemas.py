"""Schemas: the wire as OpenAPI describes it. Requests follow `Options`, answers follow `jobs.view`."""

from __future__ import annotations

from dataclasses import Field as OptionField
from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, Field

from enlarger.engine.options import Options
from enlarger.jobs.job import State


class Prediction(BaseModel):
    """A job, as the API shows it."""

    id: str = Field(description="32 lower-case hex characters.")
    model: str = Field(description="The model id it was submitted to.")
    input: dict[str, Any] = Field(description="The request, without inline picture bytes.")
    outputs: list[str] = Field(description="One link when completed, else empty.")
    urls: dict[str, str] = Field(description="`get`: where to poll.")
    has_nsfw_contents: list[bool] = Field(description="One value per output.")
    status: State
    created_at: str = Field(description="RFC 3339, UTC.")
    error: str = Field(description="Why it failed; empty when it did not.")
    code: int = Field(description="0, or the reason: 1xxx do not retry, 5xxx retry later.")
    execution_time: int = Field(alias="executionTime", description="Milliseconds of computing.")
    timings: dict[str, int] = Field(description="`inference`: milliseconds of computing.")


class Envelope(BaseModel):
    """The body of every success."""

    code: Literal[200] = 200
    message: Literal["success"] = "success"
    data: Prediction


def request_schema() -> dict[str, Any]:
    """JSON Schema of a submit: `image` and the fields of `Options`."""
    image = {
        "type": "string",
        "description": "The picture: an http(s) URL, a data URI, or base64.",
        "examples": ["https://example.com/photo.jpg"],
    }
    alias = {"type": "number", "description": "Older name of `scale`, read when `scale` is absent."}
    options = {spec.name: _option_schema(spec) for spec in fields(Options)}
    return {
        "type": "object",
        "required": ["image"],
        "properties": {"image": image, **options, "guidance_scale": alias},
        "additionalProperties": True,
    }


def _option_schema(spec: OptionField[Any]) -> dict[str, Any]:
    known = spec.metadata
    default: Any = spec.default
    schema = {
        "type": _JSON_TYPES[type(default)],
        "description": known["doc"],
        "default": default,
        "exclusiveMinimum": known["over"],
        "minimum": known["low"],
        "maximum": known["high"],
        "enum": list(known["choices"]) or None,
    }
    return {name: value for name, value in schema.items() if value is not None}


_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
