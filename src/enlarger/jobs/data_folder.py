"""The data folder of an embedded server: one server at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from enlarger.errors import InvalidOption


@contextmanager
def lock_data_folder(folder: Path) -> Generator[None]:
    """Hold the folder, made when it is missing, for this process; the system lets go when the process dies.

    Two servers on one folder would take each other's running jobs for abandoned ones and run them again.
    Raises InvalidOption(field="data_dir") when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidOption(
                f"data_dir {folder} is in use by another enlarger server: stop it, or set ENLARGER_DATA_DIR",
                "data_dir",
            ) from error
        yield
