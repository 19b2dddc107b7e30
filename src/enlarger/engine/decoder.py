"""Decoder: pictures from files nobody trusts, read by a limited process of its own.

The process is started at the first call and stays warm. It is replaced when it dies, when a deadline passes, and
after a number of pictures, so that nothing it leaks or catches lasts. Pixels come back through a nameless
file, read as rows are asked for; headers, profiles and metadata come through a pipe and are checked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from enlarger.engine.decoder_answers import Answer, animation_from, header_from, picture_from, receive
from enlarger.engine.decoder_child import Request, Work, seconds_for
from enlarger.errors import EnlargerError, InvalidPicture, OutOfMemory, PictureTooLarge, RuntimeUnavailable

if TYPE_CHECKING:
    from enlarger.engine.pictures.animation import Animation
    from enlarger.engine.pictures.codec import Header
    from enlarger.engine.pictures.picture import Picture

Result = TypeVar("Result")

START_SECONDS = 120.0
ENDING_SECONDS = 2.0
"""A child whose pipes are closed ends itself; then it is killed."""

BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from enlarger.engine.decoder_child import serve; serve(*map(int, sys.argv[2:]))"
)
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
"""Other variables may hold secrets, which the child has no business knowing."""
CHILD_VARIABLES = {
    "MALLOC_ARENA_MAX": "2",  # every further one reserves 64 MB of address space
    "OPENBLAS_NUM_THREADS": "1",  # its threads would start before the sandbox, and stay outside
    "VIPS_BLOCK_UNTRUSTED": "1",
    "VIPS_CONCURRENCY": "1",
    "VIPS_DISC_THRESHOLD": "1000g",  # libvips puts large pictures into temporary files: the sandbox has none
    "VIPS_WARNING": "0",  # set, whatever the value: no talk about damaged files on standard error
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderLimits:
    """What one file may cost. The child's memory follows from these."""

    max_pixels: int = 64_000_000
    max_animation_pixels: int = 256_000_000
    """Of all frames together."""
    max_source_bytes: int = 200_000_000
    max_metadata_bytes: int = 16 * 2**20
    """ICC, EXIF and XMP, each."""
    seconds: float = 10.0
    seconds_per_megapixel: float = 3.0
    memory_bytes: int | None = None
    """Address space for the work itself; None: as much as the most wasteful formats need."""
    pictures_per_child: int = 64

    @property
    def child_memory_bytes(self) -> int:
        # Measured a pixel: AVIF of 10 bits with alpha 32 bytes, lossless WebP 22, all others 15 and less. The
        # frames of an animation, four bytes a pixel, lie in memory together.
        pixels = max(32 * self.max_pixels, 8 * self.max_animation_pixels)
        return self.memory_bytes or 512 * 2**20 + self.max_source_bytes + pixels

    @property
    def child_file_bytes(self) -> int:
        """The longest file of raw pixels: four 16-bit samples each."""
        return 8 * max(self.max_pixels, self.max_animation_pixels)


