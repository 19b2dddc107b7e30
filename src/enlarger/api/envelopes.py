"""Envelopes: the body of every success, `{"code": 200, "message": "success", "data": …}`.

A success is HTTP 200 exactly: several clients accept nothing else.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from enlarger.api.bodies import SMALL_BODY_BYTES, json_object, read_body
from enlarger.api.problems import Problem
from enlarger.errors import InvalidOption

Data = TypeVar("Data")
Asked = TypeVar("Asked", bound=BaseModel)

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request cannot be met as it is."},
    "5XX": {"model": Problem, "description": "The server cannot meet it, now or at all."},
}
"""What every route of the API may answer besides its success."""


class Envelope(BaseModel, Generic[Data]):
    """The body of every success."""

    code: Literal[200] = 200
    message: Literal["success"] = "success"
    data: Data


def success(data: Any) -> dict[str, Any]:
    return {"code": 200, "message": "success", "data": data}


async def asked(request: Request, model: type[Asked]) -> Asked:
    """The body of a request as `model`. Raises InvalidOption that names the field, RequestError, PayloadTooLarge."""
    body = await read_body(request, SMALL_BODY_BYTES)
    return checked(model, json_object(body) if body else {})


def checked(model: type[Asked], values: dict[str, Any]) -> Asked:
    """`values` as `model`; null is the same as absent. Raises InvalidOption that names the field."""
    try:
        return model.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidOption(f"{field}: {first['msg']}", field) from error


def body_of(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """The OpenAPI part of a route whose body is read by `asked`."""
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"required": required, "content": content}}
