"""The commands for many machines, through the entry point of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from enlarger import cli

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """run(*words) → (exit code, stdout, stderr) of `enlarger words…` with a data folder of its own."""
    monkeypatch.setenv("ENLARGER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ENLARGER_MIN_FREE_BYTES", "0")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["enlarger", *words])
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(code or 0), captured.out, captured.err

    return call


def subjects(out: str) -> dict[str, str]:
    """`ok` or `BAD` by the subject of the finding."""
    return {line.split()[1]: line.split()[0] for line in out.splitlines()}


@pytest.fixture
def on_postgres(run: Run, monkeypatch: pytest.MonkeyPatch, database_url: str, tmp_path: Path) -> Run:
    monkeypatch.setenv("ENLARGER_DATABASE_URL", database_url)
    monkeypatch.setenv("ENLARGER_BLOB_URL", f"file://{tmp_path / 'blobs'}")
    return run


def test_operator_goes_from_an_empty_database_to_a_good_check(on_postgres: Run) -> None:
    run = on_postgres
    code, out, _ = run("check")
    assert (code, subjects(out)["tables"]) == (1, "BAD")
    assert "enlarger migrate" in out
    code, _, err = run("api")
    assert (code, "enlarger migrate" in err) == (1, True)
    for _ in range(2):
        assert run("migrate") == (0, "the tables are up to date\n", "")
    code, out, _ = run("check")
    assert (code, subjects(out)["keys"], "enlarger keys create" in out) == (1, "BAD", True)
    code, secret, _ = run("keys", "create", "first", "--priority", "5")
    assert (code, secret[:4]) == (0, "wsk_")
    code, out, _ = run("check")
    assert code == 0, out
    assert set(subjects(out).values()) == {"ok"}
    assert {"database", "clock", "news", "tables", "keys", "queue", "workers", "pictures"} <= set(
        subjects(out)
    )


def test_check_of_one_machine_asks_for_nothing_that_it_has_not(run: Run) -> None:
    assert run("migrate")[0] == 0
    run("keys", "create", "first")
    code, out, _ = run("check")
    assert code == 0, out
    assert list(subjects(out)) == ["database", "tables", "keys", "pictures", "weights"]


def test_database_that_is_away_is_one_line_without_its_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENLARGER_DATABASE_URL", "postgresql://u:geheim@127.0.0.1:1/none")
    code, out, err = run("check")
    assert (code, subjects(out)["database"]) == (1, "BAD")
    assert "geheim" not in out + err


@pytest.mark.parametrize("priority", ["-101", "101"])
def test_priority_has_bounds(run: Run, priority: str) -> None:
    code, _, err = run("keys", "create", "x", "--priority", priority)
    assert (code, "priority must be from -100 to 100" in err) == (1, True)
