"""A webhook receiver: a real HTTP server on loopback that answers as it is told, and remembers what came."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

DEADLINE_SECONDS = 60
Found = TypeVar("Found")


def eventually(look: Callable[[], Found], what: str) -> Found:
    """What `look` finds, as soon as it finds something true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS} s for {what}"
        time.sleep(0.01)
    return found


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Receiver:
    """Answers the next of `answers`, (status, headers), then 200 for ever; while `hold` is cleared, later."""

    def __init__(self) -> None:
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.received: list[Received] = []
        self.under_way = 0
        self.most_under_way = 0
        self.hold = threading.Event()
        self.hold.set()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?for=me"

    def then(self, *statuses: int, **headers: str) -> None:
        """Answer with these next, one after the other; `Retry_After` is the header Retry-After."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.extend((status, named) for status in statuses)

    def start(self) -> None:
        """Listen, on the same port as before."""

        class Answer(BaseHTTPRequestHandler):
            def do_POST(answer) -> None:  # noqa: N805
                self._answer(answer)

            do_GET = do_POST  # noqa: N815

            def log_message(answer, *_: Any) -> None:  # noqa: N805
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Answer)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """Be gone: connecting is refused until `start`."""
        if self._server is not None and self._thread is not None:
            self.hold.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in request.headers.items()}
        with self._lock:
            self.received.append(Received(request.path, headers, body))
            status, extra = self.answers.popleft() if self.answers else (200, {})
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        self.hold.wait()
        with self._lock:
            self.under_way -= 1
        try:
            request.send_response(status)
            for name, value in {"Content-Length": "0", **extra}.items():
                request.send_header(name, value)
            request.end_headers()
        except OSError:
            return  # the sender has given up
