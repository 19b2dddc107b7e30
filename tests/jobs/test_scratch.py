from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enlarger.jobs.scratch import Scratch

pytestmark = pytest.mark.anyio

HOLDING = """
import asyncio, sys
from pathlib import Path
from enlarger.jobs.scratch import Scratch

async def hold():
    async with Scratch(Path(sys.argv[1])).folder() as folder:
        (folder / "half").write_bytes(b"x")
        print(folder, flush=True)
        await asyncio.sleep(3600)

asyncio.run(hold())
"""


async def test_folder_is_cleared_when_its_process_is_dead_and_not_before(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "scratch")
    with subprocess.Popen(  # noqa: ASYNC220  (nothing else runs)
        [sys.executable, "-c", HOLDING, str(scratch.root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        folder = Path(process.stdout.readline().strip())
        scratch.clear()
        assert (folder / "half").exists()
        process.kill()
    scratch.clear()
    assert not folder.exists()


async def test_folder_is_removed_after_an_error(tmp_path: Path) -> None:
    async def fail() -> None:
        async with scratch.folder() as folder:
            (folder / "half").write_bytes(b"x")
            raise ZeroDivisionError

    scratch = Scratch(tmp_path / "scratch")
    with pytest.raises(ZeroDivisionError):
        await fail()
    assert list(scratch.root.iterdir()) == []


async def test_nothing_to_clear_is_no_error(tmp_path: Path) -> None:
    Scratch(tmp_path / "missing").clear()