class Decoder:
    """Reads picture files in a limited child. Calls block; those of several threads take turns.

    Every call raises InvalidPicture or UnsupportedFormat for a file it cannot read, also when the child dies of
    it or passes its deadline, PictureTooLarge for a file of too many bytes, and RuntimeUnavailable when no
    child can be started.
    """

    def __init__(self, limits: DecoderLimits | None = None) -> None:
        self._limits = limits or DecoderLimits()
        self._turn = threading.Lock()
        self._child: _Child | None = None

    @property
    def pid(self) -> int | None:
        """Of the running child; None before the first call and after a crash."""
        child = self._child
        return child.process.pid if child is not None and child.process.poll() is None else None

    def probe(self, path: Path) -> Header:
        """What the file says of itself, however many pixels it has."""
        request = self._request("probe", self._limits.max_pixels)
        with self._turn, self._opened(path) as source, self._conversation() as child:
            return child.ask(request, source)

    def decode(self, path: Path, scratch: Path, *, frame: int | None = None) -> Picture:
        """The picture in a file, or one `frame` of an animation, decoded completely.

        Its pixels lie in a nameless file on the disk of the folder `scratch` until it is forgotten. Raises
        PictureTooLarge, before anything is decoded, and OutOfMemory.
        """
        request = self._request("decode", self._limits.max_pixels, frame)
        return self._decoded(path, scratch, request, picture_from)

    def decode_animation(self, path: Path, scratch: Path) -> Animation:
        """All frames of an animation, like `decode`; their pixels are counted together."""
        request = self._request("animation", self._limits.max_animation_pixels)
        return self._decoded(path, scratch, request, animation_from)

    def write_pyramid(self, path: Path, target: Path, *, frame: int = 0) -> None:
        """Write the picture in a file, or a frame or page of it, as a pyramid that `open_pyramid` reads.

        `target` is made, or written over. Raises PictureTooLarge, before anything is decoded, and OutOfMemory.
        """
        request = self._request("pyramid", self._limits.max_pixels, frame)
        with (
            self._turn,
            self._opened(path) as source,
            target.open("w+b") as written,
            self._conversation() as child,
        ):
            header = child.ask(request, source, written)
            child.answer("pyramid", seconds_for(header, request))

    def open(self, path: Path, scratch: Path, *, frame: int | None = None) -> Picture | Animation:
        """The picture in a file, or the animation where it is one and no `frame` of it is chosen."""
        if frame is None and self.probe(path).frames > 1:
            return self.decode_animation(path, scratch)
        return self.decode(path, scratch, frame=frame)

    def close(self) -> None:
        """End the child. A call under way in another thread fails with InvalidPicture."""
        child = self._child
        if child is not None:
            child.process.kill()
        with self._turn:
            self._drop()

    def _decoded(
        self, path: Path, scratch: Path, request: Request, read: Callable[[Answer, IO[bytes], int], Result]
    ) -> Result:
        with (
            self._turn,
            self._opened(path) as source,
            tempfile.TemporaryFile(dir=scratch) as target,
            self._conversation() as child,
        ):
            header = child.ask(request, source, target)
            answer = child.answer("pixels", seconds_for(header, request), self._limits.max_metadata_bytes)
            return read(answer, target, request.max_pixels)

    def _request(self, work: Work, max_pixels: int, frame: int | None = None) -> Request:
        return Request(
            work=work,
            frame=frame,
            max_pixels=max_pixels,
            seconds=self._limits.seconds,
            seconds_per_megapixel=self._limits.seconds_per_megapixel,
        )

    def _opened(self, path: Path) -> IO[bytes]:
        size, limit = path.stat().st_size, self._limits.max_source_bytes
        if size > limit:
            raise PictureTooLarge(f"the picture file has {size / 1e6:.1f} MB; the limit is {limit / 1e6:g}")
        return path.open("rb")

    @contextmanager
    def _conversation(self) -> Generator[_Child]:
        """A child for one request, and what becomes of it if the request fails."""
        child = self._ready()
        child.requests += 1
        try:
            yield child
        except OutOfMemory:
            self._drop()  # what it has left may be too little for the next picture
            raise
        except EnlargerError:
            raise  # its answer: the child goes on
        except TimeoutError as error:
            child.process.kill()
            self._drop()
            raise InvalidPicture(
                f"decoding took longer than {child.seconds:g} s, the limit for a picture of this size"
            ) from error
        except (EOFError, ConnectionError) as error:
            raise InvalidPicture(
                f"the decoder ended while it read this picture ({self._drop()}); the file is damaged or hostile"
            ) from error
        except ValueError as error:
            child.process.kill()
            self._drop()
            raise InvalidPicture(f"the decoder lost its way in this picture: {error}") from error
        except BaseException:
            child.process.kill()  # in the middle of its work
            self._drop()
            raise

    def _ready(self) -> _Child:
        if self.pid is None or (self._child and self._child.requests >= self._limits.pictures_per_child):
            self._drop()
        if self._child is None:
            self._child = _start(self._limits)
        return self._child

    def _drop(self) -> str:
        child, self._child = self._child, None
        return child.end() if child is not None else ""


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    pipe: socket.socket
    requests: int = 0
    seconds: float = START_SECONDS
    """The deadline of the latest answer."""

    def ask(self, request: Request, *files: IO[bytes]) -> Header:
        """Send the request with its files; the header the child finds."""
        self.pipe.settimeout(request.seconds)
        socket.send_fds(self.pipe, [json.dumps(asdict(request)).encode()], [file.fileno() for file in files])
        return header_from(self.answer("header", request.seconds))

    def answer(self, kind: str, seconds: float, max_blob_bytes: int = 0) -> Answer:
        self.seconds = seconds
        return receive(self.pipe, kind, seconds, max_blob_bytes)

    def end(self) -> str:
        """End the process, if it has not ended by itself: what ended it, for people."""
        self.pipe.close()
        try:
            code = self.process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        # Not earlier: its end would cut short the last words of a child that is failing.
        if self.process.stdin is not None:
            self.process.stdin.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _start(limits: DecoderLimits) -> _Child:
    if not hasattr(socket, "send_fds"):
        raise RuntimeUnavailable("the decoder needs a system whose processes can hand over open files (Unix)")
    ours, theirs = socket.socketpair()
    # The working directory may be in sys.path as an empty word.
    folders = json.dumps([folder or str(Path.cwd()) for folder in sys.path])
    numbers = (theirs.fileno(), limits.child_memory_bytes, limits.child_file_bytes)
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    command = [sys.executable, "-I", "-c", BOOT, folders, *map(str, numbers)]
    try:
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=kept | CHILD_VARIABLES,
            )
    except OSError as error:
        ours.close()
        raise RuntimeUnavailable(f"the decoder did not start: {error.strerror}") from error
    child = _Child(process, ours)
    try:
        child.answer("ready", START_SECONDS)
    except (OSError, EOFError, ValueError) as error:
        raise RuntimeUnavailable(f"the decoder did not start ({child.end()})") from error
    return child
