"""What the decoder's child answers, checked word by word: the child is not trusted.

Whatever does not fit raises ValueError; an error the child reports is raised as that error.
"""

from __future__ import annotations

import json
import os
import socket
import time
import weakref
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, TypeVar, cast

from enlarger.engine.decoder_child import LENGTH
from enlarger.engine.geometry import Size
from enlarger.errors import (
    InvalidOption,
    InvalidPicture,
    OutOfMemory,
    PictureTooLarge,
    StorageFull,
    UnsupportedFormat,
    error_from,
)

if TYPE_CHECKING:
    from enlarger.engine.pictures.animation import Animation
    from enlarger.engine.pictures.formats import Header
    from enlarger.engine.pictures.picture import Picture, Pixels, Rows

Choice = TypeVar("Choice", str, int, bool)

WORDS_BYTES = 2 * 2**20
"""The longest answer before its blobs: the delays of MAX_FRAMES fit."""
MAX_SIDE = 2**31 - 1
MAX_FRAMES = 100_000
MAX_DELAY_MS = 100_000_000
MAX_LOOP = 2**32 - 1
MAX_NOTES = 50
MAX_TEXT = 1_000

PASSED_ON = {
    error.code
    for error in (InvalidOption, InvalidPicture, UnsupportedFormat, PictureTooLarge, OutOfMemory, StorageFull)
}
"""The errors a child may report."""


@dataclass(frozen=True, slots=True)
class Answer:
    words: Mapping[str, object]
    blobs: tuple[bytes, ...] = ()

    def integer(self, name: str, low: int, high: int) -> int:
        return _integer(self.words.get(name), name, low, high)

    def one_of(self, name: str, choices: Collection[Choice]) -> Choice:
        # The type is compared too: to Python True is 1.
        value = self.words.get(name)
        found = next((choice for choice in choices if type(choice) is type(value) and choice == value), None)
        if found is None:
            raise ValueError(f"{name} is not one of {choices}")
        return found

    def text(self, name: str) -> str:
        return _text(self.words.get(name), name)

    def items(self, name: str, most: int) -> list[object]:
        value = self.words.get(name)
        if not isinstance(value, list) or len(cast(list[object], value)) > most:
            raise ValueError(f"{name} is not a list of at most {most}")
        return cast(list[object], value)


def receive(pipe: socket.socket, kind: str, seconds: float, max_blob_bytes: int) -> Answer:
    """The next answer, of the `kind` that is due. Raises TimeoutError, EOFError, ValueError, or its failure."""
    deadline = time.monotonic() + seconds
    (length,) = LENGTH.unpack(_read(pipe, LENGTH.size, deadline))
    if length > WORDS_BYTES:
        raise ValueError(f"an answer of {length} bytes")
    try:
        words = json.loads(_read(pipe, length, deadline))
    except RecursionError as error:
        raise ValueError("an answer nested too deeply") from error
    if not isinstance(words, dict):
        raise ValueError("an answer that is not an object")
    answer = Answer(cast(dict[str, object], words))
    sizes = [_integer(size, "a blob's length", 0, max_blob_bytes) for size in answer.items("blobs", 3)]
    answer = Answer(answer.words, tuple(_read(pipe, size, deadline) for size in sizes))
    if answer.text("kind") == "failure":
        code = answer.text("code")
        raise error_from(code, answer.text("message")) if code in PASSED_ON else ValueError(f"error {code}")
    if answer.text("kind") != kind:
        raise ValueError(f"{answer.text('kind')} where {kind} is due")
    return answer


def header_from(answer: Answer) -> Header:
    """The header in an answer. Raises ValueError."""
    from enlarger.engine.pictures.formats import FORMATS, Header

    return Header(
        format=answer.one_of("format", FORMATS),
        size=Size(answer.integer("width", 1, MAX_SIDE), answer.integer("height", 1, MAX_SIDE)),
        colours=answer.one_of("colours", (1, 3)),
        has_alpha=answer.one_of("has_alpha", (False, True)),
        depth=answer.one_of("depth", (8, 16)),
        frames=answer.integer("frames", 1, MAX_FRAMES),
        pages=answer.integer("pages", 1, MAX_FRAMES),
    )


