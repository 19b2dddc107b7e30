"""Guard: the one way out to URLs that users give, of pictures and of webhooks.

A name is resolved once, every answer is judged, and the socket is opened to a judged address, so there is no second
look-up that could answer differently. Redirects pass the same gate. Time, size and ports are bounded.
Messages avoid some words ("timeout", "connection", status 429) at which vendor clients run a job again.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import httpcore2
import httpx2

from enlarger.errors import AddressRefused, PictureTooLarge, SourceUnreachable
from enlarger.jobs.addresses import Address, Network, refusal

logger = logging.getLogger(__name__)

Resolver = Callable[[str, int], Awaitable[list[Address]]]
"""Name and port to addresses; raises OSError when there is none."""

MAX_REDIRECTS = 3
_MAX_ADDRESSES = 3
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
_PICTURES = (b"Accept", b"image/*, */*;q=0.5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one exchange may cost and where it may lead."""

    max_bytes: int
    """Largest body of an answer; that of a post is not read."""
    total_seconds: float
    """From the first look-up of a name to the last byte, redirects included."""
    connect_seconds: float = 10.0
    read_seconds: float = 20.0
    """Longest silence of the server."""
    allow_private_networks: tuple[Network, ...] = ()
    allow_ports: tuple[int, ...] = ()
    subject: str = "picture"
    """Whose URL it is, for messages."""
    time_setting: str = "fetch_seconds"
    """The setting that `total_seconds` comes from, for messages."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a post. `retry_after` is its header as sent, empty if there was none."""

    status: int
    retry_after: str


async def system_resolver(host: str, port: int) -> list[Address]:
    """All addresses the system knows for the name, in its order of preference."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(answer[4][0]) for answer in answers]


async def fetch(url: str, target: Path, limits: Limits, resolver: Resolver = system_resolver) -> int:
    """Download `url` into the file `target`; returns its size in bytes.

    Raises AddressRefused (not public, port, scheme), SourceUnreachable (name, network, status, time) and
    PictureTooLarge. `target` may hold a part of the file then.
    """
    async with _way_out(limits, resolver) as pool:
        return await _follow(pool, checked_url(url, limits), target, limits)


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    limits: Limits,
    resolver: Resolver = system_resolver,
) -> Answer:
    """Send `body` to `url`, once; redirects are answers like any other and are not followed.

    Raises AddressRefused and SourceUnreachable as `fetch`.
    """
    async with _way_out(limits, resolver) as pool:
        target = checked_url(url, limits)
        own = [(name.encode(), value.encode()) for name, value in headers.items()]
        length = (b"Content-Length", str(len(body)).encode())
        # The answer's body is left unread: its length is the receiver's choice, its content is of no use.
        async with pool.stream(
            "POST",
            _raw(target),
            headers=[*_headers(target), length, *own],
            content=body,
            extensions=_timeouts(limits),
        ) as response:
            found = {name.lower(): value for name, value in response.headers}
            return Answer(response.status, found.get(b"retry-after", b"").decode("latin-1"))


@asynccontextmanager
async def _way_out(limits: Limits, resolver: Resolver) -> AsyncGenerator[httpcore2.AsyncConnectionPool]:
    """A pool for one exchange, over judged addresses and within its time; network failures become our errors."""
    subject = limits.subject
    pool = httpcore2.AsyncConnectionPool(
        ssl_context=_tls(), max_connections=1, network_backend=_GuardedBackend(limits, resolver)
    )
    deadline = asyncio.timeout(limits.total_seconds)
    try:
        async with deadline, pool:
            yield pool
    except TimeoutError as error:
        if not deadline.expired():
            raise SourceUnreachable(f"The server of the {subject} does not answer in time") from error
        raise SourceUnreachable(
            f"The {subject} took longer than {limits.time_setting} ({limits.total_seconds:g} s)"
        ) from error
    except httpcore2.TimeoutException as error:
        raise SourceUnreachable(f"The server of the {subject} does not answer in time") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise SourceUnreachable(f"The server of the {subject} cannot be reached or breaks off") from error


async def _follow(pool: httpcore2.AsyncConnectionPool, url: httpx2.URL, target: Path, limits: Limits) -> int:
    for _ in range(MAX_REDIRECTS + 1):
        async with pool.stream(
            "GET", _raw(url), headers=[*_headers(url), _PICTURES], extensions=_timeouts(limits)
        ) as response:
            headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            location = headers.get(b"location")
            if response.status not in _REDIRECTS or location is None:
                _check_answer(response.status, headers, limits)
                return await _save(response, target, limits)
        url = redirected(url, location, limits)
    raise SourceUnreachable(f"The picture's URL redirects more than {MAX_REDIRECTS} times")


def checked_url(text: str | httpx2.URL, limits: Limits) -> httpx2.URL:
    """The URL, if its scheme, port and form are ones to follow; raises AddressRefused or SourceUnreachable."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        raise SourceUnreachable(f"The {limits.subject}'s URL is not valid: {error}") from error
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise AddressRefused(
            f"The {limits.subject}'s URL must start with http:// or https:// and name a host"
        )
    if url.userinfo:
        raise AddressRefused(f"The {limits.subject}'s URL must not carry a user name or password")
    port = _DEFAULT_PORTS[url.scheme] if url.port is None else url.port
    if port not in (*_DEFAULT_PORTS.values(), *limits.allow_ports):
        raise AddressRefused(
            f"The {limits.subject}'s URL names port {port}; this server goes to 80 and 443 only, "
            "and to those its operator adds in ENLARGER_ALLOW_PORTS"
        )
    return url


