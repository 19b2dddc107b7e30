"""The device child: a process that computes, so that nothing else has to. Its whole life.

Requests come through one pipe and wait in three lanes, each a thread that works off one at a time, in the order they
came. So one picture is decoded and one encoded while a third is computed:

    Prepare, Ask ─▶ decode and plan        Compute ─▶ the device        Encode ─▶ write the file

What computes, decodes or encodes does so without Python's lock. A child whose parent is gone ends itself.
"""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from enlarger.engine.child_messages import (
    Answer,
    Ask,
    Cancel,
    ChildConfig,
    Compute,
    Computed,
    Encode,
    Failure,
    Finished,
    Forget,
    Outcome,
    Planned,
    Prepare,
    Prepared,
    Progress,
    Request,
)
from enlarger.engine.parent import end_with
from enlarger.errors import Cancelled, EnlargerError, StorageFull, is_full_disk

if TYPE_CHECKING:
    from enlarger.engine.decoder import Decoder
    from enlarger.engine.pipeline import Engine
    from enlarger.engine.result import Result
    from enlarger.engine.tiles import Tile
    from enlarger.engine.work import Work

NICENESS = 10
"""The computing process steps back, so that the server answers while all cores are busy."""


def serve_requests(pipe: Connection, config: ChildConfig) -> None:
    """One request after another until the parent hangs up."""
    parent = parent_process()
    if parent is not None:
        end_with(parent.sentinel)
    # Ctrl-C in a terminal reaches the whole group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    threading.excepthook = _end_by
    _Server(pipe, _Bench(config)).serve()
    os._exit(0)  # whatever a lane is in the middle of


def _end_by(error: threading.ExceptHookArgs) -> None:
    """A mistake of ours in any lane ends the process, as in a program of one thread: its parent starts another."""
    threading.__excepthook__(error)
    os._exit(1)


@dataclass(slots=True)
class _Task:
    """A request under way. `started`: a lane has taken it up."""

    request: Request
    started: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)


