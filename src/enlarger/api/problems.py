"""Problems: every failure in the one shape that all of the vendor's clients can read.

`{"code", "message", "error", "error_code"}`: clients read `message` or `error`, so both carry the sentence;
`error_code` is the stable code of `enlarger.errors`. An answer with status 2xx never has a top-level `error`,
whose mere presence makes one client give up.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from enlarger import errors
from enlarger.jobs.view import VENDOR_CODES

log = logging.getLogger(__name__)

STATUS: dict[type[errors.EnlargerError], int] = {
    errors.EnlargerError: 500,
    errors.InvalidOption: 400,
    errors.InvalidPicture: 400,
    errors.SourceUnreachable: 400,
    errors.FeatureUnavailable: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.AlreadyExists: 412,
    errors.PayloadTooLarge: 413,
    errors.IdempotencyConflict: 422,
    errors.RateLimited: 429,
    errors.Overloaded: 503,
    errors.StorageFull: 507,
    errors.ContentRefused: 400,
    errors.ModelUnavailable: 503,
    errors.RuntimeUnavailable: 503,
    errors.TimedOut: 504,
}
"""HTTP status by class; a class without a row has that of the class it derives from."""


class Problem(BaseModel):
    """The body of every answer that is not a success."""

    code: int = Field(description="The HTTP status, or a code of 1400 and above where the vendor has one.")
    message: str = Field(description="What happened, with the value, the limit and the way out.")
    error: str = Field(description="The same sentence.")
    error_code: str = Field(description="Stable name of the error, e.g. `invalid_option`.")


class RequestError(Exception):
    """A request that cannot become a job, told in the API's own words.

    `code` is the code in the body when it is not the HTTP status.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        error_code: str,
        code: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or status
        self.error_code = error_code
        self.headers = headers


def status_of(error: errors.EnlargerError) -> int:
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def answer(
    status: int,
    message: str,
    error_code: str,
    *,
    code: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    body = Problem(code=code or status, message=message, error=message, error_code=error_code)
    # Not FastAPI's rendering: what is quoted from a request may hold what UTF-8 cannot.
    return Response(json.dumps(body.model_dump()), status, headers, "application/json")


def install(app: FastAPI) -> None:
    """Answer every failure of `app` as a problem."""
    app.add_exception_handler(errors.EnlargerError, _known)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)


async def _known(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.EnlargerError)
    status = status_of(error)
    if status == 500:
        log.error("a request failed", exc_info=error)
    code = VENDOR_CODES.get(error.code) if status == 400 else None
    return answer(status, error.message, error.code, code=code, headers=_headers_of(error))


def _headers_of(error: errors.EnlargerError) -> dict[str, str]:
    if isinstance(error, errors.Unauthorized):
        # RFC 9110: an answer 401 names the scheme it wants.
        return {"WWW-Authenticate": 'Bearer realm="enlarger"'}
    if isinstance(error, errors.Overloaded):
        return {"Retry-After": str(max(1, ceil(error.retry_after_seconds)))}
    return {}


async def _request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return answer(error.status, str(error), error.error_code, code=error.code, headers=error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """What the framework finds wrong with a query parameter or a path."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    message = f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
    code = errors.InvalidOption.code
    return answer(400, message, code, code=VENDOR_CODES[code])


async def _http(request: Request, error: Exception) -> Response:
    """What the router itself refuses: no such route, no such method."""
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    message = f"{phrase}: {request.method} {request.url.path[:200]}"
    return answer(error.status_code, message, phrase.lower().replace(" ", "_"), headers=error.headers)


async def _unforeseen(_: Request, __: Exception) -> Response:
    # Starlette raises the exception again after this answer, and uvicorn logs it with its traceback.
    return answer(500, "the server failed on this request; its log says why", errors.EnlargerError.code)
