"""What pyproject.toml cannot say: the native kernel, where it can be used. Everything else is in pyproject.toml.

The kernel is optional: without a compiler, or with one that cannot build it, the installation succeeds without it,
and `enlarger doctor` says so.
"""

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("src/enlarger/engine/runtime/native/cpp")

kernel = Extension(
    "enlarger.engine.runtime.native._kernel",
    sources=sorted(map(str, SOURCES.glob("*.cpp"))),
    depends=sorted(map(str, SOURCES.glob("*.h*"))),
    language="c++",
    # Products and sums are rounded one by one, so that every backend gives the same bytes.
    extra_compile_args=["-std=c++17", "-O2", "-ffp-contract=off", "-pthread", "-Wno-psabi"],
    extra_link_args=["-pthread"],
    optional=True,
)

# AMX exists on x86-64, and the permission to use it is asked for as Linux wants it.
usable = sys.platform == "linux" and platform.machine() == "x86_64"
setup(ext_modules=[kernel] if usable else [])
