"""What every bench writes: its numbers with machine and commit, as JSON under bench/results/."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT.parent / "shared" / "samples"


def write(name: str, numbers: dict[str, Any]) -> None:
    """Print the numbers and write them to bench/results/<name>.json."""
    record = {
        "bench": name,
        "commit": _commit(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        **numbers,
    }
    text = json.dumps(record, indent=2)
    target = ROOT / "bench" / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text + "\n")
    print(text)


def machine() -> dict[str, Any]:
    flags = ""
    try:
        info = Path("/proc/cpuinfo").read_text()
        name = next(
            line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")
        )
        flags = next(line for line in info.splitlines() if line.startswith("flags"))
    except OSError:
        name = platform.processor()
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "amx": "amx_bf16" in flags,
        "avx512": "avx512f" in flags,
        "system": platform.platform(),
        "python": sys.version.split()[0],
    }


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peak_rss_gib() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    dirty = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() + ("+" if dirty.stdout else "")