class _Server:
    """Reads the pipe; whatever takes time happens in the lanes."""

    def __init__(self, pipe: Connection, bench: _Bench) -> None:
        self._pipe = pipe
        self._bench = bench
        # Guards the pipe's writing end, and what the reader and the lanes both change: the tasks, what is held.
        self._lock = threading.RLock()
        self._tasks: dict[int, _Task] = {}
        reading, computing, writing = (self._lane(name) for name in ("decode", "compute", "encode"))
        self._lanes = {Prepare: reading, Ask: reading, Compute: computing, Encode: writing}

    def serve(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except EOFError:
                return
            with self._lock:
                if isinstance(message, Cancel):
                    self._cancel(message.id)
                elif isinstance(message, Forget):
                    self._bench.held.pop(message.id, None)
                else:
                    task = self._tasks[message.id] = _Task(message)
                    self._lanes[type(message)].put(task)

    def _lane(self, name: str) -> SimpleQueue[_Task]:
        lane: SimpleQueue[_Task] = SimpleQueue()
        threading.Thread(target=self._work_off, args=(lane,), name=name, daemon=True).start()
        return lane

    def _work_off(self, lane: SimpleQueue[_Task]) -> None:
        while True:
            task = lane.get()
            with self._lock:
                if task.cancelled.is_set():  # and answered
                    continue
                task.started = True
            self._end(task, _outcome(lambda task=task: self._done(task)))

    def _done(self, task: _Task) -> Outcome:
        request, bench = task.request, self._bench
        if isinstance(request, Ask):
            return bench.plan(request)
        if isinstance(request, Prepare):
            work = bench.decoded(request)
            with self._lock:
                if not task.cancelled.is_set():
                    bench.held[request.id] = _Held(work)
            return _prepared(request, work)
        if isinstance(request, Compute):
            return bench.compute(request, lambda tile: self._tell(request, tile), task.cancelled.is_set)
        return bench.encode(request, task.cancelled.is_set)

    def _cancel(self, id: int) -> None:
        task = self._tasks.get(id)
        self._bench.held.pop(id, None)  # it may have been prepared a moment ago
        if task is None:
            return
        task.cancelled.set()
        # A decoder cannot be interrupted, but nobody need wait for it: what it gives is dropped.
        if not task.started or isinstance(task.request, Prepare | Ask):
            self._end(task, Failure(Cancelled.code, "the work was cancelled"))

    def _end(self, task: _Task, outcome: Outcome) -> None:
        with self._lock:
            if self._tasks.pop(task.request.id, None) is not None:
                self._pipe.send(Answer(task.request.id, outcome))

    def _tell(self, request: Compute, tile: Tile) -> None:
        progress = Progress(
            left=tile.left,
            top=tile.top,
            width=tile.width,
            height=tile.height,
            done=tile.done,
            total=tile.total,
        )
        with self._lock:
            self._pipe.send(Answer(request.id, progress))


def _outcome(done: Callable[[], Outcome]) -> Outcome:
    try:
        return done()
    except EnlargerError as error:
        return Failure(error.code, error.message)
    except MemoryError:
        return Failure("out_of_memory", "the machine has too little free memory for this picture")
    except OSError as error:  # no reason to die and try again
        if is_full_disk(error):
            return Failure(StorageFull.code, f"The disk is full: {error.strerror}")
        return Failure("internal_error", f"a file could not be read or written: {error}")


@dataclass(slots=True)
class _Held:
    """A picture between Prepare and Forget."""

    work: Work
    result: Result | None = None


class _Bench:
    """The engine and the decoder, and the pictures that are held for them."""

    def __init__(self, config: ChildConfig) -> None:
        self.held: dict[int, _Held] = {}
        self._engine, self._decoder = _opened(config)

    def plan(self, request: Ask) -> Planned:
        from enlarger.engine.plan import Subject

        header = self._decoder.probe(request.source)
        frames = 1 if request.options.frame is not None else header.frames
        subject = Subject(size=header.size, depth=header.depth, has_alpha=header.has_alpha, frames=frames)
        return Planned(self._engine.plan(subject, request.options).told())

    def decoded(self, request: Prepare) -> Work:
        from enlarger.engine.timing import Timings, timed

        timings: Timings = {}
        with timed(timings, "decode"):
            source = self._decoder.open(request.source, request.folder, frame=request.options.frame)
            sha256 = _sha256(request.source)
        work = self._engine.prepare(source, request.options, source_sha256=sha256)
        work.timings.update(timings)
        return work

    def compute(
        self, request: Compute, finished: Callable[[Tile], None], cancelled: Callable[[], bool]
    ) -> Computed:
        from enlarger.engine.tiles import Watch

        held = self._held(request.prepared)
        held.result = None
        started = time.time()
        watch = Watch(finished=finished, cancelled=cancelled)
        result = self._engine.compute(held.work, watch=watch, bands=request.bands)
        result.report["device_busy"] = [round(started, 3), round(time.time(), 3)]
        held.result = result
        return Computed()

    def encode(self, request: Encode, cancelled: Callable[[], bool]) -> Finished:
        from enlarger.engine import safety
        from enlarger.engine.pictures.codec import FORMATS
        from enlarger.engine.timing import timed

        held = self._held(request.prepared)
        result = held.result
        if result is None:
            raise EnlargerError("the picture was not computed before it was to be written")
        result.save(request.target, cancelled=cancelled)
        with timed(result.report["timings_ms"], "safety"):
            score = safety.nsfw_score(result.pixels) if safety.is_available() else None
        result.report["nsfw_score"] = score
        result.report["nsfw_check"] = "open_nsfw" if score is not None else "not installed: no check ran"
        held.result = None
        return Finished(
            media_type=FORMATS[result.format].media_type,
            width=result.size.width,
            height=result.size.height,
            report=result.report,
        )

    def _held(self, id: int) -> _Held:
        held = self.held.get(id)
        if held is None:
            raise EnlargerError("the picture was forgotten while it was worked on")
        return held


def _opened(config: ChildConfig) -> tuple[Engine, Decoder]:
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
    return engine, Decoder(DecoderLimits(max_pixels=limits.max_input_pixels))


def _prepared(request: Prepare, work: Work) -> Prepared:
    return Prepared(
        id=request.id,
        fingerprint=work.fingerprint,
        megapixels=work.input_pixels / 1e6,
        can_resume=work.can_resume,
        plan=work.plan.told(),
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
