from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enlarger.errors import InvalidOption
from enlarger.jobs.data_folder import lock_data_folder

HOLD = """
import sys
from pathlib import Path
from enlarger.jobs.data_folder import lock_data_folder
with lock_data_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_folder_serves_one_process_until_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InvalidOption, match="ENLARGER_DATA_DIR"), lock_data_folder(folder):
            pass
        holder.kill()
        holder.wait()
        with lock_data_folder(folder):
            pass


def test_folder_can_be_held_again_after_it_was_let_go(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_data_folder(tmp_path):
            pass
