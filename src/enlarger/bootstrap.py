"""The composition root: the only file that names concrete classes.

`run_service` is `enlarger serve`: HTTP and worker in one event loop, the computation in a child process.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from uuid import uuid4

import uvicorn
from fastapi import FastAPI

from enlarger.api.app import create_app
from enlarger.api.context import Context
from enlarger.engine.child import ChildConfig, DeviceChild
from enlarger.errors import InvalidOption
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.data_folder import lock_data_folder
from enlarger.jobs.keys import ensure_first_key
from enlarger.jobs.queue import Queue
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.worker import Compute, Worker
from enlarger.settings import Settings

log = logging.getLogger(__name__)

_LINK_SECRET_BYTES = 32
_PORTS_TRIED = 100
_OPEN_REQUESTS_SECONDS = 10
"""At shutdown, time for requests under way to be answered."""
_OTHER_FIELDS_BYTES = 64 * 1024
"""Room in a request beside the base64 of its picture."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A service that runs in this event loop. `key` is the first key's secret, empty when nobody knows it."""

    store: Store
    service: Service
    worker: Worker
    app: FastAPI
    key: str


async def run_service(settings: Settings, announce: Callable[[str, str], None]) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is under way, and leave unfinished jobs to the next start.

    `announce` gets the URL of the server and the first key's secret once requests are taken.
    """
    device = DeviceChild(
        ChildConfig(
            device=settings.device,
            threads=settings.threads,
            weights_dir=settings.weights_dir,
            max_input_megapixels=settings.max_input_megapixels,
            max_output_megapixels=settings.max_output_megapixels,
        )
    )
    try:
        async with embedded(settings, device) as parts:
            with closing(_listener(settings.host, settings.port)) as listener:
                await _serve(parts, listener, announce)
    finally:
        await device.close()


@asynccontextmanager
async def embedded(
    settings: Settings,
    compute: Compute,
    *,
    clock: Callable[[], float] = time.time,
    new_id: Callable[[], str] = lambda: uuid4().hex,
) -> AsyncGenerator[Embedded]:
    """The parts of a service over the data folder, with the worker running; stopped and closed at exit.

    Raises InvalidOption when another server uses the folder.
    """
    with lock_data_folder(settings.data_dir):
        async with opened_store(settings) as store:
            blobs = LocalBlobs(settings.data_dir / "blobs")
            await blobs.clear_scratch()
            queue = Queue.in_memory()
            key = await ensure_first_key(
                store, settings.data_dir, now=clock(), new_id=new_id, random=os.urandom
            )
            service = Service(
                store=store,
                blobs=blobs,
                queue=queue,
                settings=settings,
                clock=clock,
                new_id=new_id,
                link_secret=await store.secret("links", os.urandom(_LINK_SECRET_BYTES)),
            )
            worker = Worker(
                store=store, blobs=blobs, queue=queue, compute=compute, settings=settings, clock=clock
            )
            async with _working(worker) as working:
                app = create_app(_context(settings, store, service, working))
                yield Embedded(store, service, worker, app, key)


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
async def _working(worker: Worker) -> AsyncGenerator[asyncio.Task[None]]:
    """The worker's loop as a task. Its failure is logged and makes the service unready; requests go on."""

    async def run() -> None:
        try:
            await worker.run()
        except Exception:
            log.exception("the worker's loop ended; no job is run until the server is started again")

    task = asyncio.create_task(run(), name="worker")
    try:
        yield task
    finally:
        await worker.stop()
        await task


def _context(settings: Settings, store: Store, service: Service, working: asyncio.Task[None]) -> Context:
    async def database_answers() -> bool:
        return await store.count_unfinished() >= 0

    async def worker_runs() -> bool:
        return not working.done()

    return Context(
        service=service,
        checks={"database": database_answers, "worker": worker_runs},
        public_base_url=settings.public_base_url,
        # Base64 writes three bytes as four characters.
        max_body_bytes=settings.max_inline_bytes * 4 // 3 + _OTHER_FIELDS_BYTES,
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
        )
    )
    # uvicorn raises a signal again once it has stopped: without handlers of ours that would end the process
    # before worker and device are closed.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    announce(_local_url(listener), parts.key)
    await server.serve(sockets=[listener])


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket on `port`, or on the next free one. Raises InvalidOption when there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise InvalidOption(
            f"host {host!r} is no address of this machine: {error.strerror}", "host"
        ) from error
    last = min(port + _PORTS_TRIED - 1, 65535) if port else 0
    for candidate in range(port, last + 1):
        # With protocol 0 asyncio leaves Nagle's algorithm on, and every answer takes 40 ms.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address[0], candidate))
            listener.listen()
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise InvalidOption(
                    f"cannot listen on {host} port {candidate}: {error.strerror}", "host"
                ) from error
        else:
            return listener
    raise InvalidOption(f"ports {port} to {last} are all in use; choose another with ENLARGER_PORT", "port")


def _local_url(listener: socket.socket) -> str:
    """The server as a browser on this machine reaches it."""
    bound, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(str(bound), str(bound))
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
