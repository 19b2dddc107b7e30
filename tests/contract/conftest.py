"""What every driver has to do alike: the same tests over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from pydantic import SecretStr

from enlarger.drivers import migrate, opened_store
from enlarger.jobs.postgres_queue import open_postgres_queue
from enlarger.jobs.queue import Queue, Terms
from enlarger.jobs.store import Store
from enlarger.settings import Settings

from ..jobs.conftest import Clock, anyio_backend, clock, key, new_id, new_job
from ..services.postgres import Postgres

__all__ = ["Clock", "anyio_backend", "clock", "key", "new_id", "new_job"]

TERMS = Terms(slots=4, most_aside=64, lease_seconds=30, look_seconds=0.2, retry_seconds=0.01)


@pytest.fixture(scope="session")
def migrated(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with all tables, which fresh ones are copied from."""
    url = postgres_server.create_database()
    settings = Settings(data_dir=tmp_path_factory.mktemp("migrated"), database_url=SecretStr(url))
    asyncio.run(migrate(settings))
    return url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Where the rows are."""
    if request.param == "sqlite":
        return Settings(data_dir=tmp_path / "data")
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create_database(request.getfixturevalue("migrated"))
    return Settings(data_dir=tmp_path / "data", database_url=SecretStr(url))


@pytest.fixture
async def queue(settings: Settings) -> AsyncGenerator[Queue]:
    """The queue beside these rows, with slots for four jobs and some aside."""
    if settings.database_url is None:
        yield Queue.in_memory(retry_seconds=TERMS.retry_seconds)
        return
    async with open_postgres_queue(settings.database_url.get_secret_value(), TERMS) as queue:
        yield queue


@pytest.fixture
async def store(settings: Settings, queue: Queue) -> AsyncGenerator[Store]:
    async with opened_store(settings, queue) as store:
        yield store
