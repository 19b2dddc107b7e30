"""SharedDownloads: weights that jobs need and the machine has not, each file fetched once however many wait for it.

A file goes on being fetched while anybody waits for it. What has come is kept, so that the next call continues.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from enlarger.engine.options import Options
from enlarger.errors import ModelUnavailable
from enlarger.settings import Settings

logger = logging.getLogger(__name__)


class Missing(Protocol):
    """A weights file that is not on this machine. Two of the same name are the same file."""

    @property
    def model(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def command(self) -> str:
        """What the operator can run to bring it."""
        ...

    @property
    def is_needed(self) -> bool:
        """Whether the picture cannot be computed without it."""
        ...

    @property
    def is_published(self) -> bool:
        """Whether there is an address to fetch it from."""
        ...


class Weights(Protocol):
    """Where weights are kept. Both calls block."""

    def missing(self, options: Options) -> Sequence[Missing]:
        """The files that `options` need and this machine has not."""
        ...

    def fetch(self, missing: Any, progress: Callable[[int, int], None], stopped: threading.Event) -> None:
        """Bring one of those files here; calls `progress` with (bytes here, bytes in all).

        Raises EnlargerError; soon after `stopped` is set, Cancelled.
        """
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """What a job waits for, in words, and how long at the pace so far; 0 while that is not known."""

    text: str = ""
    seconds: float = 0.0


@dataclass
class _Transfer:
    """One file on its way, and how many jobs wait for it. `done` is written by the thread that fetches."""

    ended: asyncio.Future[None]
    began_at: float
    waiting: int = 0
    done: int = 0
    first: int | None = None
    """Bytes that were here when the first ones came: those of an earlier download."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def progressed(self, done: int, _total: int) -> None:
        if self.first is None:
            self.first, self.began_at = done, time.monotonic()
        self.done = done

    def bytes_a_second(self) -> float:
        seconds = time.monotonic() - self.began_at
        return (self.done - (self.first or 0)) / seconds if seconds > 0 else 0.0


class SharedDownloads:
    """The weights of one server, by its settings `auto_download` and `download_timeout_seconds`.

    Without `weights` none is ever missing.
    """

    def __init__(self, weights: Weights | None, settings: Settings) -> None:
        self._weights = weights
        self._settings = settings
        self._transfers: dict[str, _Transfer] = {}

    async def missing(self, options: Options) -> Sequence[Missing]:
        """The files a job with `options` would wait for.

        Raises ModelUnavailable, with the command that brings them, when it would not wait but fail.
        """
        if self._weights is None:
            return ()
        missing = await asyncio.to_thread(self._weights.missing, options)
        needed = [file for file in missing if file.is_needed]
        if not needed:
            # The others are brought along, so that the same request gives the same picture later; alone they
            # stop nobody.
            return ()
        if not (self._settings.auto_download and all(file.is_published for file in needed)):
            raise ModelUnavailable(_not_here(needed))
        return [file for file in missing if file.is_published]

    async def bring(self, missing: Sequence[Missing], told: Callable[[Stage], None]) -> None:
        """Wait until the files are here; calls `told` about once a second.

        Raises ModelUnavailable when they do not come within `download_timeout_seconds`, or cannot be had.
        """
        limit = self._settings.download_timeout_seconds
        left = sum(file.bytes for file in missing)
        try:
            async with asyncio.timeout(limit):
                for file in missing:
                    await self._bring_one(file, left, told)
                    left -= file.bytes
        except TimeoutError as error:
            raise ModelUnavailable(
                f"{_names(missing)} did not come within download_timeout_seconds ({limit:g} s); "
                f"submit again to continue, or get them with: {_commands(missing)}"
            ) from error

    async def _bring_one(self, file: Missing, left: int, told: Callable[[Stage], None]) -> None:
        try:
            async with self._joined(file) as transfer:
                while not transfer.ended.done():
                    told(_stage(file, transfer, left))
                    await asyncio.wait([transfer.ended], timeout=1.0)
                transfer.ended.result()
        except ModelUnavailable as error:
            if file.is_needed:
                raise type(error)(f"{error.message}; or with: {file.command}") from error
            logger.warning("%s was not fetched; going on without: %s", file.name, error.message)

    @asynccontextmanager
    async def _joined(self, file: Missing) -> AsyncGenerator[_Transfer]:
        """The transfer of the file, begun if nobody waits for it yet, ended when nobody does any more."""
        while (transfer := self._transfers.get(file.name)) is not None and transfer.stopped.is_set():
            await asyncio.wait([transfer.ended])
        transfer = transfer or self._begun(file)
        transfer.waiting += 1
        try:
            yield transfer
        finally:
            transfer.waiting -= 1
            if not transfer.waiting:
                transfer.stopped.set()

    def _begun(self, file: Missing) -> _Transfer:
        loop = asyncio.get_running_loop()
        transfer = _Transfer(loop.create_future(), time.monotonic())
        self._transfers[file.name] = transfer

        def ended(error: Exception | None) -> None:
            del self._transfers[file.name]
            transfer.ended.set_exception(error) if error else transfer.ended.set_result(None)
            transfer.ended.exception()  # nobody may be left to ask

        def fetch() -> None:
            assert self._weights is not None
            error: Exception | None = None
            try:
                self._weights.fetch(file, transfer.progressed, transfer.stopped)
            except Exception as raised:  # noqa: BLE001 - raised again in every job that waits
                error = raised
            with suppress(RuntimeError):  # the server has stopped, and its loop with it
                loop.call_soon_threadsafe(ended, error)

        # A daemon: the server need not wait, when it stops, for an address that keeps silent.
        threading.Thread(target=fetch, name=f"download of {file.name}", daemon=True).start()
        logger.info("Fetching %s, %d bytes", file.name, file.bytes)
        return transfer


def _stage(file: Missing, transfer: _Transfer, left: int) -> Stage:
    pace = transfer.bytes_a_second()
    text = f"fetching weights: {file.name}, {transfer.done / 1e6:.1f} of {file.bytes / 1e6:.1f} MB"
    return Stage(text, (left - transfer.done) / pace if pace else 0.0)


def _not_here(files: Sequence[Missing]) -> str:
    models = ", ".join(dict.fromkeys(file.model for file in files))
    return f"{models}: weights are not on this machine ({_names(files)}); get them with: {_commands(files)}"


def _names(files: Sequence[Missing]) -> str:
    return ", ".join(file.name for file in files)


def _commands(files: Sequence[Missing]) -> str:
    return " and ".join(dict.fromkeys(file.command for file in files))
