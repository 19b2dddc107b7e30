"""`import enlarger` beside `import numpy`, each in a fresh interpreter, alternated. Aim: under 0.3 s."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import record

ROUNDS = 11


def seconds(module: str) -> float:
    """From starting an interpreter to its end, with `module` imported."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - start


def main() -> None:
    rounds = [(seconds("sys"), seconds("enlarger"), seconds("numpy")) for _ in range(ROUNDS)]
    bare, ours, numpy = (statistics.median(column) for column in zip(*rounds, strict=True))
    record.write(
        "import_time",
        {
            "import_enlarger_seconds": round(ours - bare, 4),
            "import_numpy_seconds": round(numpy - bare, 4),
            "ratio": round((ours - bare) / (numpy - bare), 4),
        },
    )


if __name__ == "__main__":
    main()
