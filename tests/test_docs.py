"""The documentation names everything there is, and what it shows works."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import typer
from PIL import Image

import enlarger
from enlarger import cli
from enlarger.api.app import create_app
from enlarger.api.context import Context
from enlarger.engine.networks.catalogue import FACE_MODELS, MODELS
from enlarger.engine.options import Options, asks
from enlarger.errors import error_classes
from enlarger.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "ARCHITECTURE.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def routes() -> set[str]:
    # The schema depends on the routes alone; the context is what they work on.
    schema = create_app(cast(Context, None)).openapi()
    return {f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods}


def commands(command: Any, words: str = "enlarger") -> Iterator[tuple[str, set[str]]]:
    """Every command with its flags."""
    for name, child in command.commands.items():
        if hasattr(child, "commands"):
            yield from commands(child, f"{words} {name}")
        else:
            yield (
                f"{words} {name}",
                {flag for parameter in child.params for flag in parameter.opts if flag[0] == "-"},
            )


def parameters(name: str) -> list[Any]:
    return cast(Any, typer.main.get_command(cli.app)).commands[name].params


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("http.md", routes()),
        ("http.md", set(asks())),
        ("models.md", set(asks())),
        ("models.md", set(MODELS)),
        ("models.md", set(FACE_MODELS)),
        ("settings.md", {PREFIX + name.upper() for name in Settings.model_fields}),
        ("errors.md", set(error_classes())),
        ("cli.md", set(COMMANDS)),
    ],
    ids=["routes", "options over HTTP", "options", "models", "face models", "settings", "errors", "commands"],
)
def test_the_page_names_every_one(page: str, names: set[str]) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    assert names
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_described_with_all_its_flags(command: str) -> None:
    _, _, section = (ROOT / "docs" / "cli.md").read_text("utf-8").partition(f"## `{command}`\n")
    section = section.split("\n## ")[0]
    assert {flag for flag in COMMANDS[command] if f"`{flag}`" not in section} == set()


def test_every_option_has_a_flag_with_the_same_default() -> None:
    flags = {parameter.name: parameter.default for parameter in parameters("upscale")}
    assert {name: flags.get(name) for name in asks()} == {name: getattr(Options(), name) for name in asks()}


def test_tables_made_from_the_code_are_current() -> None:
    script = ROOT / "scripts" / "write_docs_tables.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"run `make docs`\n{run.stdout}{run.stderr}"


def test_the_changelog_starts_with_the_version_of_the_package() -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert versions[0] == project["version"] == enlarger.__version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_words_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= set(targets)
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def blocks(language: str, start: str) -> list[Any]:
    """The code blocks of all pages that begin with `start`."""
    return [
        pytest.param(code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, code in enumerate(
            re.findall(rf"```{language}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        )
        if code.startswith(start)
    ]


@pytest.fixture
def photo_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a small photo.jpg."""
    with Image.open(ROOT / "src" / "enlarger" / "web" / "sample.png") as sample:
        sample.resize((24, 16)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", blocks("python", "import enlarger"))
def test_python_in_the_documentation_runs(code: str, photo_folder: Path) -> None:
    exec(compile(code, "<documentation>", "exec"), {})
    with Image.open(photo_folder / "large.png") as made:
        assert made.size == (60, 40)


@pytest.mark.parametrize("code", blocks("sh", "enlarger upscale"))
def test_command_lines_in_the_documentation_run(code: str, photo_folder: Path) -> None:
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(photo_folder)}
    subprocess.run(["bash", "-ec", code], env=path, check=True, capture_output=True)
    with Image.open(photo_folder / "large.png") as made:
        assert made.size == (60, 40)
