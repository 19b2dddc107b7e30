"""What ties a child process to its parent."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import wait


def end_with(sentinel: int) -> None:
    """End this process, whatever it is doing, as soon as `sentinel` is ready.

    `sentinel` is a handle that becomes ready when the parent is gone: the reading end of a pipe that only the
    parent could write to.
    """

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
