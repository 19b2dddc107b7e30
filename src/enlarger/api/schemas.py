"""Schemas: the wire as OpenAPI describes it. Requests follow `Options`, answers follow `jobs.view`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from enlarger.engine.options import Ask, Options, asks
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
    defaults = Options()
    options = {name: _option_schema(getattr(defaults, name), ask) for name, ask in asks().items()}
    return {
        "type": "object",
        "required": ["image"],
        "properties": {"image": image, **options, "guidance_scale": alias},
        "additionalProperties": True,
    }


def _option_schema(default: Any, ask: Ask) -> dict[str, Any]:
    kind = type(ask.choices[0]).__name__ if ask.choices else ask.kind
    schema = {
        "type": _JSON_TYPES[kind],
        "description": ask.doc,
        "default": default,
        "exclusiveMinimum": ask.over,
        "minimum": ask.low,
        "maximum": ask.high,
        "pattern": "^#[0-9A-Fa-f]{6}$" if ask.kind == "colour" else None,
        "enum": list(ask.choices) or None,
    }
    return {name: value for name, value in schema.items() if value is not None}


_JSON_TYPES = {
    "boolean": "boolean",
    "integer": "integer",
    "number": "number",
    "name": "string",
    "colour": "string",
    "str": "string",
    "int": "integer",
}
