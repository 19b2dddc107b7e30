"""The command line, through its entry point."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger import __version__, cli
from enlarger.engine.networks.catalogue import MODELS

COMPACT = "realesr-animevideov3"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """run(*words) → (exit code, stdout, stderr) of `enlarger words…` in a temporary folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["enlarger", *map(str, words)])
        code: int | str | None = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return int(code or 0), captured.out, captured.err

    return call


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def opened(path: Path) -> tuple[str | None, tuple[int, int]]:
    with Image.open(path) as image:
        return image.format, image.size


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP"), ("a", "PNG")],
)
def test_the_extension_sets_the_format(run: Run, photo: Path, tmp_path: Path, name: str, format: str) -> None:
    code, out, _ = run("upscale", photo, "-o", tmp_path / name, "--scale", "2.5", "--model", COMPACT)
    assert code == 0
    assert opened(tmp_path / name) == (format, (75, 50))
    assert name in out
    assert "75×50" in out


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_a_terminal_shows_how_far_it_is_and_how_long_it_will_take(photo: Path, tmp_path: Path) -> None:
    reader, terminal = os.openpty()
    words = ["upscale", photo, "-o", tmp_path / "out.png", "--model", COMPACT]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-m", "enlarger", *words], stdout=subprocess.PIPE, stderr=terminal, env=environment
    ) as command:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so at the end of the terminal
            while piece := os.read(reader, 4096):
                shown += piece
        os.close(reader)
        assert command.stdout
        out = command.stdout.read()
    assert command.returncode == 0
    assert b"out.png" in out
    # Percent, elapsed time, remaining time; each a while after the start, hence the last that was shown.
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    assert re.search(r"upscaling .* 100% \d+:\d\d:\d\d eta 0:00:00", text), text


def test_without_a_name_the_result_lies_beside_the_input(run: Run, photo: Path, tmp_path: Path) -> None:
    code, _, _ = run("upscale", photo, "--scale", "1.5", "--model", COMPACT, "--output-format", "jpeg")
    assert code == 0
    assert opened(tmp_path / "photo-45x30.jpg") == ("JPEG", (45, 30))


def test_json_prints_the_report_and_nothing_else(run: Run, photo: Path) -> None:
    code, out, err = run(
        "upscale", photo, "-o", "out.png", "--model", COMPACT, "--json", "--precision", "f32"
    )
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["file"], report["output"]) == ("out.png", [120, 80])
    assert report["precision"] == "f32"
    assert report["model"] == COMPACT


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("--scale", "0"), "scale"),
        (("--scale", "-2"), "scale"),
        (("--scale", "10.1"), "scale"),
        (("--scale", "nan"), "scale"),
        (("--model", "best"), "model"),
        (("--quality", "101"), "quality"),
        (("--tile-mode", "slow"), "tile_mode"),
        (("--precision", "int8"), "precision"),
        (("--output-format", "psd"), "output_format"),
        (("--device", "tpu"), "device"),
        (("--face-strength", "2"), "face_strength"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_field(
    run: Run, photo: Path, tmp_path: Path, words: tuple[str, ...], field: str
) -> None:
    code, out, err = run("upscale", photo, *words)
    assert (code, out) == (1, "")
    assert err.startswith(f"enlarger: {field} ")
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize("target", ["photo.png", "./photo.png", "link.png"])
def test_it_refuses_to_overwrite_its_input(run: Run, photo: Path, tmp_path: Path, target: str) -> None:
    (tmp_path / "link.png").symlink_to(photo)
    before = photo.read_bytes()
    code, _, err = run("upscale", photo, "-o", target, "--model", COMPACT)
    assert code == 1
    assert "overwrite its input" in err
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none.png",), "cannot read none.png"),
        (("text.png",), "this is not a png, jpeg, webp, "),
        (("photo.png", "-o", "none/out.png"), "cannot write none/out.png"),
        # Where the result cannot lie is told first: reading and computing would be in vain.
        (("text.png", "-o", "none/out.png"), "cannot write none/out.png"),
    ],
)
@pytest.mark.usefixtures("photo")
def test_files_that_cannot_be_used_are_named(
    run: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    code, _, err = run("upscale", *words, "--model", COMPACT)
    assert code == 1
    assert said in err


def test_models_list_shows_every_model_and_which_came_with_the_installation(run: Run) -> None:
    code, out, _ = run("models", "list")
    assert code == 0
    for name, spec in MODELS.items():
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert ("package" in line) == any(file.package for file in spec.files)


def test_doctor_finds_nothing_wrong(run: Run) -> None:
    code, out, _ = run("doctor")
    assert (code, "BAD" in out) == (0, False)
    for name, spec in MODELS.items():
        line = next(line for line in out.splitlines() if name in line)
        assert ("weights verified" in line) == any(file.package for file in spec.files)


def test_keys_are_created_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    data = ("--data-dir", tmp_path / "data")
    code, secret, _ = run("keys", "create", "laptop", *data)
    assert code == 0
    assert len(secret.strip()) >= 40
    _, listed, _ = run("keys", "list", *data)
    (line,) = [line for line in listed.splitlines() if line.endswith("laptop")]
    key_id = line.split()[0]
    assert "active" in line
    assert secret.strip() not in listed
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert secret.strip().encode() not in stored
    assert run("keys", "revoke", key_id, *data)[:2] == (0, f"revoked {key_id}\n")
    assert "revoked" in next(line for line in run("keys", "list", *data)[1].splitlines() if key_id in line)
    code, _, err = run("keys", "revoke", key_id, *data)
    assert code == 1
    assert "no active key" in err


def test_the_module_is_the_command(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "enlarger"]
    shown = subprocess.run([*words, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"enlarger {__version__}\n"
    failed = subprocess.run(
        [*words, "upscale", str(tmp_path / "none.png")], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("enlarger: cannot read ")
    assert failed.stderr.rstrip().endswith("[invalid_option]")
