"""The device child: a process that computes, so that nothing else has to.

It is started at the first job, stays warm between jobs, and is replaced when it dies. The parent talks to it
over one pipe:

    parent ─▶ child    Request, then perhaps "cancel"
    child  ─▶ parent   Progress …, then Finished, Planned or Failure

A child whose parent is gone ends itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enlarger.engine.options import Options
from enlarger.engine.parent import end_with
from enlarger.errors import DeviceCrashed, EnlargerError, error_from

if TYPE_CHECKING:
    from enlarger.engine.decoder import Decoder
    from enlarger.engine.pipeline import Engine

CANCEL_GRACE_SECONDS = 5.0
_LAST_WORDS_SECONDS = 0.5
NICENESS = 10
"""The computing process steps back, so that the server answers while all cores are busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildConfig:
    """What an engine in a child is made with."""

    device: str = "auto"
    threads: int = 0
    weights_dir: Path | None = None
    max_input_megapixels: float = 64
    max_output_megapixels: float = 400


@dataclass(frozen=True, slots=True)
class Request:
    """Upscale `source` into `target`; without a target, only tell what that would be."""

    source: Path
    options: Options
    target: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One more rectangle is done. Its place is in pixels of the result; done and total count input pixels."""

    left: int
    top: int
    width: int
    height: int
    done: int
    total: int

    @property
    def fraction(self) -> float:
        return self.done / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The result lies, complete, in the target file."""

    media_type: str
    width: int
    height: int
    report: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Planned:
    """What upscaling would be, in JSON types."""

    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the tree, on its way through the pipe."""

    code: str
    message: str


Message = Progress | Finished | Planned | Failure | None  # None: the pipe broke


class DeviceChild:
    """The parent's end. One request at a time; further ones wait their turn."""

    def __init__(self, config: ChildConfig | None = None) -> None:
        self._config = config or ChildConfig()
        self._turn = asyncio.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()

    @property
    def pid(self) -> int | None:
        """Of the running child; None before the first job and after a crash."""
        return self._process.pid if self._process is not None and self._process.is_alive() else None

    async def upscale(
        self, source: Path, target: Path, options: Options, on_progress: Callable[[Progress], None]
    ) -> Finished:
        """Upscale the picture file `source` into the file `target`.

        Cancelling this coroutine cancels the work between two tiles; a child that does not stop within
        CANCEL_GRACE_SECONDS is killed. Raises the error the engine raised, or DeviceCrashed when the child died;
        the next call starts a new one.
        """
        answer = await self._asked(Request(source, options, target), on_progress)
        if not isinstance(answer, Finished):
            raise DeviceCrashed("the process that computes gave an answer to something else")
        return answer

    async def plan(self, source: Path, options: Options) -> dict[str, Any]:
        """What upscaling the picture file `source` would be, from its header: size, model, memory, seconds.

        Waits while a picture is computed: give questions a child of their own. Raises as `upscale` does.
        """
        answer = await self._asked(Request(source, options), lambda progress: None)
        if not isinstance(answer, Planned):
            raise DeviceCrashed("the process that computes gave an answer to something else")
        return answer.plan

    async def _asked(self, request: Request, on_progress: Callable[[Progress], None]) -> Finished | Planned:
        async with self._turn:
            pipe = self._started()
            try:
                pipe.send(request)
                return await self._answer(on_progress)
            except OSError as error:
                self._kill()
                raise DeviceCrashed("the process that computes ended before it took the work") from error
            except asyncio.CancelledError:
                stopping = asyncio.ensure_future(self._stop_work(pipe))
                while not stopping.done():
                    # Whoever cancels twice still waits: the next turn must not meet the end of this one.
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.shield(stopping)
                raise

    async def close(self) -> None:
        """End the child. A request under way fails with DeviceCrashed."""
        if self._process is not None:
            self._process.kill()
        self._kill()

    async def _answer(self, on_progress: Callable[[Progress], None]) -> Finished | Planned:
        while True:
            message = await self._inbox.get()
            if isinstance(message, Finished | Planned):
                return message
            if isinstance(message, Failure):
                raise error_from(message.code, message.message)
            if message is None:
                raise DeviceCrashed(f"the process that computes ended unexpectedly ({self._kill()})")
            on_progress(message)

    async def _stop_work(self, pipe: Connection) -> None:
        """Ask the child to stop and wait for its last word; kill it if none comes."""
        try:
            pipe.send("cancel")
            async with asyncio.timeout(CANCEL_GRACE_SECONDS):
                while isinstance(await self._inbox.get(), Progress):
                    pass
        except (OSError, TimeoutError):
            await self.close()

    def _started(self) -> Connection:
        if self._pipe is not None and self.pid is not None:
            return self._pipe
        self._kill()
        spawning = multiprocessing.get_context("spawn")
        ours, theirs = spawning.Pipe()
        process = spawning.Process(
            target=serve_requests, args=(theirs, self._config), name="enlarger-device", daemon=True
        )
        process.start()
        theirs.close()
        inbox: asyncio.Queue[Message] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_forward, args=(ours, inbox, loop), daemon=True).start()
        self._process, self._pipe, self._inbox = process, ours, inbox
        return ours

    def _kill(self) -> str:
        """End the child, if it has not ended by itself; tells how it ended."""
        process, self._process, self._pipe = self._process, None, None
        if process is None:
            return "it was not running"
        # A broken pipe is seen a moment before the end of the process: let it end in its own way.
        process.join(_LAST_WORDS_SECONDS)
        process.kill()
        process.join()
        return f"exit code {process.exitcode}"


