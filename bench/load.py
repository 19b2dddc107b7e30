"""Load on an HTTP server: requests that come by schedule, however slow the answers are (open loop)."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any


class Wire:
    """One request, always the same, over keep-alive connections.

    Written by hand: a full client takes as much CPU for a request as the server does, on the same cores.
    """

    def __init__(self, url: str, key: str, method: str, path: str, body: bytes = b"") -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        head = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Authorization: Bearer {key}"]
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        self._request = "\r\n".join(head).encode() + body
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self) -> int:
        """The HTTP status, when the whole answer is there."""
        reader, writer = await self._connection()
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
        self._free.append((reader, writer))
        return int(head.split(maxsplit=2)[1])

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # the server may have closed it while it was idle
                return reader, writer
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def open_loop(wire: Wire, rate: float, seconds: float) -> dict[str, Any]:
    """Send `rate` requests a second for `seconds`; how long they took from when each was due, in ms."""
    taken: list[float] = []
    errors: list[str] = []

    async def one(due: float) -> None:
        try:
            if (status := await wire.send()) != 200:
                errors.append(f"HTTP {status}")
        except (OSError, EOFError) as error:
            errors.append(repr(error))
        taken.append((time.perf_counter() - due) * 1000)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(round(rate * seconds)):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    elapsed = time.perf_counter() - started
    wire.close()
    cuts = statistics.quantiles(taken, n=100, method="inclusive")
    return {
        "rate_per_second": rate,
        "requests": len(taken),
        "answered_per_second": round(len(taken) / elapsed, 1),
        "errors": len(errors),
        "first_error": next(iter(errors), ""),
        **{f"p{level}_ms": round(cuts[level - 1], 1) for level in (50, 95, 99)},
        "max_ms": round(max(taken), 1),
    }