def redirected(url: httpx2.URL, location: str, limits: Limits) -> httpx2.URL:
    """Where `url` leads on to by a Location header; raises as `checked_url`, also when https leads to http."""
    try:
        target = checked_url(url.join(location), limits)
    except httpx2.InvalidURL as error:
        raise SourceUnreachable(
            f"The {limits.subject}'s URL redirects to one that is not valid: {error}"
        ) from error
    if url.scheme == "https" and target.scheme == "http":
        raise AddressRefused(f"The {limits.subject}'s URL redirects from https to http")
    return target


def _check_answer(status: int, headers: dict[bytes, str], limits: Limits) -> None:
    if status != HTTPStatus.OK:
        shown = "“too many requests”" if status == HTTPStatus.TOO_MANY_REQUESTS else f"status {status}"
        raise SourceUnreachable(f"The server of the picture answers {shown} instead of 200")
    if headers.get(b"content-encoding", "identity").lower() != "identity":
        raise SourceUnreachable("The server of the picture sends it compressed although asked not to")
    length = headers.get(b"content-length", "")
    if length.isdigit() and int(length) > limits.max_bytes:
        raise _too_large(limits)


async def _save(response: httpcore2.Response, target: Path, limits: Limits) -> int:
    size = 0
    with target.open("wb") as file:
        async for chunk in response.aiter_stream():
            size += len(chunk)
            if size > limits.max_bytes:
                raise _too_large(limits)
            await asyncio.to_thread(file.write, chunk)
    return size


def _too_large(limits: Limits) -> PictureTooLarge:
    return PictureTooLarge(f"The picture's file is larger than max_input_bytes ({limits.max_bytes} bytes)")


def _raw(url: httpx2.URL) -> httpcore2.URL:
    return httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _headers(url: httpx2.URL) -> list[tuple[bytes, bytes]]:
    return [
        (b"Host", url.netloc),
        (b"User-Agent", b"enlarger"),
        (b"Accept-Encoding", b"identity"),
    ]


def _timeouts(limits: Limits) -> dict[str, dict[str, float]]:
    read, connect = limits.read_seconds, limits.connect_seconds
    return {"timeout": {"connect": connect, "read": read, "write": read, "pool": connect}}


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the system's certificates takes tens of milliseconds; once is enough.
    return httpcore2.default_ssl_context()


class _GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens sockets to judged addresses only. TLS, if any, is spoken on top and still checks the name."""

    def __init__(self, limits: Limits, resolver: Resolver) -> None:
        self._limits = limits
        self._resolver = resolver
        self._plain = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failure: httpcore2.NetworkError | httpcore2.TimeoutException | None = None
        for address in (await self._judged(host, port))[:_MAX_ADDRESSES]:
            try:
                return await self._plain.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    async def _judged(self, host: str, port: int) -> list[Address]:
        """The addresses of the host, if one may go to every one of them: a single bad answer condemns the name."""
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise SourceUnreachable(
                f"No address is known for the host of the {self._limits.subject}, {host[:100]}"
            ) from error
        for address in addresses:
            if kind := refusal(address, self._limits.allow_private_networks):
                logger.warning("Refused to go to %s at %s (%s)", host, address, kind)
                raise AddressRefused(
                    f"The host of the {self._limits.subject}, {host[:100]}, leads to an address "
                    f"that is not public ({kind}); "
                    "the operator can allow its network in ENLARGER_ALLOW_PRIVATE_NETWORKS"
                )
        return addresses
