"""The sandbox of a process that touches untrusted bytes: what it may use, and what it may reach.

Resource limits bound memory, processor time, written bytes and open files. Landlock, where the kernel has it,
takes away every file that is not already open, TCP, and signals to other processes. All of it is one way:
nothing in the process can undo it. Landlock has no rule for UDP and for named Unix sockets: those stay.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# Landlock's system calls have the same numbers on every architecture (linux/landlock.h, linux/prctl.h).
CREATE_RULESET, RESTRICT_SELF = 444, 446
ASK_FOR_ABI = 1
SET_NO_NEW_PRIVILEGES = 38

FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights over files and folders an ABI knows: the lowest bits of the first mask. 16 from 5 on."""
TCP_BIND_AND_CONNECT = 0b11
"""The second mask, from ABI 4 on."""
ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
"""The third mask, from ABI 6 on."""

REASONS = {
    errno.ENOSYS: "this kernel has no Landlock",
    errno.EOPNOTSUPP: "Landlock is switched off in this kernel",
    errno.EPERM: "the container forbids Landlock",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """The resource limits of a sandbox."""

    memory_bytes: int
    """Address space, beyond what the process has when it is confined."""
    file_bytes: int
    """Length of any file it writes."""
    open_files: int = 32


def confine(limits: Confinement) -> None:
    """Put this process into the sandbox. All it needs must be imported and open, and no other thread running.

    Landlock binds the calling thread and those it starts: an earlier thread would stay free. Does nothing
    outside Linux. Raises OSError where a kernel that offers Landlock then refuses it.
    """
    if sys.platform != "linux":
        return
    import resource

    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    wanted = {
        resource.RLIMIT_AS: address_space + limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.file_bytes,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in wanted.items():
        allowed = resource.getrlimit(limit)[1]
        lowered = value if allowed == resource.RLIM_INFINITY else min(value, allowed)
        resource.setrlimit(limit, (lowered, lowered))
    _checked(
        ctypes.CDLL(None, use_errno=True).prctl(SET_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0)))
    )
    abi = landlock_abi()
    if abi > 0:
        _restrict(abi)


def allow_cpu(seconds: float) -> None:
    """Let this process compute for `seconds` more; then the kernel ends it. Does nothing outside Linux."""
    if sys.platform != "linux":
        return
    import resource

    allowed = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), allowed))


def sandbox_state() -> str:
    """What `confine` can do on this machine, for people."""
    if sys.platform != "linux":
        return f"none: {sys.platform} has neither these rlimits nor Landlock"
    abi = landlock_abi()
    if abi > 0:
        return f"rlimits and Landlock ABI {abi}"
    return f"rlimits only: {REASONS.get(-abi, f'no Landlock, {os.strerror(-abi)}')}"


def landlock_abi() -> int:
    """The version of Landlock the kernel offers, or −errno."""
    abi = _call(CREATE_RULESET, None, 0, ASK_FOR_ABI)
    return abi if abi >= 0 else -ctypes.get_errno()


def _restrict(abi: int) -> None:
    """Handle every right the kernel knows and grant none."""
    masks = [(1 << FILE_RIGHTS.get(abi, 16)) - 1]
    masks += [TCP_BIND_AND_CONNECT] if abi >= 4 else []
    masks += [ABSTRACT_SOCKETS_AND_SIGNALS] if abi >= 6 else []
    attributes = struct.pack(f"={len(masks)}Q", *masks)
    ruleset = _checked(_call(CREATE_RULESET, attributes, len(attributes), 0))
    try:
        _checked(_call(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return libc.syscall(ctypes.c_long(number), *wide)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the sandbox was refused: {os.strerror(code)}")
    return result
