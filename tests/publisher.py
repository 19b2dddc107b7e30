"""A publisher of weights: a real HTTP server on loopback with one file, of which it holds the second half back."""

from __future__ import annotations

import threading
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from enlarger.engine.networks.catalogue import WeightsFile

PATH = "/weights.pth"


class Publisher:
    """Sends the first half of `content` at once, and the rest when `gate` is set. Knows Range."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.half = len(content) // 2
        self.gate = threading.Event()
        self.starts: list[int] = []
        """Where each request for the file asked to begin."""
        self._is_closing = False

        class Answer(BaseHTTPRequestHandler):
            def do_GET(answer) -> None:  # noqa: N805
                self._answer(answer)

            def log_message(answer, *_: Any) -> None:  # noqa: N805
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def published(self, file: WeightsFile, name: str = "weights.pth") -> WeightsFile:
        """A row for `name` that has the content of this publisher, in place of `file`."""
        digest = sha256(self.content).hexdigest()
        return replace(file, name=name, url=f"{self.url}{PATH}", sha256=digest, bytes=len(self.content))

    def stop(self) -> None:
        self._is_closing = True
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path != PATH:
            request.send_error(404)
            return
        asked = request.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.starts.append(start)
        request.send_response(206 if asked else 200)
        if asked:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.send_header("Content-Length", str(len(self.content) - start))
        request.end_headers()
        try:
            request.wfile.write(self.content[start : max(start, self.half)])
            self.gate.wait()
            if not self._is_closing:
                request.wfile.write(self.content[max(start, self.half) :])
        except OSError:
            return  # the client has given up
