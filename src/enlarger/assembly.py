"""Assembly: the parts of a service, put together as its role and its settings want them, and running.

With `drivers` and `bootstrap` the composition root: only these name concrete classes.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from uuid import uuid4

from fastapi import FastAPI

from enlarger.api.app import create_app, create_worker_app
from enlarger.api.context import Check, Context
from enlarger.drivers import (
    lost_entries,
    open_blobs,
    open_pyramids,
    open_queue,
    open_relay,
    opened_store,
)
from enlarger.jobs.attempt import Means
from enlarger.jobs.blobs import Blobs
from enlarger.jobs.changes import Changes
from enlarger.jobs.data_folder import lock_data_folder
from enlarger.jobs.database import Database
from enlarger.jobs.database_clock import DatabaseClock
from enlarger.jobs.devices import Compute, Devices
from enlarger.jobs.fleet import Fleet, Member, Membership
from enlarger.jobs.job import Job
from enlarger.jobs.keys import ensure_first_key, ensure_given_key
from enlarger.jobs.metrics import Metrics, depths
from enlarger.jobs.outbox import Outbox
from enlarger.jobs.preflight import Planner
from enlarger.jobs.queue import Queue
from enlarger.jobs.retention import Retention
from enlarger.jobs.routes import Route, served
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.view import view
from enlarger.jobs.viewer import Viewer
from enlarger.jobs.webhooks import Sources, Webhooks
from enlarger.jobs.weights import SharedDownloads, Weights
from enlarger.jobs.worker import Worker
from enlarger.loops import Loop, running, runs
from enlarger.settings import Settings

log = logging.getLogger(__name__)

_SECRET_BYTES = 32


class Role(Enum):
    """What a process does: answer clients, compute, or both."""

    SERVE = "serve"
    API = "api"
    WORKER = "worker"


@dataclass(frozen=True, slots=True)
class Parts:
    """A service that runs in this event loop. `key` is the first key's secret, empty when nobody knows it."""

    store: Store
    service: Service
    worker: Worker | None
    app: FastAPI
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What a service gets from outside: ids, the parts that compute, and where it is.

    devices: by name, what a worker computes on. new_id: 32 lower-case hex characters, unguessable. planner: answers
    what a job would be. weights: brings those that are missing. clock: Unix seconds; None is that of the database.
    local_url: where webhooks find results when `public_base_url` is not set.
    """

    devices: Mapping[str, Compute]
    new_id: Callable[[], str] = lambda: uuid4().hex
    planner: Planner | None = None
    weights: Weights | None = None
    clock: Callable[[], float] | None = None
    local_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What every part stands on. identity: unlike that of any other process."""

    settings: Settings
    outside: Outside
    store: Store
    queue: Queue
    blobs: Blobs
    clock: Callable[[], float]
    changes: Changes
    downloads: SharedDownloads
    devices: Devices
    fleet: Fleet
    identity: str
    link_secret: bytes


@asynccontextmanager
async def assembled(settings: Settings, role: Role, outside: Outside) -> AsyncGenerator[Parts]:
    """The parts of a service, with everything running; stopped and closed at exit.

    Raises InvalidOption when another server uses the data folder, or the database is not migrated.
    """
    async with AsyncExitStack() as stack:
        ground = await _ground(stack, settings, outside)
        store, clock = ground.store, ground.clock
        key = await _first_key(store, settings, role, clock(), outside.new_id)
        service, metrics = _service(ground), Metrics(ground.devices)
        webhooks = await _webhooks(ground, service, metrics)
        store.on_end = _told(metrics, webhooks)
        worker = (
            None
            if role is Role.API
            else Worker(_means(ground), lost_entries(store.database, ground.identity, clock))
        )
        loops = _loops(ground, role, worker, webhooks)
        checks = {"database": _answers(store)}
        for name, loop in loops.items():
            checks[name] = runs(await stack.enter_async_context(running(name, loop)))
        viewer = Viewer(
            store=store,
            pyramids=await stack.enter_async_context(open_pyramids(ground.blobs, settings)),
            clock=clock,
            link_secret=ground.link_secret,
            retention_days=settings.retention_days,
        )
        context = Context(
            service=service,
            webhooks=webhooks,
            viewer=viewer,
            settings=settings,
            checks=checks,
            metrics=_exposed(metrics, ground),
        )
        app = create_worker_app(context) if role is Role.WORKER else create_app(context)
        yield Parts(store, service, worker, app, key)


async def _ground(stack: AsyncExitStack, settings: Settings, outside: Outside) -> _Ground:
    if not settings.database_url:
        stack.enter_context(lock_data_folder(settings.data_dir))
    queue = await stack.enter_async_context(open_queue(settings, len(outside.devices)))
    store = await stack.enter_async_context(opened_store(settings, queue))
    clock = outside.clock or await _clock_of(store.database)
    blobs = open_blobs(settings, clock)
    await blobs.clear_scratch()
    return _Ground(
        settings=settings,
        outside=outside,
        store=store,
        queue=queue,
        blobs=blobs,
        clock=clock,
        changes=Changes(),
        downloads=SharedDownloads(outside.weights, settings),
        devices=Devices(outside.devices),
        fleet=Fleet(store.database, clock),
        identity=outside.new_id(),
        link_secret=await store.secret("links", os.urandom(_SECRET_BYTES)),
    )


