"""A real server on a loopback port: real store, queue, worker and blobs; only the network is Pillow's resize."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image, UnidentifiedImageError

from enlarger.assembly import Outside, Role, assembled
from enlarger.drivers import opened_store
from enlarger.engine.options import Options
from enlarger.errors import FeatureUnavailable, InvalidPicture, PictureTooLarge
from enlarger.jobs.keys import Grant, create_key
from enlarger.jobs.weights import Weights
from enlarger.settings import Settings

from ..one_step import InSteps

DEADLINE_SECONDS = 30
MAX_INLINE_BYTES = 100_000
SUBMIT = "/api/v3/wavespeed-ai/real-esrgan"


@dataclass(frozen=True)
class Resized:
    media_type: str
    width: int
    height: int
    report: dict[str, Any] = field(default_factory=lambda: {"timings_ms": {"network": 7}})


@dataclass(frozen=True)
class Tile:
    """One of the two halves of a result."""

    left: int
    top: int
    width: int
    height: int
    done: int
    total: int = 2

    @property
    def fraction(self) -> float:
        return self.done / self.total


class PillowCompute:
    """Stands where the device child stands, and enlarges without a network. `close()` holds the work up."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def upscale(
        self, source: Path, target: Path, options: Options, on_progress: Callable[[Any], None]
    ) -> Resized:
        if options.face_enhance:
            raise FeatureUnavailable("face_enhance needs face restoration, which this test does not have")
        result = await asyncio.to_thread(self._resize, source, target, options)
        half = result.height // 2
        on_progress(Tile(0, 0, result.width, half, 1))
        while not self._open.is_set():  # noqa: ASYNC110  (opened from another thread)
            await asyncio.sleep(0.01)
        on_progress(Tile(0, half, result.width, result.height - half, 2))
        return result

    async def plan(self, source: Path, options: Options) -> dict[str, Any]:
        with _opened(source) as picture:
            width, height = _enlarged(picture.size, options.scale)
        if width * height > 10**7:
            raise PictureTooLarge(f"the result would have {width}×{height} pixels")
        return {"width": width, "height": height, "seconds": 0.5}

    def _resize(self, source: Path, target: Path, options: Options) -> Resized:
        with _opened(source) as picture:
            size = _enlarged(picture.size, options.scale)
            large = picture.resize(size)
        large.save(target, format=options.output_format)
        return Resized(f"image/{options.output_format}", *size)


def _opened(source: Path) -> Image.Image:
    try:
        return Image.open(source)
    except UnidentifiedImageError as error:
        raise InvalidPicture("the bytes are not a picture") from error


def _enlarged(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


@contextlib.contextmanager
def loopback() -> Iterator[tuple[socket.socket, str]]:
    """A bound socket, and the address of the server that will listen on it."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # who comes before the server does waits here, and is not turned away
        yield listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def in_thread(start: Callable[[Future[Any], threading.Event], Any]) -> Iterator[Any]:
    """Run the coroutine of `start(started, stop)` in a thread; yields what it puts into `started`."""
    started: Future[Any] = Future()
    stop = threading.Event()

    def run() -> None:
        try:
            asyncio.run(start(started, stop))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield started.result(DEADLINE_SECONDS)
    finally:
        stop.set()
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


async def serve_until(app: FastAPI, listener: socket.socket, stop: threading.Event) -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))

    async def watch() -> None:
        await asyncio.to_thread(stop.wait)
        server.should_exit = True

    await asyncio.gather(server.serve(sockets=[listener]), watch())


@dataclass
class Running:
    """A server under test, spoken to as its owner; `clock_offset_seconds` moves its clock."""

    url: str
    key: str
    data_dir: Path
    compute: PillowCompute = field(default_factory=PillowCompute)
    clock_offset_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.http = self.client(self.key)

    def client(self, key: str) -> httpx2.Client:
        """A client with another key."""
        return httpx2.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=30)

    def submit(self, *, headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
        body = json.dumps({"image": picture(), **fields})
        return self.http.post(SUBMIT, content=body, headers=headers)

    def add_key(self, name: str, **grant: Any) -> str:
        """The secret of a further key."""

        async def create() -> str:
            async with opened_store(Settings(data_dir=self.data_dir)) as store:
                _, secret = await create_key(
                    store,
                    name,
                    now=time.time(),
                    new_id=lambda: uuid4().hex,
                    random=os.urandom,
                    grant=Grant(**grant),
                )
                return secret

        return asyncio.run(create())

    @contextlib.contextmanager
    def held_up(self) -> Iterator[None]:
        """No job ends before the exit."""
        self.compute.close()
        try:
            yield
        finally:
            self.compute.open()

    def finished(self, submitted: httpx2.Response) -> dict[str, Any]:
        """The prediction of a submit, polled until it ends."""
        assert submitted.status_code == 200, submitted.text
        return self.until(submitted.json()["data"]["id"], "completed", "failed", "cancelled")

    def poll(self, job_id: str, **headers: str) -> httpx2.Response:
        return self.http.get(f"/api/v3/predictions/{job_id}/result", headers=headers)

    def until(self, job_id: str, *states: str) -> dict[str, Any]:
        """The prediction, polled until it is in one of the states."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            data: dict[str, Any] = self.poll(job_id).json()["data"]
            if data["status"] in states:
                return data
            assert time.monotonic() < deadline, data
            time.sleep(0.01)


@contextlib.contextmanager
def running(data_dir: Path, weights: Weights | None = None, **settings: Any) -> Iterator[Running]:
    """The whole embedded service."""
    with loopback() as (listener, url):
        this = Running(url, "", data_dir)

        async def main(started: Future[str], stop: threading.Event) -> None:
            def clock() -> float:
                return time.time() + this.clock_offset_seconds

            values = {
                "max_inline_bytes": MAX_INLINE_BYTES,
                "min_free_bytes": 0,
                "reuse_results": False,
                **settings,
            }
            chosen = Settings(data_dir=data_dir, **values)
            outside = Outside(
                devices={"cpu": InSteps(this.compute)},
                clock=clock,
                planner=this.compute,
                weights=weights,
                local_url=url,
            )
            async with assembled(chosen, Role.SERVE, outside) as parts:
                started.set_result(parts.key)
                await serve_until(parts.app, listener, stop)

        with in_thread(main) as key:
            this.key = key
            this.__post_init__()
            with this.http:
                yield this


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[httpx2.Client]:
    """Any application, without what stands behind it."""
    with loopback() as (listener, url):

        async def main(started: Future[None], stop: threading.Event) -> None:
            started.set_result(None)
            await serve_until(app, listener, stop)

        with in_thread(main), httpx2.Client(base_url=url, timeout=30) as client:
            yield client


def picture(width: int = 7, height: int = 5) -> str:
    """A PNG of the given size as base64."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 80, 40)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="session")
def stranger() -> Iterator[httpx2.Client]:
    """A client without a key."""
    with httpx2.Client(timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("data")) as this:
        yield this