def picture_from(answer: Answer, file: IO[bytes], max_pixels: int) -> Picture:
    """The picture of a "pixels" answer over the rows in `file`, which may be closed afterwards.

    Frames of an animation lie one below the other. Raises ValueError.
    """
    from enlarger.engine.pictures.picture import Picture

    header = header_from(answer)
    size = Size(header.size.width, header.size.height * header.frames)
    channels = header.colours + header.has_alpha
    length = os.fstat(file.fileno()).st_size
    if size.pixels > max_pixels or length != size.pixels * channels * header.depth // 8:
        raise ValueError(f"{length} bytes for {size.width}×{size.height} pixels of {channels} channels")
    icc, exif, xmp = answer.blobs
    return Picture(
        size=size,
        colours=header.colours,
        has_alpha=header.has_alpha,
        depth=header.depth,
        rows=RawFile(file, size.width, channels, header.depth).rows,
        icc=icc,
        exif=exif,
        xmp=xmp,
        format=header.format,
        notes=tuple(_text(note, "a note") for note in answer.items("notes", MAX_NOTES)),
    )


def animation_from(answer: Answer, file: IO[bytes], max_pixels: int) -> Animation:
    """The animation of a "pixels" answer, like `picture_from`. Raises ValueError."""
    from enlarger.engine.pictures.animation import Animation

    strip = picture_from(answer, file, max_pixels)
    count = answer.integer("frames", 1, MAX_FRAMES)
    size = Size(strip.size.width, strip.size.height // count)
    delays = [_integer(delay, "a delay", 0, MAX_DELAY_MS) for delay in answer.items("delays_ms", count)]
    if len(delays) != count:
        raise ValueError(f"{len(delays)} delays for {count} frames")

    def rows_from(first: int) -> Rows:
        return lambda top, bottom: strip.rows(first + top, first + bottom)

    return Animation(
        frames=tuple(replace(strip, size=size, rows=rows_from(at * size.height)) for at in range(count)),
        delays_ms=tuple(delays),
        loop=answer.integer("loop", 0, MAX_LOOP),
    )


class RawFile:
    """Rows of pixels in an open file, which is closed when this is forgotten.

    They are read, not mapped: the child may still hold the file, and a mapping of a file that someone cuts
    short ends the process that touches it.
    """

    def __init__(self, file: IO[bytes], width: int, channels: int, depth: int) -> None:
        import numpy as np  # the server, which reads no pixels, speaks to a decoder too

        self._number = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._number)
        self._row_shape = (width, channels)
        self._row_bytes = width * channels * depth // 8
        self._dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)

    def rows(self, top: int, bottom: int) -> Pixels:
        import numpy as np

        pixels = np.empty((bottom - top, *self._row_shape), self._dtype)
        space = pixels.data.cast("B")
        done = 0
        while done < len(space):
            read = os.preadv(self._number, [space[done:]], top * self._row_bytes + done)
            if read == 0:
                raise InvalidPicture("the decoded picture was cut short before its rows were read")
            done += read
        return pixels


def _integer(value: object, name: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is not a whole number from {low} to {high}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    # It may end in a log or a terminal.
    return "".join(letter if letter.isprintable() else "�" for letter in value[:MAX_TEXT])


def _read(pipe: socket.socket, length: int, deadline: float) -> bytes:
    """Exactly `length` bytes. Raises TimeoutError, and EOFError when the child is gone."""
    space = bytearray(length)
    done = 0
    while done < length:
        # Of the whole answer: a child that drips byte after byte gains no time by it.
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        pipe.settimeout(left)
        read = pipe.recv_into(memoryview(space)[done:])
        if read == 0:
            raise EOFError
        done += read
    return bytes(space)
