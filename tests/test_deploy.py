"""The commands of docs/deploy.md do what the page says, against a running server."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import httpx2

from .api.conftest import running
from .conftest import ROOT


def run_block(start: str, **variables: str) -> None:
    """Run the code block of the page that starts with this comment."""
    page = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    (block,) = re.findall(rf"```sh\n(# {start}.*?)```", page, re.DOTALL)
    subprocess.run(["bash", "-euc", block], env={**os.environ, **variables}, check=True)


def test_backup_of_a_running_server_restores_its_predictions_files_and_keys(tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    backup.mkdir()
    with running(tmp_path / "data") as server:
        prediction = server.finished(server.submit())
        data = httpx2.get(prediction["outputs"][0]).content
        run_block("Backup", DATA=str(server.data_dir), BACKUP=str(backup))
        server.finished(server.submit())
        key = server.key
    run_block("Restore", DATA=str(restored), BACKUP=str(backup))
    assert (restored / "enlarger.db").stat().st_mode & 0o077 == 0
    with running(restored) as server:
        assert server.key == key
        listed = server.http.post("/api/v3/predictions", content="{}").json()["data"]["items"]
        assert [item["id"] for item in listed] == [prediction["id"]]
        assert httpx2.get(listed[0]["outputs"][0]).content == data
        assert server.finished(server.submit())["status"] == "completed"