def _forward(pipe: Connection, inbox: asyncio.Queue[Message], loop: asyncio.AbstractEventLoop) -> None:
    """Carry messages from the pipe into the event loop until the child is gone; then None, once."""
    message: Message = Failure("", "")
    with pipe:
        while message is not None:
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                message = None
            # The loop may have closed while the child was ending: nobody is left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(inbox.put_nowait, message)


def serve_requests(pipe: Connection, config: ChildConfig) -> None:
    """The child's whole life: one request after another until the parent hangs up."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with(parent.sentinel)
    # Ctrl-C in a terminal reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    bench = _opened(config)
    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        if isinstance(request, Request):  # a late "cancel" belongs to work that has ended
            pipe.send(_answered(bench, request, pipe))


@dataclass(frozen=True, slots=True)
class _Bench:
    engine: Engine
    decoder: Decoder


def _opened(config: ChildConfig) -> _Bench:
    # Imported here: the parent never loads what computes.
    from enlarger.engine.decoder import Decoder, DecoderLimits
    from enlarger.engine.pipeline import Engine
    from enlarger.engine.plan import Limits

    limits = Limits(
        max_input_pixels=round(config.max_input_megapixels * 1e6),
        max_output_pixels=round(config.max_output_megapixels * 1e6),
    )
    engine = Engine(
        device=config.device, threads=config.threads, limits=limits, weights_dir=config.weights_dir
    )
    return _Bench(engine, Decoder(DecoderLimits(max_pixels=limits.max_input_pixels)))


def _answered(bench: _Bench, request: Request, pipe: Connection) -> Finished | Planned | Failure:
    try:
        if request.target is None:
            return Planned(_plan(bench, request))
        return _finished(bench, request, request.target, pipe)
    except EnlargerError as error:
        return Failure(error.code, error.message)
    except MemoryError:
        return Failure("out_of_memory", "the machine has too little free memory for this picture")
    except OSError as error:  # a full disk, say: no reason to die and try again
        return Failure("internal_error", f"a file could not be read or written: {error}")


def _finished(bench: _Bench, request: Request, target: Path, pipe: Connection) -> Finished:
    from enlarger.engine import safety
    from enlarger.engine.pictures.codec import FORMATS
    from enlarger.engine.tiles import Tile, Watch
    from enlarger.engine.timing import Timings, timed

    def finished(tile: Tile) -> None:
        pipe.send(
            Progress(
                left=tile.left,
                top=tile.top,
                width=tile.width,
                height=tile.height,
                done=tile.done,
                total=tile.total,
            )
        )

    timings: Timings = {}
    with timed(timings, "decode"):
        source = bench.decoder.open(request.source, target.parent, frame=request.options.frame)
    watch = Watch(finished=finished, cancelled=pipe.poll)
    result = bench.engine.upscale(source, request.options, watch=watch)
    result.save(target)
    with timed(timings, "safety"):
        score = safety.nsfw_score(result.pixels) if safety.is_available() else None
    result.report["nsfw_score"] = score
    result.report["nsfw_check"] = "open_nsfw" if score is not None else "not installed: no check ran"
    result.report["timings_ms"] |= timings
    return Finished(
        media_type=FORMATS[result.format].media_type,
        width=result.size.width,
        height=result.size.height,
        report=result.report,
    )


def _plan(bench: _Bench, request: Request) -> dict[str, Any]:
    from enlarger.engine.plan import Subject

    header = bench.decoder.probe(request.source)
    frames = 1 if request.options.frame is not None else header.frames
    subject = Subject(size=header.size, depth=header.depth, has_alpha=header.has_alpha, frames=frames)
    return bench.engine.plan(subject, request.options).told()
