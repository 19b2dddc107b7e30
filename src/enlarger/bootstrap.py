"""The composition root: with `drivers` the only file that names concrete classes.

`run_service` is `enlarger serve`: HTTP and worker in one event loop, the computation in a child process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any, Protocol
from uuid import uuid4

import uvicorn
from fastapi import FastAPI

from enlarger.api.app import create_app
from enlarger.api.context import Check, Context
from enlarger.drivers import open_blobs, open_pyramids
from enlarger.engine.child import ChildConfig, DeviceChild
from enlarger.engine.networks.weights_folder import WeightsFolder
from enlarger.errors import InvalidOption
from enlarger.jobs.changes import Changes
from enlarger.jobs.data_folder import lock_data_folder
from enlarger.jobs.job import Job, Key
from enlarger.jobs.keys import ensure_first_key, secret_hash
from enlarger.jobs.metrics import Metrics, depths
from enlarger.jobs.outbox import Outbox
from enlarger.jobs.preflight import Planner
from enlarger.jobs.queue import Queue
from enlarger.jobs.retention import Retention
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.view import view
from enlarger.jobs.viewer import Viewer
from enlarger.jobs.webhooks import Sources, Webhooks
from enlarger.jobs.weights import SharedDownloads, Weights
from enlarger.jobs.worker import Compute, Worker
from enlarger.logs import set_up_logging
from enlarger.settings import Settings
from enlarger.sockets import listen, url_of

log = logging.getLogger(__name__)

_SECRET_BYTES = 32
_OPEN_REQUESTS_SECONDS = 10
"""At shutdown, time for requests under way to be answered."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than the minute for which proxies keep an idle connection: if the server closed it first, it might do so
just when the next request is on its way, which then fails."""
_ACCEPTS_A_TURN = 16
"""Connections accepted in one turn of the event loop. uvloop accepts one for each listening socket it is given; under
load new connections would wait in the kernel for many seconds, where nothing can refuse them."""


class Loop(Protocol):
    """Something that works beside the requests, from `run` until `stop`."""

    async def run(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """A service that runs in this event loop. `key` is the first key's secret, empty when nobody knows it."""

    store: Store
    service: Service
    worker: Worker
    app: FastAPI
    key: str


def run(service: Coroutine[Any, Any, None]) -> None:
    """Run `service` to its end in the quickest event loop there is."""
    # With uvloop and httptools a poll costs half of what it costs with what asyncio and uvicorn bring along.
    uvloop = import_module("uvloop") if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        runner.run(service)


