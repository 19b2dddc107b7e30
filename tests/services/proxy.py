"""A TCP proxy on loopback that is slow, resets connections or swallows what it gets, when told to."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 16_384
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 seconds: closing sends RST."""


class Proxy:
    """Forwards connections to `target` (host, port). Change the attributes while it runs; they hold at once.

    host: the address it listens on.
    """

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self.target = target
        self.bytes_per_second: float | None = None
        """Rate of each direction of each connection; None: as fast as it goes."""
        self.resets_after_bytes: int | None = None
        """The connection is reset when its client has sent this much; 0: at once."""
        self.resets = 0
        """How many connections were reset."""
        self.sent_bytes = 0
        """What clients have sent so far, over all connections."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, 0))
        self._start(self._accept)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Connections are taken and nothing is passed on, as if a cable were cut; it flows again at the exit."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def reset_all(self) -> None:
        """Reset the connections there are."""
        for open_socket in list(self._sockets):
            _reset(open_socket)

    def close(self) -> None:
        """Reset every connection and take no more."""
        self._closed = True
        self._flowing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset_all()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._flowing.wait()
            if self.resets_after_bytes == 0:
                self.resets += 1
                _reset(client)
                continue
            try:
                server = socket.create_connection(self.target)
            except OSError:
                _reset(client)  # what stands behind is away
                continue
            self._sockets |= {client, server}
            self._start(self._pump, client, server, True)
            self._start(self._pump, server, client, False)

    def _pump(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                self._flowing.wait()
                passed += len(data)
                self.sent_bytes += len(data) if from_client else 0
                if from_client and self.resets_after_bytes is not None and passed > self.resets_after_bytes:
                    self.resets += 1
                    break
                if self.bytes_per_second:
                    time.sleep(len(data) / self.bytes_per_second)
                target.sendall(data)
        for end in (source, target):
            self._sockets.discard(end)
            _reset(end)


def _reset(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
