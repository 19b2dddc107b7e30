"""What `enlarger check` finds out: whether this machine reaches all that a service on many machines needs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from sqlalchemy import func, select, text

from enlarger.drivers import has_queue_tables, open_blobs, open_database, open_ear
from enlarger.engine.networks.weights_folder import WeightsFolder
from enlarger.errors import EnlargerError
from enlarger.finding import Finding
from enlarger.jobs.blobs import check_blobs
from enlarger.jobs.database import Database, revisions
from enlarger.jobs.database_clock import DatabaseClock
from enlarger.jobs.fleet import Fleet
from enlarger.jobs.store import Store
from enlarger.settings import Settings

_OLDEST_POSTGRES = 140_000
_CLOCK_SECONDS = 60.0
"""S3 refuses requests from a clock that is 15 minutes wrong; long before that something is."""
_HEARD_SECONDS = 5.0
_RESTED_ON = ("database", "tables")
"""Without these what comes after them cannot be tried."""

Checks = list[tuple[str, Callable[[], Awaitable[str]]]]


class _Wrong(Exception):
    """A finding that is not good, in words."""


async def findings(settings: Settings) -> list[Finding]:
    """One finding a part, each tried for real. A part that rests on one that failed is not tried."""
    database = open_database(settings)
    clock = DatabaseClock(database)
    try:
        found: list[Finding] = []
        for name, attempt in _on_database(settings, database, clock):
            found.append(await _found(name, attempt))
            if not found[-1].is_good and name in _RESTED_ON:
                break
        found.append(await _found("pictures", lambda: _pictures(settings)))
        found.append(await _found("weights", lambda: _weights(settings)))
        return found
    finally:
        await database.close()


def _on_database(settings: Settings, database: Database, clock: DatabaseClock) -> Checks:
    checks: Checks = [("database", lambda: _database(database))]
    if database.dialect != "sqlite":
        checks += [("clock", lambda: _clock(clock)), ("news", lambda: _news(settings, database))]
    checks += [("tables", lambda: _tables(database)), ("keys", lambda: _keys(Store(database)))]
    if database.dialect != "sqlite":
        checks += [
            ("queue", lambda: _queue(database)),
            ("workers", lambda: _workers(Fleet(database, clock))),
        ]
    return checks


async def _found(subject: str, attempt: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(subject, await attempt())
    except (EnlargerError, _Wrong) as error:
        return Finding(subject, str(error), is_good=False)
    except Exception as error:  # noqa: BLE001 (it is what this command is for)
        return Finding(subject, f"{type(error).__name__}: {error}".splitlines()[0], is_good=False)


async def _database(database: Database) -> str:
    if database.dialect == "sqlite":
        return "SQLite in the data folder: one machine"
    number = await database.read(
        lambda connection: connection.execute(text("SHOW server_version_num")).scalar_one()
    )
    if int(number) < _OLDEST_POSTGRES:
        raise _Wrong(f"PostgreSQL {number[:2]} is too old: 14 or newer is needed")
    return f"PostgreSQL {int(number) // 10_000}.{int(number) % 10_000}"


async def _tables(database: Database) -> str:
    here, needed, is_enough = await database.read(revisions)
    if not is_enough:
        raise _Wrong(f"revision {here or 'none'}, and this version needs {needed}: run `enlarger migrate`")
    return f"revision {here}" if here == needed else f"revision {here}, newer than this version's {needed}"


async def _clock(clock: DatabaseClock) -> str:
    await clock.look()
    ahead = time.time() - clock()
    if abs(ahead) > _CLOCK_SECONDS:
        raise _Wrong(f"this machine is {ahead:+.0f} s off the database: S3 and TLS will fail, set its clock")
    return f"this machine is {ahead:+.3f} s off the database, which all go by"


async def _queue(database: Database) -> str:
    if not await has_queue_tables(database):
        raise _Wrong("PgQueuer's tables are missing: run `enlarger migrate`")
    waiting = text("SELECT count(*) FROM pgqueuer")
    count = await database.read(lambda connection: connection.execute(waiting).scalar_one())
    return f"PgQueuer, {count} entries"


async def _news(settings: Settings, database: Database) -> str:
    heard, ear, channel = asyncio.Event(), open_ear(settings), f"check_{uuid4().hex}"
    try:
        await ear.add(channel, lambda _: heard.set())
        sent = select(func.pg_notify(channel, "?"))
        await database.read(lambda connection: connection.execute(sent).all())
        await asyncio.wait_for(heard.wait(), _HEARD_SECONDS)
    except TimeoutError as error:
        raise _Wrong(
            "what is notified is not heard: behind a pooler set database_listen_url to the server itself"
        ) from error
    finally:
        await ear.close()
    return "what one process notifies others hear"


async def _workers(fleet: Fleet) -> str:
    members = await fleet.members()
    if not members:
        return "none has been heard of lately: start one with `enlarger worker`"
    return "; ".join(
        f"{member.name}: {member.idle} of {member.devices} idle, {' '.join(member.routes)}, {member.version}"
        for member in members
    )


async def _keys(store: Store) -> str:
    valid = sum(key.is_valid(time.time()) for key in await store.keys())
    if not valid:
        raise _Wrong("no API key is valid: make one with `enlarger keys create`")
    return f"{valid} valid"


async def _pictures(settings: Settings) -> str:
    blobs = open_blobs(settings, time.time)
    await check_blobs(blobs, uuid4().hex)
    free = await blobs.free_bytes()
    where = settings.blob_url or "the data folder"
    if free < settings.min_free_bytes:
        raise _Wrong(f"{free // 1_000_000} MB of scratch space left, below min_free_bytes: make room")
    return f"{where} creates, reads, and creates nothing twice; {free // 1_000_000} MB of scratch space"


async def _weights(settings: Settings) -> str:
    present, missing = await asyncio.to_thread(WeightsFolder(settings.weights_dir).inventory)
    if not present:
        raise _Wrong("no weights are on this machine: see `enlarger models list`")
    rest = f"; not here: {', '.join(missing)}" if missing else ""
    return f"{', '.join(present)}{rest}"
