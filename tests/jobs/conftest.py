"""The parts of a service, all of them real, in a temporary folder; and a device that copies bytes."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from enlarger.engine.options import Options
from enlarger.errors import DeviceCrashed
from enlarger.jobs.blobs import LocalBlobs, input_key
from enlarger.jobs.changes import Changes, Progress, TileDone
from enlarger.jobs.job import Job, Key
from enlarger.jobs.queue import Queue
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.jobs.worker import Worker
from enlarger.settings import Settings

from ..one_step import make_worker


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Copied:
    media_type: str = "image/png"
    width: int = 4
    height: int = 2
    report: dict[str, Any] = field(default_factory=lambda: {"timings_ms": {"network": 12.4}})


HALF = TileDone(left=0, top=0, width=2, height=2, done=1, total=2, fraction=0.5)


@dataclass
class Device:
    """Computes by copying, in `seconds`. Crashes the first `crashes` times; waits while `gate` is closed."""

    seconds: float = 0.0
    crashes: int = 0
    raises: Exception | None = None
    nsfw_score: float | None = None
    timings_ms: dict[str, float] = field(default_factory=lambda: {"network": 12.4})
    pictures: list[bytes] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def upscale(
        self, source: Path, target: Path, options: Options, on_progress: Callable[[Progress], None]
    ) -> Copied:
        self.pictures.append(source.read_bytes())
        self.busy += 1
        self.most_busy = max(self.busy, self.most_busy)
        on_progress(HALF)
        self.started.set()
        try:
            await self.gate.wait()
            await asyncio.sleep(self.seconds)
        finally:
            self.busy -= 1
        if len(self.pictures) <= self.crashes:
            raise DeviceCrashed("gone")
        if self.raises:
            raise self.raises
        target.write_bytes(b"upscaled " + source.read_bytes())
        report = {"timings_ms": self.timings_ms, "nsfw_score": self.nsfw_score}
        known = {name: value for name, value in report.items() if value is not None}
        return Copied(f"image/{options.output_format.replace('auto', 'png')}", report=known)


class PictureServer(socketserver.ThreadingTCPServer):
    """An HTTP server on loopback. `routes` maps a path to what writes the whole answer; counts connections."""

    allow_reuse_address = True

    def __init__(self, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _Answer)
        self.routes: dict[str, Callable[[BinaryIO], None]] = {}
        self.requests: list[str] = []
        self.connections = 0
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def answer(self, path: str, body: bytes = b"", status: str = "200 OK", *headers: str) -> None:
        """Answer `path` with this, and an honest Content-Length."""
        head = "\r\n".join(
            [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        )
        self.routes[path] = lambda out: out.write(head.encode() + b"\r\n\r\n" + body) and None

    def get_request(self) -> Any:
        accepted = super().get_request()
        self.connections += 1
        return accepted


class _Answer(socketserver.StreamRequestHandler):
    server: PictureServer

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        self.server.requests.append(head.decode())
        try:
            self.server.routes[head.split()[1].decode()](self.wfile)
        except (BrokenPipeError, ConnectionResetError):
            return  # the client has seen enough


@pytest.fixture
def pictures() -> Generator[PictureServer]:
    server = PictureServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        drain_seconds=0,
        max_inline_bytes=100,
        max_backlog_jobs=3,
        min_free_bytes=0,
        reuse_results=False,
    )


@pytest.fixture
async def store(settings: Settings, queue: Queue) -> AsyncGenerator[Store]:
    store = Store.open(settings.data_dir / "enlarger.sqlite")
    store.queue = queue
    await store.migrate()
    yield store
    await store.close()


@pytest.fixture
def blobs(settings: Settings) -> LocalBlobs:
    return LocalBlobs(settings.data_dir / "blobs")


@pytest.fixture
def queue() -> Queue:
    return Queue.in_memory(retry_seconds=0.01)


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def worker(
    store: Store,
    blobs: LocalBlobs,
    queue: Queue,
    device: Device,
    settings: Settings,
    clock: Clock,
    changes: Changes,
) -> Worker:
    return make_worker(
        store=store,
        blobs=blobs,
        queue=queue,
        compute=device,
        settings=settings,
        clock=clock,
        changes=changes,
    )


@pytest.fixture
def new_id() -> Callable[[], str]:
    numbers = iter(range(1, 10_000))
    return lambda: f"{next(numbers):032x}"


@pytest.fixture
def service(
    store: Store,
    blobs: LocalBlobs,
    settings: Settings,
    clock: Clock,
    new_id: Callable[[], str],
    changes: Changes,
) -> Service:
    return Service(
        store=store,
        blobs=blobs,
        settings=settings,
        clock=clock,
        new_id=new_id,
        link_secret=b"s" * 32,
        changes=changes,
    )


@pytest.fixture
def key() -> Key:
    return Key(id="a" * 32, name="test", created_at=1.0)


@pytest.fixture
def new_job(clock: Clock, key: Key, new_id: Callable[[], str]) -> Callable[..., Job]:
    """A job as `submit` would make it; keywords replace its fields."""

    def make(**values: Any) -> Job:
        defaults: dict[str, Any] = {
            "id": new_id(),
            "key_id": key.id,
            "model": "wavespeed-ai/real-esrgan",
            "input": {"scale": 4},
            "options": {"scale": 4.0},
            "created_at": clock(),
        }
        return Job(**defaults | values)

    return make


@pytest.fixture
def inline_job(store: Store, blobs: LocalBlobs, new_job: Callable[..., Job]) -> Callable[..., Any]:
    """Add a job whose picture is stored already; keywords replace its fields."""

    async def add(data: bytes = b"picture", **values: Any) -> Job:
        job = new_job(**values)
        await blobs.put(input_key(job.id), data)
        job = new_job(**{"id": job.id, "source_blob": input_key(job.id)} | values)
        await store.add(job)
        return job

    return add