def _service(ground: _Ground) -> Service:
    return Service(
        store=ground.store,
        blobs=ground.blobs,
        settings=ground.settings,
        clock=ground.clock,
        new_id=ground.outside.new_id,
        link_secret=ground.link_secret,
        changes=ground.changes,
        planner=ground.outside.planner,
        weights=ground.downloads,
        devices=_device_count(ground),
    )


def _means(ground: _Ground) -> Means:
    settings = ground.settings
    return Means(
        store=ground.store,
        blobs=ground.blobs,
        queue=ground.queue,
        devices=ground.devices,
        settings=settings,
        clock=ground.clock,
        changes=ground.changes,
        weights=ground.downloads,
        routes=served(list(ground.outside.devices), settings.worker_pools, settings.worker_sizes),
        is_idle_elsewhere=_is_idle_elsewhere(ground),
    )


def _loops(ground: _Ground, role: Role, worker: Worker | None, webhooks: Webhooks) -> dict[str, Loop]:
    """What runs beside the requests, by name."""
    settings, database, clock = ground.settings, ground.store.database, ground.clock
    loops: dict[str, Loop] = {}
    if worker is not None:
        loops["worker"] = worker
        if settings.database_url:
            member, devices = _member(ground, worker.routes), ground.devices
            loops["membership"] = Membership(ground.fleet, member, lambda: devices.idle, clock)
    if role is not Role.WORKER:
        loops["webhooks"] = webhooks
        loops["retention"] = Retention(
            database=database, blobs=ground.blobs, settings=settings, clock=clock, holder=ground.identity
        )
    relay = open_relay(
        settings,
        database,
        ground.changes,
        ground.identity,
        lambda _: webhooks.wake(),
        hears_tiles=role is not Role.WORKER,
    )
    if relay is not None:
        loops["relay"] = relay
    if isinstance(clock, DatabaseClock):
        loops["clock"] = clock
    return loops


async def _clock_of(database: Database) -> Callable[[], float]:
    """Machines may disagree about the time: those of one service go by their database."""
    if database.dialect == "sqlite":
        return time.time
    clock = DatabaseClock(database)
    await clock.look()
    return clock


async def _first_key(
    store: Store, settings: Settings, role: Role, now: float, new_id: Callable[[], str]
) -> str:
    """The secret to announce: that of the key made at the first start; none when the settings bring their own."""
    if settings.first_key is not None:
        await ensure_given_key(store, settings.first_key.get_secret_value(), now=now, new_id=new_id)
        return ""
    if role is not Role.SERVE:
        return ""
    return await ensure_first_key(store, settings.data_dir, now=now, new_id=new_id, random=os.urandom)


def _device_count(ground: _Ground) -> Callable[[], Coroutine[None, None, int]]:
    async def count() -> int:
        is_alone = ground.store.database.dialect == "sqlite"
        return max(1, len(ground.devices.all)) if is_alone else await ground.fleet.devices()

    return count


def _is_idle_elsewhere(ground: _Ground) -> Callable[[str], Coroutine[None, None, bool]]:
    async def is_idle(route: str) -> bool:
        is_alone = ground.store.database.dialect == "sqlite"
        return not is_alone and await ground.fleet.has_idle(route, ground.identity)

    return is_idle


def _member(ground: _Ground, routes: Sequence[Route]) -> Member:
    now, devices = ground.clock(), len(ground.devices.all)
    return Member(
        id=ground.identity,
        name=f"{socket.gethostname()}:{os.getpid()}"[:200],
        version=version("enlarger")[:32],
        routes=tuple(map(str, routes)),
        devices=devices,
        idle=devices,
        started_at=now,
        seen_at=now,
    )


def _told(metrics: Metrics, webhooks: Webhooks) -> Callable[[Job], None]:
    """Who hears at once that a job has ended."""

    def ended(job: Job) -> None:
        metrics.job_ended(job)
        if job.webhook_url:
            webhooks.wake()

    return ended


def _exposed(metrics: Metrics, ground: _Ground) -> Callable[[], Coroutine[None, None, bytes]]:
    async def exposed() -> bytes:
        waiting = await depths(ground.store.database, ground.clock())
        return metrics.exposed(waiting, await ground.fleet.members())

    return exposed


async def _webhooks(ground: _Ground, service: Service, metrics: Metrics) -> Webhooks:
    settings, store = ground.settings, ground.store
    base_url = settings.public_base_url or ground.outside.local_url

    def message(job: Job) -> bytes:
        data = view(
            job,
            result_url=f"{base_url}/api/v3/predictions/{job.id}/result",
            output_url=lambda output: service.output_url(output, base_url),
            nsfw_threshold=settings.nsfw_threshold,
        )
        return json.dumps(data).encode()

    sources = Sources(
        job=store.get, body=message, master=await store.secret("webhooks", os.urandom(_SECRET_BYTES))
    )
    return Webhooks(
        outbox=Outbox(store.database),
        sources=sources,
        settings=settings,
        clock=ground.clock,
        random=random.random,
        new_id=ground.outside.new_id,
        on_attempt=metrics.webhook_attempted,
    )


def _answers(store: Store) -> Check:
    async def database_answers() -> bool:
        return await store.count_unfinished() >= 0

    return database_answers
