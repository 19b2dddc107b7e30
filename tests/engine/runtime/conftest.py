"""The native kernel, built from the sources as they are now, in the forms that tests need."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from enlarger.engine.runtime.native.library import AVX512, PORTABLE, Library

DRIVER = Path(__file__).parent / "native_kernel"

# Every buffer ends at a page that may not be touched, and AMX is compiled so that its instructions can be emulated.
GUARDED = ("-O2", "-DENLARGER_GUARD_PAGES", "-DENLARGER_TRAPPED_AMX")


@pytest.fixture(scope="session")
def build(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """build(*flags, plain=(…)) → folder of the program `driver` and, where the flags allow, `kernel.so`.

    Sources named in `plain` are compiled without the flags.
    """
    compiler = shutil.which("g++")
    assert compiler, "the tests of the native kernel need g++ (tests/apt.txt)"
    sources = root / "src" / "enlarger" / "engine" / "runtime" / "native" / "cpp"

    def run(*words: str | Path) -> None:
        done = subprocess.run([compiler, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def built(*flags: str, plain: tuple[str, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp("kernel")
        common = ("-std=c++17", "-fPIC", "-ffp-contract=off", "-pthread", "-Wall", "-Wextra", "-Werror")

        def compile_one(source: Path) -> Path:
            target = folder / f"{source.stem}.o"
            chosen = () if source.name in plain else flags
            run(*common, "-Wno-psabi", *chosen, f"-I{sources}", "-c", source, "-o", target)
            return target

        with ThreadPoolExecutor() as pool:
            driver, *objects = pool.map(compile_one, [DRIVER / "driver.cpp", *sorted(sources.glob("*.cpp"))])
        run(*flags, "-pthread", driver, *objects, "-o", folder / "driver")
        if not any(flag.startswith("-fsanitize") for flag in flags):
            run(*flags, "-pthread", "-shared", *objects, "-o", folder / "kernel.so")
        return folder

    return built


@pytest.fixture(scope="session")
def guarded_kernel(build: Callable[..., Path]) -> Path:
    """Folder of the driver and the library with guard pages around every buffer."""
    return build(*GUARDED)


@pytest.fixture(scope="session")
def library(guarded_kernel: Path) -> Library:
    return Library(guarded_kernel / "kernel.so")


@pytest.fixture(params=[PORTABLE, AVX512], ids=["portable", "avx512"])
def tiles(request: pytest.FixtureRequest, library: Library) -> int:
    """What multiplies, each of those that this machine has."""
    if reason := library.why_not(request.param):
        pytest.skip(reason)
    return request.param
