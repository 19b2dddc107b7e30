"""What tests do to the process that computes, and see of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil

from enlarger.engine.child import DeviceChild


def pid_of(child: DeviceChild) -> int:
    assert child.pid is not None
    return child.pid


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def cpu_seconds(pid: int) -> float:
    return sum(psutil.Process(pid).cpu_times()[:2])


async def become_busy(pid: int) -> None:
    """Until the process has computed for one more second of CPU time."""
    before = cpu_seconds(pid)
    async with asyncio.timeout(120):
        while cpu_seconds(pid) < before + 1:  # noqa: ASYNC110 -- another process sets no event
            await asyncio.sleep(0.02)


def nameless_files(pid: int) -> int:
    """Open files of the process that have no name any more; decoded pixels lie in such ones."""
    links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return sum(link.startswith("/") and link.endswith(" (deleted)") for link in links)
