"""The server as its users start it: a process of its own, a data folder, an address printed on stdout."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from PIL import Image

from ..receiver import Receiver

DEADLINE_SECONDS = 120
Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], what: str) -> Found:
    """What `look` finds, as soon as it finds something true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS} s for {what}"
        time.sleep(0.01)
    return found


class Server:
    """`enlarger serve` over one data folder; may be killed and started again, on the same port."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.url = self.key = ""
        self._settings = {"ENLARGER_DATA_DIR": str(data_dir), "ENLARGER_PORT": "0", **settings}
        self._log = data_dir.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def by_default(cls, home: Path) -> Server:
        """As a user starts it who has set nothing: only the home folder is another."""
        server = cls(home / ".local" / "share" / "enlarger")
        server._settings = {"HOME": str(home)}
        server._log = home / "server.log"
        return server

    def start(self) -> None:
        """Start the process and wait for the address it prints."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ENLARGER_")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "enlarger", "serve"],
                env={**clean, **self._settings},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.url, self.key = eventually(self._printed_address, "the server's address").groups()
        self._settings["ENLARGER_PORT"] = self.url.rpartition(":")[2]

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        assert self._end(signal.SIGTERM) == 0, self._log.read_text()

    def device(self) -> psutil.Process | None:
        """The child that computes, when there is one."""
        assert self._process is not None
        for child in psutil.Process(self._process.pid).children():
            # Not the standard library's resource tracker, the other child that spawning brings.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    return child
        return None

    def log(self) -> str:
        """All that this process has printed."""
        return self._log.read_text()

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def _printed_address(self) -> re.Match[str] | None:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        return re.search(r"(http://127\.0\.0\.1:\d+)/#key=(\S+)", self._log.read_text())

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(DEADLINE_SECONDS)
        self._process = None
        return code


@contextlib.contextmanager
def launching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Start servers on fresh data folders; keyword arguments are environment variables. All end at the exit."""
    with contextlib.ExitStack() as stack:

        def start(**settings: str) -> Server:
            # Tests send the same picture again and again, and want it computed.
            chosen = {"ENLARGER_REUSE_RESULTS": "false", **settings}
            server = Server(tmp_path_factory.mktemp("served") / "data", **chosen)
            stack.callback(server.close)
            server.start()
            return server

        yield start


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """As `launching`, until the module ends."""
    with launching(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on default settings, in a home of its own."""
    server = Server.by_default(tmp_path_factory.mktemp("home"))
    with contextlib.closing(server):
        server.start()
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


def webhooks_to(receiver: Receiver) -> dict[str, str]:
    """Settings under which webhooks reach the receiver, and are soon sent again."""
    return {
        "ENLARGER_ALLOW_PRIVATE_NETWORKS": "127.0.0.0/8",
        "ENLARGER_ALLOW_PORTS": str(receiver.port),
        "ENLARGER_WEBHOOK_SECONDS": "1",
        "ENLARGER_WEBHOOK_RETRY_SECONDS": ",".join(["1"] * 60),
    }


def png(width: int, height: int, colour: tuple[int, int, int] = (200, 80, 40)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "png")
    return file.getvalue()


def inline(data: bytes) -> str:
    return base64.b64encode(data).decode()