async def run_service(settings: Settings, announce: Callable[[str, str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is under way, and leave unfinished jobs to the next start.

    `announce` gets the URL of the server and the first key's secret once requests are taken; the secret is empty
    when nobody knows it or it came from the settings. Raises InvalidOption when other machines could reach the
    server and no key is valid.
    """
    set_up_logging(settings.log_level, as_json=settings.log_json)
    config = ChildConfig(
        device=settings.device,
        threads=settings.threads,
        weights_dir=settings.weights_dir,
        max_input_megapixels=settings.max_input_megapixels,
        max_output_megapixels=settings.max_output_megapixels,
    )
    # Questions have a child of their own, so that they need not wait for the picture being computed.
    device, planner = DeviceChild(config), DeviceChild(config)
    try:
        with closing(listen(settings.host, settings.port)) as listener:
            parts_of = embedded(
                settings,
                device,
                planner=planner,
                weights=WeightsFolder(settings.weights_dir, mirrors=settings.weights_mirrors),
                local_url=url_of(listener),
            )
            async with parts_of as parts:
                await _check_keys(parts.store, listener)
                await _serve(parts, listener, announce)
    finally:
        await device.close()
        await planner.close()


@asynccontextmanager
async def embedded(
    settings: Settings,
    compute: Compute,
    *,
    clock: Callable[[], float] = time.time,
    new_id: Callable[[], str] = lambda: uuid4().hex,
    planner: Planner | None = None,
    weights: Weights | None = None,
    local_url: str = "",
) -> AsyncGenerator[Embedded]:
    """The parts of a service over the data folder, with everything running; stopped and closed at exit.

    `local_url`: where webhooks find results when `public_base_url` is not set. Raises InvalidOption when another
    server uses the folder.
    """
    with lock_data_folder(settings.data_dir):
        async with opened_store(settings) as store, AsyncExitStack() as stack:
            blobs = open_blobs(settings, clock)
            await blobs.clear_scratch()
            key = await _first_key(store, settings, clock(), new_id)
            queue, changes = Queue.in_memory(), Changes()
            downloads = SharedDownloads(weights, settings)
            link_secret = await store.secret("links", os.urandom(_SECRET_BYTES))
            service = Service(
                store=store,
                blobs=blobs,
                queue=queue,
                settings=settings,
                clock=clock,
                new_id=new_id,
                link_secret=link_secret,
                changes=changes,
                planner=planner,
                weights=downloads,
            )
            metrics = Metrics()
            base_url = settings.public_base_url or local_url
            webhooks = await _webhooks(settings, store, service, base_url, clock, new_id, metrics)
            worker = Worker(
                store=store,
                blobs=blobs,
                queue=queue,
                compute=compute,
                settings=settings,
                clock=clock,
                changes=changes,
                weights=downloads,
            )
            retention = Retention(database=store.database, blobs=blobs, settings=settings, clock=clock)
            store.on_end = _told(metrics, webhooks)
            loops: dict[str, Loop] = {"worker": worker, "webhooks": webhooks, "retention": retention}
            checks = {"database": _answers(store)}
            for name, loop in loops.items():
                checks[name] = _runs(await stack.enter_async_context(_running(name, loop)))
            viewer = Viewer(
                store=store,
                pyramids=await stack.enter_async_context(open_pyramids(blobs, settings)),
                clock=clock,
                link_secret=link_secret,
                retention_days=settings.retention_days,
            )
            context = Context(
                service=service,
                webhooks=webhooks,
                viewer=viewer,
                settings=settings,
                checks=checks,
                metrics=_exposed(metrics, store, clock),
            )
            yield Embedded(store, service, worker, create_app(context), key)


def _told(metrics: Metrics, webhooks: Webhooks) -> Callable[[Job], None]:
    """Who hears at once that a job has ended."""

    def ended(job: Job) -> None:
        metrics.job_ended(job)
        if job.webhook_url:
            webhooks.wake()

    return ended


def _exposed(
    metrics: Metrics, store: Store, clock: Callable[[], float]
) -> Callable[[], Coroutine[None, None, bytes]]:
    async def exposed() -> bytes:
        return metrics.exposed(await depths(store.database, clock()))

    return exposed


async def _webhooks(
    settings: Settings,
    store: Store,
    service: Service,
    base_url: str,
    clock: Callable[[], float],
    new_id: Callable[[], str],
    metrics: Metrics,
) -> Webhooks:
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
        clock=clock,
        random=random.random,
        new_id=new_id,
        on_attempt=metrics.webhook_attempted,
    )


@asynccontextmanager
async def opened_store(settings: Settings) -> AsyncGenerator[Store]:
    """The store of the data folder, its tables up to date; closed at exit."""
    store = Store.open(settings.data_dir / "enlarger.db")
    try:
        await store.migrate()
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def _running(name: str, loop: Loop) -> AsyncGenerator[asyncio.Task[None]]:
    """A loop as a task. Its failure is logged and makes the service unready; requests go on."""

    async def run() -> None:
        try:
            await loop.run()
        except Exception:
            log.exception("the loop of %s ended; start the server again", name)

    task = asyncio.create_task(run(), name=name)
    try:
        yield task
    finally:
        await loop.stop()
        await task


def _answers(store: Store) -> Check:
    async def database_answers() -> bool:
        return await store.count_unfinished() >= 0

    return database_answers


def _runs(task: asyncio.Task[None]) -> Check:
    async def runs() -> bool:
        return not task.done()

    return runs


async def _first_key(store: Store, settings: Settings, now: float, new_id: Callable[[], str]) -> str:
    """The secret to announce: that of the key made at the first start; none when the settings bring their own."""
    if settings.first_key is None:
        return await ensure_first_key(store, settings.data_dir, now=now, new_id=new_id, random=os.urandom)
    digest = secret_hash(settings.first_key.get_secret_value())
    if await store.key_by_hash(digest) is None:
        await store.add_key(Key(id=new_id(), name="first", created_at=now), digest)
    return ""


async def _check_keys(store: Store, listener: socket.socket) -> None:
    """Raises InvalidOption when machines other than this one can reach a server that nobody can use rightfully."""
    address = ip_address(listener.getsockname()[0])
    if address.is_loopback:
        return
    now = time.time()
    if not any(key.is_valid(now) for key in await store.keys()):
        raise InvalidOption(
            f"no API key is valid, so {address} is not served: make one with `enlarger keys create`, "
            "or listen on 127.0.0.1",
            "host",
        )


async def _serve(parts: Embedded, listener: socket.socket, announce: Callable[[str, str], None]) -> None:
    server = uvicorn.Server(
        uvicorn.Config(
            parts.app,
            lifespan="off",
            log_config=None,
            # The links in its lines open files.
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_OPEN_REQUESTS_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        )
    )
    # uvicorn raises a signal again once it has stopped: without handlers of ours that would end the process
    # before worker and device are closed.

    def stop() -> None:
        server.should_exit = True
        parts.service.let_go()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    gc.collect()
    gc.freeze()  # What is here stays. A full collection would walk through it all: 0.1 s without an answer.
    announce(url_of(listener), parts.key)
    # The server closes them all.
    again = [listener.dup() for _ in range(_ACCEPTS_A_TURN - 1)]
    await server.serve(sockets=[listener, *again])
