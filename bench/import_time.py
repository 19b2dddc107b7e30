"""How long `import enlarger` takes beside `import numpy`, each in a fresh interpreter, in the same run."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 11


def import_seconds(module: str) -> float:
    """Median seconds from starting an interpreter to its end, with `module` imported."""
    rounds: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        rounds.append(time.perf_counter() - start)
    return statistics.median(rounds)


def main() -> None:
    bare = import_seconds("sys")
    ours, numpy = import_seconds("enlarger") - bare, import_seconds("numpy") - bare
    print(f"import enlarger {ours * 1e3:.0f} ms, import numpy {numpy * 1e3:.0f} ms: {ours / numpy:.2f} ×")


if __name__ == "__main__":
    main()
