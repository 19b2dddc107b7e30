"""A proxy that counts the HTTP requests that pass it, by method and first part of the key."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter

_REQUEST = re.compile(rb"(GET|PUT|HEAD|POST|DELETE) (/\S*) HTTP/1\.1\r\n")
_CHUNK_BYTES = 1 << 16


class CountingProxy:
    """Passes connections on to `target`, a port of loopback. The bench sends small bodies: a request line is
    never cut in two by a chunk that a client wrote at once."""

    def __init__(self, target: int) -> None:
        self.counted: Counter[str] = Counter()
        self.port = 0
        self._target = target
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(
            self._pass_on(reader, far_writer, counts=True), self._pass_on(far_reader, writer, counts=False)
        )

    async def _pass_on(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, counts: bool
    ) -> None:
        while data := await source.read(_CHUNK_BYTES):
            if counts:
                for method, path in _REQUEST.findall(data):
                    self.counted[f"{method.decode()} {_kind(path.decode())}"] += 1
            target.write(data)
            await target.drain()
        target.close()


def _kind(path: str) -> str:
    """`outputs` of `/bucket/outputs/…`; `list` of a listing."""
    path, _, query = path.partition("?")
    if "list-type" in query:
        return "list"
    if "delete" in query:
        return "delete-many"
    return path.split("/")[2] if path.count("/") >= 2 else path
