"""The composition root: from settings to a process that serves. `assembly` puts its parts together.

`enlarger serve` is HTTP and worker in one event loop, the computation in child processes; `api` and `worker` are one
half of it each, for many machines.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing
from importlib import import_module
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any

import uvicorn

from enlarger.assembly import Outside, Parts, Role, assembled
from enlarger.engine.child import ChildConfig, DeviceChild
from enlarger.engine.networks.weights_folder import WeightsFolder
from enlarger.errors import InvalidOption
from enlarger.jobs.store import Store
from enlarger.logs import set_up_logging
from enlarger.settings import Settings
from enlarger.sockets import listen, url_of

_OPEN_REQUESTS_SECONDS = 10
"""At shutdown, time for requests under way to be answered."""
_KEEP_ALIVE_SECONDS = 75
"""Longer than the minute for which proxies keep an idle connection: if the server closed it first, it might do so
just when the next request is on its way, which then fails."""
_ACCEPTS_A_TURN = 16
"""Connections accepted in one turn of the event loop. uvloop accepts one for each listening socket it is given; under
load new connections would wait in the kernel for many seconds, where nothing can refuse them."""


def run(service: Coroutine[Any, Any, None]) -> None:
    """Run `service` to its end in the quickest event loop there is."""
    # With uvloop and httptools a poll costs half of what it costs with what asyncio and uvicorn bring along.
    uvloop = import_module("uvloop") if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
        runner.run(service)


async def run_service(
    settings: Settings, announce: Callable[[str, str], None], role: Role = Role.SERVE
) -> None:
    """Serve until SIGTERM or SIGINT; then answer what is under way, and leave unfinished jobs to others.

    `announce` gets the URL of the server and the first key's secret once requests are taken; the secret is empty
    when nobody knows it or it came from the settings. Raises InvalidOption when other machines could reach the
    server and no key is valid, or when the role needs a database that several processes can use.
    """
    _check_shared(settings, role)
    set_up_logging(settings.log_level, as_json=settings.log_json)
    names = [] if role is Role.API else settings.device.split(",")
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(closing(listen(settings.host, settings.port)))
        devices = {name: await stack.enter_async_context(_child(settings, name)) for name in names}
        # Questions have a child of their own, so that they need not wait for the picture being computed.
        planner = await stack.enter_async_context(_child(settings, settings.device.split(",")[0]))
        outside = Outside(
            devices=devices,
            planner=planner,
            weights=WeightsFolder(settings.weights_dir, mirrors=settings.weights_mirrors),
            local_url=url_of(listener),
        )
        async with assembled(settings, role, outside) as parts:
            if role is not Role.WORKER:
                await _check_keys(parts.store, listener)
            await _serve(parts, listener, announce)


def _check_shared(settings: Settings, role: Role) -> None:
    """Raises InvalidOption when half a service has nothing that its other half could reach."""
    if role is Role.SERVE:
        return
    shared = {"database_url": settings.database_url, "blob_url": settings.blob_url}
    for name, value in shared.items():
        if not value:
            raise InvalidOption(
                f"`enlarger {role.value}` needs a {name} that its other half reaches as well: set "
                f"ENLARGER_{name.upper()}, or run `enlarger serve`, which is both halves",
                name,
            )


@asynccontextmanager
async def _child(settings: Settings, device: str) -> AsyncGenerator[DeviceChild]:
    """The process that computes on a device; it starts at the first job and ends at the exit."""
    child = DeviceChild(
        ChildConfig(
            device=device,
            threads=settings.threads,
            weights_dir=settings.weights_dir,
            max_input_megapixels=settings.max_input_megapixels,
            max_output_megapixels=settings.max_output_megapixels,
        )
    )
    try:
        yield child
    finally:
        await child.close()


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


async def _serve(parts: Parts, listener: socket.socket, announce: Callable[[str, str], None]) -> None:
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
