"""Drivers: which database, queue and store of pictures the settings choose, and what makes pictures zoomable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr
from sqlalchemy import inspect

from enlarger.engine.decoder import Decoder, DecoderLimits
from enlarger.engine.pyramid_file import open_pyramid
from enlarger.errors import FeatureUnavailable, InvalidOption, Overloaded
from enlarger.jobs.blobs import Blobs, LocalBlobs
from enlarger.jobs.changes import Changes
from enlarger.jobs.database import Database, revisions
from enlarger.jobs.pyramids import Pyramids
from enlarger.jobs.queue import Entry, Queue, Terms
from enlarger.jobs.relay import Ear, Relay
from enlarger.jobs.split_blobs import SplitBlobs
from enlarger.jobs.store import Store
from enlarger.jobs.turns import takes_turn
from enlarger.jobs.worker import RECONCILE_SECONDS
from enlarger.settings import Settings

log = logging.getLogger(__name__)

_DATABASE_SECONDS = 60.0
"""How long a start waits for a database that is away."""
_LOOK_SECONDS = 3.0
"""Between two looks of an idle worker at the queue: a dead one's job runs again this much after its lease."""
_MOST_LOST = 1000
_VIEWER_MEMORY_BYTES = 6 * 2**30
"""Address space for preparing a picture for zooming: 20 bytes a pixel of the largest AVIF, others need less."""


def open_database(settings: Settings) -> Database:
    """The database of `database_url`, or the file of the data folder. Connects to none.

    Raises InvalidOption for an address that is none, FeatureUnavailable without the package for PostgreSQL.
    """
    url = _secret(settings.database_url)
    if not url:
        return Database.open(settings.data_dir / "enlarger.db")
    _require_postgres(url)
    from enlarger.jobs.postgres import open_postgres

    return open_postgres(url, connections=settings.database_connections, prepares=settings.database_prepares)


@asynccontextmanager
async def open_queue(settings: Settings, devices: int) -> AsyncGenerator[Queue]:
    """The queue beside the database, for a worker with so many devices."""
    url = _secret(settings.database_url)
    prefetch = settings.prefetch_jobs if settings.prefetch_jobs is not None else (2 if url else 3)
    slots = max(1, devices) * (1 + prefetch)
    if not url:
        yield Queue.in_memory(slots=slots)
        return
    from enlarger.jobs.postgres_queue import open_postgres_queue

    # What one worker has taken no other one gets: none takes more than it has slots.
    terms = Terms(slots=slots, most_aside=0, lease_seconds=settings.lease_seconds, look_seconds=_LOOK_SECONDS)
    listen_url = _secret(settings.database_listen_url)
    async with open_postgres_queue(
        url, terms, listen_url=listen_url, prepares=settings.database_prepares
    ) as queue:
        yield queue


def open_relay(
    settings: Settings,
    database: Database,
    changes: Changes,
    origin: str,
    heard: Callable[[str], None],
    *,
    hears_tiles: bool,
) -> Relay | None:
    """What carries news between the processes of a service; None where there is only one."""
    if not settings.database_url:
        return None
    return Relay(database, open_ear(settings), changes, origin=origin, heard=heard, hears_tiles=hears_tiles)


def open_ear(settings: Settings) -> Ear:
    """What hears the channels of the PostgreSQL of the settings."""
    from enlarger.jobs.postgres_driver import Listener

    return Listener(_secret(settings.database_listen_url) or _secret(settings.database_url))


async def has_queue_tables(database: Database) -> bool:
    """Whether PgQueuer's tables are in the PostgreSQL."""
    names = await database.read(lambda connection: inspect(connection).get_table_names())
    return "pgqueuer" in names


async def migrate(settings: Settings) -> None:
    """Bring the tables of rows and queue to the form this version needs. Safe to run twice, and at once."""
    database = open_database(settings)
    try:
        await database.migrate()
        if url := _secret(settings.database_listen_url) or _secret(settings.database_url):
            from enlarger.jobs.postgres_queue import install

            # Under a lock of a session: behind a pooler that would be anybody's.
            await install(url)
    finally:
        await database.close()


def lost_entries(
    database: Database, holder: str, clock: Callable[[], float]
) -> Callable[[int | None], Awaitable[list[Entry]]] | None:
    """What finds entries that the queue has lost, for one of many workers at once; None where all are in the rows."""
    if database.dialect == "sqlite":
        return None
    from enlarger.jobs.postgres_queue import without_entry

    async def lost(at_most: int | None) -> list[Entry]:
        if not await takes_turn(database, "reconcile", holder, clock(), RECONCILE_SECONDS):
            return []
        return await without_entry(database, at_most or _MOST_LOST)

    return lost


