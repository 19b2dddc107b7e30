from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from enlarger.jobs.postgres import open_postgres
from enlarger.jobs.postgres_queue import install, open_postgres_queue
from enlarger.jobs.queue import Entry, HandBack, Terms

from ..services.postgres import Postgres

pytestmark = pytest.mark.anyio

WAIT_SECONDS = 20


async def test_first_read_after_a_crash_finds_a_server_that_is_back(
    postgres: Postgres, database_url: str
) -> None:
    database = open_postgres(database_url)
    try:
        for _ in range(2):
            assert await database.read(lambda connection: connection.execute(text("SELECT 7")).scalar()) == 7
            postgres.crash()
            postgres.start()
    finally:
        await database.close()


@pytest.mark.parametrize("hands_back", [False, True], ids=["ends", "hands back"])
async def test_entry_that_another_worker_has_taken_meanwhile_is_left_to_it(
    postgres: Postgres, database_url: str, hands_back: bool
) -> None:
    name = database_url.rpartition("/")[2]
    started, gate = asyncio.Event(), asyncio.Event()

    async def run_job(_entry: Entry) -> None:
        started.set()
        await gate.wait()
        if hands_back:
            raise HandBack

    await install(database_url)
    async with open_postgres_queue(database_url, Terms()) as queue:
        await queue.enqueue([Entry("one")])
        running = asyncio.create_task(queue.run(run_job))
        await asyncio.wait_for(started.wait(), WAIT_SECONDS)
        taken = "UPDATE pgqueuer SET queue_manager_id = gen_random_uuid()"
        await asyncio.to_thread(postgres.psql, name, taken)
        gate.set()
        await queue.stop(WAIT_SECONDS)
        await asyncio.wait_for(running, WAIT_SECONDS)
    assert postgres.psql(name, "SELECT status FROM pgqueuer") == "picked"
