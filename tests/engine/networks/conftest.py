"""A web server on the loopback interface that misbehaves as told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Site:
    """`answers` are given in turn to the requests for a path, the last one again and again."""

    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    ranges: list[str] = field(default_factory=list)
    """The Range header of every request, empty where there was none."""

    def __setitem__(self, path: str, answers: list[Answer]) -> None:
        self.answers[path] = answers


def send(
    body: bytes,
    *,
    status: int = 200,
    length: int | None = None,
    kind: str = "application/octet-stream",
    headers: tuple[tuple[str, str], ...] = (),
) -> Answer:
    """An answer that says it has `length` bytes, and closes the connection after `body`."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers:
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)

    return answer


def send_part(body: bytes, *, most: int | None = None) -> Answer:
    """An answer of a server that knows Range; it breaks off after `most` bytes."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        span = (("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}"),) if asked else ()
        rest = body[start:]
        send(rest[:most], status=206 if asked else 200, length=len(rest), headers=span)(request)

    return answer


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.ranges.append(self.headers.get("Range", ""))
            answers = found.answers.get(self.path) or [send(b"nothing here", status=404)]
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Request) as server:
        found = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()
