"""The kernel below Python: what it touches, how its threads meet, and that AMX gives the portable tiles' bytes.

`native_kernel/driver.cpp` says what each word runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# -Og: with -O1 these take three times as long to compile.
SANITIZERS = {
    "schedules": ("-Og", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "threads": ("-O1", "-fsanitize=thread"),
}


def passed(folder: Path, word: str) -> str:
    done = subprocess.run([folder / "driver", word], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert done.stdout.endswith("passed\n")
    return done.stdout


@pytest.mark.parametrize("word", SANITIZERS)
def test_sanitizers_find_nothing(word: str, build: Callable[..., Path]) -> None:
    # What runs is the portable tiles; to instrument the twin for AMX would only take time.
    folder = build(*SANITIZERS[word], plain=("compute_amx.cpp",))
    passed(folder, word)
    passed(folder, "cancel")


@pytest.mark.parametrize("word", ["schedules", "cancel"])
def test_no_byte_beyond_a_buffer_is_touched(word: str, guarded_kernel: Path) -> None:
    passed(guarded_kernel, word)


def test_the_instructions_of_amx_give_the_bytes_of_the_portable_tiles(guarded_kernel: Path) -> None:
    assert "products trapped" in passed(guarded_kernel, "trap")