def _require_postgres(url: str) -> None:
    if not url.startswith(("postgresql://", "postgres://")):
        raise InvalidOption(
            "database_url must be postgresql://user:password@host/name; without it SQLite is used",
            "database_url",
        )
    if find_spec("psycopg") is None:
        raise FeatureUnavailable("database_url needs a package: pip install 'enlarger[distributed]'")


@asynccontextmanager
async def opened_store(settings: Settings, queue: Queue | None = None) -> AsyncGenerator[Store]:
    """The store that the settings choose, closed at exit; the tables of a data folder are brought up to date.

    Raises InvalidOption when those of a database on many machines are not: that is `enlarger migrate`'s to do.
    """
    store = Store(open_database(settings), queue)
    try:
        if store.database.dialect == "sqlite":
            await store.migrate()
        else:
            await _check_tables(store.database)
        yield store
    finally:
        await store.close()


async def _check_tables(database: Database) -> None:
    deadline = time.monotonic() + _DATABASE_SECONDS
    while True:
        try:
            here, needed, is_enough = await database.read(revisions)
            break
        except Overloaded:
            if time.monotonic() > deadline:
                raise
            log.warning("The database is away; trying again")
            await asyncio.sleep(1)
    if not is_enough:
        raise InvalidOption(
            f"the tables of the database are of revision {here}, and this version needs {needed}: "
            "run `enlarger migrate`",
            "database_url",
        )


def open_blobs(settings: Settings, clock: Callable[[], float]) -> Blobs:
    """The blobs of `blob_url`; no request is made. clock: Unix seconds.

    Raises InvalidOption for settings that do not go together, FeatureUnavailable without the package for S3.
    """
    url = urlsplit(settings.blob_url)
    if url.scheme == "s3":
        return _open_s3(settings, clock)
    if settings.blob_links == "presigned":
        raise InvalidOption("blob_links=presigned needs a blob_url that starts with s3://", "blob_links")
    return LocalBlobs(Path(unquote(url.path)) if url.scheme else settings.data_dir / "blobs")


@asynccontextmanager
async def open_pyramids(blobs: Blobs, settings: Settings) -> AsyncGenerator[Pyramids]:
    """Pyramids made by a decoder of their own, so that nobody who zooms waits for a picture being computed."""
    most_pixels = round(max(settings.max_input_megapixels, settings.max_output_megapixels) * 1e6)
    limits = DecoderLimits(
        max_pixels=most_pixels,
        max_source_bytes=max(settings.max_input_bytes, settings.max_upload_bytes, 8 * most_pixels),
        memory_bytes=_VIEWER_MEMORY_BYTES,
    )
    with closing(Decoder(limits)) as decoder:
        pyramids = Pyramids(
            blobs,
            decoder.write_pyramid,
            open_pyramid,
            most_bytes=settings.viewer_cache_bytes,
            min_free_bytes=settings.min_free_bytes,
        )
        try:
            yield pyramids
        finally:
            await pyramids.close()


def _open_s3(settings: Settings, clock: Callable[[], float]) -> Blobs:
    if find_spec("obstore") is None:
        raise FeatureUnavailable("blob_url=s3://... needs a package: pip install 'enlarger[distributed]'")
    from enlarger.jobs.presigned import Presigned, Signer
    from enlarger.jobs.s3_blobs import Bucket, S3Blobs

    url = urlsplit(settings.blob_url)
    access, secret = _secret(settings.s3_access_key), _secret(settings.s3_secret_key)
    if bool(access) != bool(secret):
        raise InvalidOption("s3_access_key and s3_secret_key go together: set both, or none", "s3_secret_key")
    prefix = url.path.strip("/")
    bucket = Bucket(
        name=url.netloc,
        prefix=prefix,
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=access,
        secret_key=secret,
    )
    direct = None
    if settings.blob_links == "presigned":
        if not access:
            raise InvalidOption("blob_links=presigned needs s3_access_key and s3_secret_key", "blob_links")
        amazon = f"https://s3.{settings.s3_region}.amazonaws.com"
        signer = Signer(
            endpoint=settings.s3_public_endpoint or settings.s3_endpoint or amazon,
            bucket=url.netloc,
            prefix=prefix,
            region=settings.s3_region,
            access_key=access,
            secret_key=secret,
        )
        direct = Presigned(signer, clock)
    scratch = settings.data_dir / "scratch"
    far = S3Blobs(bucket, scratch, seconds=settings.s3_seconds, direct=direct)
    return SplitBlobs(LocalBlobs(settings.data_dir / "cache"), far)


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value else ""
