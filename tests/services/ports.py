"""Free ports and the processes that listen on them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

READY_SECONDS = 60

_SPAWNER = ThreadPoolExecutor(1)
"""The signal at the end comes when the thread that started a server ends: this one lives as long as the process."""


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody uses now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def spawn(
    command: list[str],
    log: Path,
    signal_at_end: str,
    *,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that writes to `log` and gets the signal when this process dies, however it does.

    user: whom it runs as, where this process is root's. environment: added to that of this process.
    """
    with log.open("ab") as output:
        return _SPAWNER.submit(
            subprocess.Popen[bytes],
            [*as_user(user, signal_at_end), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        ).result()


def as_user(user: str | None, signal_at_end: str = "") -> list[str]:
    """The words before a command that make it the user's, as far as this machine knows them."""
    if not shutil.which("setpriv"):
        return []
    words = ["setpriv", f"--pdeathsig={signal_at_end}"] if signal_at_end else ["setpriv"]
    if user and os.getuid() == 0:
        words += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return [*words, "--"] if len(words) > 1 else []


def until_ready(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Return as soon as `is_ready`; fail with the end of the log when the process dies or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{process.args} is not ready:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.05)
