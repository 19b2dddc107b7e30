"""Schemas: the wire as OpenAPI describes it. Requests follow `Options`, answers follow `jobs.view`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from enlarger.api.submission import OUTPUT_FORMAT
from enlarger.engine.options import FACES_PATTERN, Ask, Options, asks
from enlarger.jobs.job import State


class Prediction(BaseModel):
    """A job, as the API shows it."""

    id: str = Field(description="32 lower-case hex characters.")
    model: str = Field(description="The model id it was submitted to.")
    input: dict[str, Any] = Field(description="The request, without inline picture bytes.")
    outputs: list[str] = Field(
        description="One link when completed, or the file as base64 where that was asked for; else empty."
    )
    urls: dict[str, str] = Field(description="`get`: where to poll.")
    has_nsfw_contents: list[bool] = Field(description="One value per output.")
    status: State
    created_at: str = Field(description="RFC 3339, UTC.")
    error: str = Field(description="Why it failed; empty when it did not.")
    code: int = Field(description="0, or the reason: 1xxx do not retry, 5xxx retry later.")
    execution_time: int = Field(alias="executionTime", description="Milliseconds of computing.")
    timings: dict[str, int] = Field(description="`inference`: milliseconds of computing.")
    progress: float = Field(ge=0, le=1, description="Share of the computation that is done.")
    stage: str = Field(
        description="What it waits for before it is computed, e.g. weights being fetched; empty else."
    )
    queue_position: int | None = Field(description="Jobs that come before it; null once it has ended.")
    eta_seconds: float | None = Field(description="Estimated time to its end; null once it has ended.")


def request_schema() -> dict[str, Any]:
    """JSON Schema of a submit: `image` and the fields of `Options`."""
    image = {
        "type": "string",
        "description": "The picture: an http(s) URL, the `download_url` of an upload, a data URI, or base64.",
        "examples": ["https://example.com/photo.jpg"],
    }
    alias = {"type": "number", "description": "Older name of `scale`, read when `scale` is absent."}
    defaults = Options(output_format=OUTPUT_FORMAT)
    options = {name: _option_schema(getattr(defaults, name), ask) for name, ask in asks().items()}
    properties = {"image": image, **options, "guidance_scale": alias, **_CALL_FIELDS}
    return {
        "type": "object",
        "required": ["image"],
        "properties": properties,
        "x-order-properties": list(properties),
        "additionalProperties": True,
    }


_CALL_FIELDS: dict[str, dict[str, Any]] = {
    "enable_sync_mode": {
        "type": "boolean",
        "default": False,
        "description": "Answer when the prediction has ended, or with code 5004 when that takes too long.",
    },
    "enable_base64_output": {
        "type": "boolean",
        "default": False,
        "description": "Show the file itself in `outputs`, as base64, in place of its link. Not with a webhook.",
    },
    "webhook_url": {
        "type": "string",
        "format": "uri",
        "description": "The same as the query parameter `webhook`, which wins.",
    },
}
"""What is asked of the call, not of the picture."""


def _option_schema(default: Any, ask: Ask) -> dict[str, Any]:
    known = _JSON_TYPES[ask.kind] if not ask.choices else _JSON_TYPES[type(ask.choices[0]).__name__]
    schema = {
        "type": known,
        "description": ask.doc,
        "default": default,
        "exclusiveMinimum": ask.over,
        "minimum": ask.low,
        "maximum": ask.high,
        "pattern": _PATTERNS.get(ask.kind),
        "enum": list(ask.choices) or None,
    }
    return {name: value for name, value in schema.items() if value is not None}


_PATTERNS = {
    "colour": "^#[0-9A-Fa-f]{6}$",
    "name": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
    "faces": f"^{FACES_PATTERN}$",
}
_JSON_TYPES = {
    "boolean": "boolean",
    "integer": "integer",
    "number": "number",
    "name": "string",
    "colour": "string",
    "faces": "string",
    "str": "string",
    "int": "integer",
}
