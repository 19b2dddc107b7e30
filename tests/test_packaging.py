"""What others install: a wheel with the native kernel, or without it where nothing compiles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = Path(np.__file__).parent.parent

COMPUTE = """
import sys
from pathlib import Path
import enlarger
assert Path(enlarger.__file__).is_relative_to(sys.prefix), enlarger.__file__
import numpy as np
from enlarger.engine import selftest
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.runtime import native
from enlarger.engine.runtime.native.library import PORTABLE, open_library
net, hyper = ARCHITECTURES["rrdbnet"], {"blocks": 1, "features": 32, "growth": 32, "unshuffle": 1}
random = np.random.default_rng(0)
shapes = net.shapes(hyper).items()
weights = {name: (0.05 * random.standard_normal(shape)).astype(np.float32) for name, shape in shapes}
session = native.open_session(open_library(), net, hyper, weights, threads=2, tiles=PORTABLE)
selftest.verify(session, net, hyper, weights, device="the installed kernel")
print("computed;", native.chosen().products or native.chosen().reason)
"""

DOCTOR = """
from enlarger.doctor import findings
print(next(finding.text for finding in findings() if finding.subject == "native kernel"))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a fresh clone has of the sources: nothing built."""
    copy = tmp_path / "checkout"
    built = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "src", copy / "src", ignore=built)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def installed(checkout: Path, **environment: str) -> tuple[Path, zipfile.ZipFile]:
    """The Python of a clean environment with the wheel made of the checkout, and that wheel."""
    wheels = checkout.parent / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*pip, "wheel", *offline, "-w", wheels, checkout], check=True, env=os.environ | environment
    )
    (wheel,) = wheels.glob("enlarger-*.whl")
    home = checkout.parent / "environment"
    venv.create(home)
    python = home / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    # What enlarger needs comes from the environment of the tests, after its own packages.
    (own,) = home.glob("lib/python*/site-packages")
    (own / "tests.pth").write_text(f"{PACKAGES}\n")
    return python, zipfile.ZipFile(wheel)


def said(python: Path, code: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("g++") is None, reason="no kernel is built here")
def test_a_wheel_brings_the_kernel_and_computes_with_it(checkout: Path) -> None:
    python, wheel = installed(checkout)
    names = wheel.namelist()
    assert [name for name in names if name.startswith("enlarger/engine/runtime/native/_kernel.")]
    assert not [name for name in names if name.endswith((".cpp", ".hpp", ".h"))]
    assert said(python, COMPUTE).startswith("computed;")


def test_without_a_compiler_the_installation_succeeds_and_doctor_says_so(checkout: Path) -> None:
    python, wheel = installed(checkout, CC="/bin/false", CXX="/bin/false")
    assert not [name for name in wheel.namelist() if "_kernel" in name]
    assert said(python, DOCTOR).startswith("not used: it was not built; install enlarger")
