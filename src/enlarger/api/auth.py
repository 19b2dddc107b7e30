"""Who is asking: the bearer key of a request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from enlarger.api.context import UseContext
from enlarger.errors import Unauthorized
from enlarger.jobs.job import Key

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="An API key of this server.")


async def authenticated(
    context: UseContext, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Key:
    """The key of `Authorization: Bearer <key>`. Raises Unauthorized when it is missing, wrong or revoked."""
    if credentials is None:
        raise Unauthorized("the request has no API key: send the header 'Authorization: Bearer <key>'")
    return await context.service.authenticate(credentials.credentials)


Caller = Annotated[Key, Depends(authenticated)]
