"""Who is asking: the bearer key of a request. What a key may do, the service checks."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from enlarger.api.context import UseContext
from enlarger.errors import Unauthorized
from enlarger.jobs.job import Key, Scope

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="An API key of this server.")


async def secret_of(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> str:
    """The secret of `Authorization: Bearer <key>`, not checked yet. Raises Unauthorized when there is none."""
    if credentials is None:
        raise Unauthorized("the request has no API key: send the header 'Authorization: Bearer <key>'")
    return credentials.credentials


Secret = Annotated[str, Depends(secret_of)]


async def authenticated(context: UseContext, secret: Secret) -> Key:
    """The key of the request. Raises Unauthorized when it is missing, wrong or no longer valid."""
    return await context.service.authenticate(secret)


Caller = Annotated[Key, Depends(authenticated)]


async def administrator(context: UseContext, key: Caller) -> Key:
    """The key of the request, which may see the whole server. Raises Unauthorized, Forbidden."""
    context.service.require(key, Scope.ADMIN)
    return key


Admin = Annotated[Key, Depends(administrator)]
