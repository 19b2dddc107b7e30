"""The line for the one writing connection."""

from __future__ import annotations

from pathlib import Path

import pytest

from enlarger.errors import Overloaded
from enlarger.jobs import database
from enlarger.jobs.database import Database


@pytest.mark.anyio
async def test_a_write_that_waits_too_long_is_an_overload_that_names_the_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.2)
    opened = Database.open(tmp_path / "test.db")
    try:
        async with opened.write():
            with pytest.raises(Overloaded, match=r"busy with other writes for 0\.2 s") as refusal:
                async with opened.write():
                    pytest.fail("two transactions wrote at once")
        assert refusal.value.retry_after_seconds > 0
        async with opened.write():
            pass  # the line is free again
    finally:
        await opened.close()
