"""The parent's end of the device child: starts it at the first job, keeps it warm, and replaces it when it dies.

A picture takes three steps there, of which those of different pictures overlap:

    async with child.prepared(source, folder, options) as ready:     decoded and planned
        await child.compute(ready, on_progress)                      on the device, one after another
        finished = await child.encode(ready, target)                 the device is free for the next
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

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
from enlarger.engine.child_process import serve_requests
from enlarger.engine.options import Options
from enlarger.errors import DeviceCrashed, error_from

__all__ = ["ChildConfig", "DeviceChild", "Finished", "Prepared", "Progress"]

Expected = TypeVar("Expected", Prepared, Computed, Finished, Planned)
OnProgress = Callable[[Progress], None]

CANCEL_GRACE_SECONDS = 5.0
_LAST_WORDS_SECONDS = 0.5


class DeviceChild:
    """One child at a time. Cancelling a call cancels its work: between two tiles, or between two bands of the file; a
    child that does not stop within CANCEL_GRACE_SECONDS is killed.

    Calls raise the error the engine raised, or DeviceCrashed when the child died, which ends all that is under way or
    prepared; the next picture gets a new child.
    """

    def __init__(self, config: ChildConfig | None = None) -> None:
        self._config = config or ChildConfig()
        self._ids = count(1)
        self._link: _Link | None = None

    @property
    def pid(self) -> int | None:
        """Of the running child; None before the first job and after a crash."""
        return self._link.pid if self._link is not None else None

    @asynccontextmanager
    async def prepared(self, source: Path, folder: Path, options: Options) -> AsyncGenerator[Prepared]:
        """The picture file `source`, decoded into `folder`, planned, and refused where `compute` would refuse it.

        Takes turns with other decoding only. The child forgets the picture at the end.
        """
        link = self._started()
        request = Prepare(id=next(self._ids), source=source, folder=folder, options=options)
        prepared = await link.asked(request, Prepared)
        link.prepared.add(prepared.id)
        try:
            yield prepared
        finally:
            link.prepared.discard(prepared.id)
            link.tell(Forget(prepared.id))

    async def compute(self, prepared: Prepared, on_progress: OnProgress, bands: Path | None = None) -> None:
        """Run the networks. Calls take turns, in the order they came; what is encoded or decoded does not count.

        `bands` is a folder: finished rows appear in it as files `*.band`, complete from the first moment, and those
        that are there at the start, and fit, are not computed again.
        """
        request = Compute(id=next(self._ids), prepared=prepared.id, bands=bands)
        await self._link_of(prepared).asked(request, Computed, on_progress)

    async def encode(self, prepared: Prepared, target: Path) -> Finished:
        """Write what was computed to the file `target`, once. The device may compute something else."""
        request = Encode(id=next(self._ids), prepared=prepared.id, target=target)
        return await self._link_of(prepared).asked(request, Finished)

    async def upscale(
        self, source: Path, target: Path, options: Options, on_progress: OnProgress
    ) -> Finished:
        """All three steps: upscale the picture file `source`, decoded beside it, into the file `target`."""
        async with self.prepared(source, target.parent, options) as prepared:
            await self.compute(prepared, on_progress)
            return await self.encode(prepared, target)

    async def plan(self, source: Path, options: Options) -> dict[str, Any]:
        """What upscaling the picture file `source` would be, from its header: size, model, memory, seconds.

        Waits while a picture is decoded, not while one is computed.
        """
        request = Ask(id=next(self._ids), source=source, options=options)
        return (await self._started().asked(request, Planned)).plan

    async def close(self) -> None:
        """End the child. Requests under way fail with DeviceCrashed."""
        link, self._link = self._link, None
        if link is not None:
            link.kill()

    def _started(self) -> _Link:
        if self._link is not None and self._link.pid is not None:
            return self._link
        if self._link is not None:
            self._link.end()
        self._link = _Link(self._config)
        return self._link

    def _link_of(self, prepared: Prepared) -> _Link:
        if self._link is None or prepared.id not in self._link.prepared:
            raise DeviceCrashed("the process that had prepared the picture has ended")
        return self._link


class _Link:
    """One child from its start to its end, and who waits for its answers."""

    def __init__(self, config: ChildConfig) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(
            target=serve_requests, args=(theirs, config), name="enlarger-device", daemon=True
        )
        self._process.start()
        theirs.close()
        self._ended = ""
        self._is_broken = False
        self._inboxes: dict[int, asyncio.Queue[Outcome | Progress | None]] = {}
        self.prepared: set[int] = set()
        loop = asyncio.get_running_loop()
        threading.Thread(target=_forward, args=(self._pipe, self._deliver, loop), daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Of the process, while it lives."""
        gone = self._is_broken or self._ended or not self._process.is_alive()
        return None if gone else self._process.pid

    async def asked(
        self, request: Request, kind: type[Expected], on_progress: OnProgress = lambda progress: None
    ) -> Expected:
        """The answer to `request`. Raises the error it is answered with, or DeviceCrashed."""
        inbox = self._inboxes[request.id] = asyncio.Queue()
        try:
            if self._is_broken or not self.tell(request):
                self.end()
                raise DeviceCrashed("the process that computes ended before it took the work")
            return await self._answer(inbox, kind, on_progress)
        except asyncio.CancelledError:
            stopping = asyncio.ensure_future(self._stopped(request.id, inbox))
            while not stopping.done():
                # Whoever cancels twice still waits: files of the request must not be touched after this.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.shield(stopping)
            raise
        finally:
            del self._inboxes[request.id]

    def tell(self, message: Request | Cancel | Forget) -> bool:
        """False where the child is gone."""
        try:
            self._pipe.send(message)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> str:
        """End the child, if it has not ended by itself; tells how it ended."""
        if not self._ended:
            # A broken pipe is seen a moment before the end of the process: let it end in its own way.
            self._process.join(_LAST_WORDS_SECONDS)
            self._process.kill()
            self._process.join()
            self._ended = f"exit code {self._process.exitcode}"
        return self._ended

    async def _answer(
        self,
        inbox: asyncio.Queue[Outcome | Progress | None],
        kind: type[Expected],
        on_progress: OnProgress,
    ) -> Expected:
        while True:
            message = await inbox.get()
            if isinstance(message, Progress):
                on_progress(message)
            elif isinstance(message, kind):
                return message
            elif isinstance(message, Failure):
                raise error_from(message.code, message.message)
            elif message is None:
                raise DeviceCrashed(f"the process that computes ended unexpectedly ({self.end()})")
            else:
                raise DeviceCrashed("the process that computes gave an answer to something else")

    async def _stopped(self, id: int, inbox: asyncio.Queue[Outcome | Progress | None]) -> None:
        """Ask the child to stop and wait for its last word; kill it if none comes."""
        try:
            async with asyncio.timeout(CANCEL_GRACE_SECONDS):
                if self.tell(Cancel(id)):
                    while isinstance(await inbox.get(), Progress):
                        pass
        except TimeoutError:
            self.kill()

    def _deliver(self, answer: Answer | None) -> None:
        """Put an answer where it is waited for; None, once the child is gone, everywhere."""
        if answer is None:
            self._is_broken = True
            self.prepared.clear()
            for inbox in self._inboxes.values():
                inbox.put_nowait(None)
        elif answer.id in self._inboxes:
            self._inboxes[answer.id].put_nowait(answer.body)


def _forward(
    pipe: Connection, deliver: Callable[[Answer | None], None], loop: asyncio.AbstractEventLoop
) -> None:
    """Carry answers from the pipe into the event loop until the child is gone; then None, once."""
    with pipe:
        while True:
            try:
                answer: Answer | None = pipe.recv()
            except (EOFError, OSError):
                answer = None
            # The loop may have closed while the child was ending: nobody is left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(deliver, answer)
            if answer is None:
                return
