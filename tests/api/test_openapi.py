"""The OpenAPI description, held against the running server by a tool that knows nothing of either."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .conftest import running

SECONDS = 30
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,ignored_auth"
)


def test_every_answer_is_one_the_description_allows(tmp_path: Path) -> None:
    """Schemathesis: each route alone, then sequences in which the answers of one feed the next."""
    with running(tmp_path / "data", sync_wait_seconds=0.2, fetch_seconds=1) as server:
        report = tmp_path / "report.xml"
        run = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--header", f"Authorization: Bearer {server.key}"),
                *("--checks", CHECKS),
                *("--phases", "examples,coverage,fuzzing,stateful"),
                *("--max-examples", "12", "--max-time", str(SECONDS), "--seed", "1"),
                # The text of the metrics is Prometheus', and on this machine they want no key. Nobody guesses the
                # token of a tile: its four numbers would take half of the time.
                *("--exclude-path", "/metrics", "--exclude-path-regex", "^/tiles/"),
                *("--request-timeout", "20", "--suppress-health-check", "all"),
                *("--report", "junit", "--report-junit-path", str(report)),
            ],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * SECONDS,
        )
        metrics = server.http.get("/metrics").text
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert report.exists()
    # It has really submitted pictures, not only been refused; which of them it has deleted is its own affair.
    assert "enlarger_jobs_ended_total{" in metrics
