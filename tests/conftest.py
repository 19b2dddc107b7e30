"""What every test may ask for: the shared pictures, and the independent implementation of the networks."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import settings

from .services.postgres import Postgres
from .services.proxy import Proxy
from .services.s3 import SeaweedS3

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

# No deadline: the machine may be busy with other tests. In CI the examples are the same on every run.
settings.register_profile("enlarger", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("enlarger")

_deselected = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the shared folder its tests are left out; in CI, where it must be, its absence is a failure."""
    needing = [item for item in items if item.get_closest_marker("shared")]
    if SHARED.is_dir() or not needing:
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(
            f"{len(needing)} tests need ../{SHARED.name}, which is not beside this checkout"
        )
    config.stash[_deselected] = len(needing)
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in needing]


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    left_out = config.stash.get(_deselected, 0)
    return f"left out: {left_out} tests that need ../{SHARED.name}, which is not here" if left_out else ""


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Folder of `input-NxN.png` and `<model>-NxN.png` from the official weights. Mark the test `shared`."""
    return SHARED / "goldens"


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real pictures. Mark the test `shared`."""
    return SHARED / "samples"


@pytest.fixture(scope="session")
def psnr() -> Callable[[np.ndarray, np.ndarray], float]:
    """psnr(a, b) of two 8-bit pictures, in dB."""

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        error = np.square(a.astype(float) - b).mean()
        return float(10 * np.log10(255**2 / error)) if error else float("inf")

    return measure


@pytest.fixture(scope="session")
def spandrel() -> ModuleType:
    """The independent implementation of the networks. Mark the test `torch`.

    It imports two functions of torchvision, which has no build for every torch; no network compared here
    calls them.
    """
    functional = ModuleType("torchvision.transforms.functional")
    vars(functional).update(
        InterpolationMode=SimpleNamespace(BILINEAR="bilinear", NEAREST="nearest"), rotate=None, normalize=None
    )
    stand_ins = {
        "torchvision": ModuleType("torchvision"),
        "torchvision.transforms": ModuleType("torchvision.transforms"),
        functional.__name__: functional,
    }
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module("spandrel")
    finally:
        for name in stand_ins:
            del sys.modules[name]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """For fixtures of a module or the session; tests take `postgres`."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Postgres]:
    """A running PostgreSQL, shared by all tests. Whoever stops it need not start it again."""
    yield postgres_server
    postgres_server.start()


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """`postgresql://user@host:port/name` of a new, empty database."""
    return postgres.create_database()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[SeaweedS3]:
    """For fixtures of a module or the session; tests take `s3`."""
    server = SeaweedS3()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: SeaweedS3) -> Iterator[SeaweedS3]:
    """A running S3 server, shared by all tests. Whoever kills it need not start it again."""
    yield s3_server
    s3_server.start()


@pytest.fixture
def s3_proxy(s3: SeaweedS3) -> Iterator[Proxy]:
    """A proxy in front of `s3` that can be slow, reset connections and swallow what it gets."""
    proxy = Proxy(("127.0.0.1", s3.port))
    yield proxy
    proxy.close()
