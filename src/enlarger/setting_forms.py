"""Forms of settings that are more than one word: how each is written in an environment variable."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

_POOL = re.compile(r"[a-z][a-z0-9-]{0,31}")
_LONGEST_PAUSE_SECONDS = 604_800


def _listed(value: Any) -> list[Any]:
    return (
        [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)
    )


def _networks(value: Any) -> Any:
    return [ip_network(part) for part in _listed(value)]


def _mirrors(value: Any) -> Any:
    # As `enlarger models pull` reads the same variable.
    mirrors: list[str] = value.split() if isinstance(value, str) else list(value)
    for mirror in mirrors:
        if not mirror.startswith(("http://", "https://")):
            raise ValueError(f"{mirror} is no base URL; it begins with https:// or http://")
    return mirrors


def _pauses(value: Any) -> Any:
    pauses = [float(part) for part in _listed(value)]
    for pause in pauses:
        if not 0 <= pause <= _LONGEST_PAUSE_SECONDS:
            raise ValueError(f"{pause:g} is not a pause; pauses go from 0 to 604800 seconds, a week")
    return pauses


def _ports(value: Any) -> Any:
    ports = [int(part) for part in _listed(value)]
    for port in ports:
        if not 1 <= port <= 65535:
            raise ValueError(f"{port} is not a port; ports go from 1 to 65535")
    return ports


def _pool(text: str) -> str:
    if not _POOL.fullmatch(text):
        raise ValueError(f"{text} is not a pool; they are of lower-case letters, digits and -, at most 32")
    return text


def _words(value: Any) -> Any:
    return [_pool(part) for part in _listed(value)]


def _pools(value: Any) -> Any:
    if isinstance(value, dict):
        return value  # pyright: ignore[reportUnknownVariableType]
    pools: dict[str, str] = {}
    for part in _listed(value):
        model, equals, pool = map(str.strip, part.partition("="))
        if not (model and equals):
            raise ValueError(f"{part} is not model=pool")
        pools[model] = _pool(pool)
    return pools


Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)]
"""Commas between them."""
Ports = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_ports)]
"""Commas between them."""
Pauses = Annotated[tuple[float, ...], NoDecode, BeforeValidator(_pauses)]
"""Seconds, commas between them."""
Mirrors = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_mirrors)]
"""Base URLs, blanks between them."""
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
"""Names of pools, commas between them."""
Sizes = Annotated[tuple[Literal["small", "large"], ...], NoDecode, BeforeValidator(_listed)]
"""Sizes of pictures, commas between them."""
Pools = Annotated[dict[str, str], NoDecode, BeforeValidator(_pools)]
"""Models and the pool of each, model=pool, commas between them."""
