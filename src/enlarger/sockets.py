"""Sockets: where the server listens, and what its address is called."""

from __future__ import annotations

import errno
import socket

from enlarger.errors import InvalidOption

_PORTS_TRIED = 100


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `port`, or on the next free one. Raises InvalidOption when there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InvalidOption(
            f"host {host!r} is no address of this machine: {error.strerror}", "host"
        ) from error
    last = min(port + _PORTS_TRIED - 1, 65535) if port else 0
    for candidate in range(port, last + 1):
        # With protocol 0 asyncio leaves Nagle's algorithm on, and every answer takes 40 ms.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], candidate))
            listener.listen()
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise InvalidOption(
                    f"cannot listen on {host} port {candidate}: {error.strerror}", "host"
                ) from error
        else:
            return listener
    raise InvalidOption(f"ports {port} to {last} are all in use; choose another with ENLARGER_PORT", "port")


def url_of(listener: socket.socket) -> str:
    """The server as a browser on this machine reaches it."""
    bound, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(bound), str(bound))
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
