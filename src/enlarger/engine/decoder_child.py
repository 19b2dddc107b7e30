"""The limited child that touches untrusted bytes: its life, and the words it exchanges with `decoder.py`.

It opens nothing itself: each request brings an open file to read and, for pixels, one to write them to.

    parent ─▶ child    a Request, with the descriptors of the files
    child  ─▶ parent   "header" or "failure", then for pixels "pixels" or "failure"

A message of the child is a length, JSON of that length, then the blobs it announces: nothing that could run in
the parent, which trusts none of it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Literal

from enlarger.engine import sandbox
from enlarger.engine.geometry import Size
from enlarger.engine.parent import end_with
from enlarger.errors import EnlargerError, OutOfMemory, PictureTooLarge, StorageFull, is_full_disk

if TYPE_CHECKING:
    from enlarger.engine.pictures.codec import Header
    from enlarger.engine.pictures.picture import Picture

BAND_BYTES = 16 * 2**20
REQUEST_BYTES = 4096
Work = Literal["probe", "decode", "animation", "pyramid"]
OUT_OF_MEMORY = ("out of memory", "insufficient memory", "memory allocation")
LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    work: Work
    frame: int | None
    max_pixels: int
    """Of the picture, or of all frames of an animation together."""
    seconds: float
    seconds_per_megapixel: float


def check_pixels(size: Size, frames: int, max_pixels: int) -> None:
    """Raises PictureTooLarge when `frames` pictures of `size` have more than `max_pixels` together."""
    if size.pixels * frames > max_pixels:
        what = "the picture is" if frames == 1 else f"the animation has {frames} frames of"
        way_out = "send a smaller picture" if frames == 1 else "choose one frame, or send a smaller animation"
        raise PictureTooLarge(
            f"{what} {size.width}×{size.height}, {size.pixels * frames / 1e6:.1f} megapixels; "
            f"the limit is {max_pixels / 1e6:g}; {way_out}"
        )


def seconds_for(header: Header, request: Request) -> float:
    """How long the pixels may take. To reach a frame, those before it may have to be decoded."""
    pixels = min(header.size.pixels * header.frames, request.max_pixels)
    return request.seconds + request.seconds_per_megapixel * pixels / 1e6


def serve(pipe_number: int, memory_bytes: int, file_bytes: int) -> None:
    """The child's whole life: one request after another, until the parent is gone or kills it.

    Standard input is a pipe the parent never writes to: its end says that the parent is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches this process too
    # Nothing can be imported once confined, so what a file will make necessary comes first.
    import_module("enlarger.engine.pictures.codec")
    import_module("PIL.Image").preinit()
    sandbox.confine(sandbox.Confinement(memory_bytes=memory_bytes, file_bytes=file_bytes))
    end_with(0)
    with socket.socket(fileno=pipe_number) as pipe:
        _send(pipe, {"kind": "ready"})
        while True:
            message, descriptors, _, _ = socket.recv_fds(pipe, REQUEST_BYTES, 2)
            if not message:
                return
            with ExitStack() as opened:
                pairs = zip(descriptors, ("rb", "wb"), strict=False)
                files = [opened.enter_context(os.fdopen(number, mode, buffering=0)) for number, mode in pairs]
                _answer(pipe, Request(**json.loads(message)), *files)


def _answer(
    pipe: socket.socket, request: Request, source: IO[bytes], target: IO[bytes] | None = None
) -> None:
    try:
        if request.work == "pyramid" and target is not None:
            _pyramid(pipe, request, source, target)
        else:
            _work(pipe, request, source, target)
    except (EnlargerError, MemoryError) as error:
        told = _named(error)
        _send(pipe, {"kind": "failure", "code": told.code, "message": told.message})


def _work(pipe: socket.socket, request: Request, source: IO[bytes], target: IO[bytes] | None) -> None:
    from enlarger.engine.pictures.codec import decode, decode_animation, probe

    sandbox.allow_cpu(request.seconds)
    data = source.read()
    header = probe(data)
    if request.work != "probe":
        check_pixels(header.size, header.frames if request.work == "animation" else 1, request.max_pixels)
    _send(pipe, {"kind": "header", **_facts(header, header.frames, header.pages)})
    if target is None:
        return
    sandbox.allow_cpu(seconds_for(header, request))
    timing: dict[str, Any] = {}
    if request.work == "animation":
        animation = decode_animation(data)
        pictures = animation.frames
        timing = {"delays_ms": animation.delays_ms, "loop": animation.loop}
    else:
        pictures = (decode(data, frame=request.frame),)
        check_pixels(pictures[0].size, 1, request.max_pixels)  # the pages of a TIFF differ in size
    _write(pictures, target)
    words = {"kind": "pixels", **_facts(pictures[0], len(pictures)), "notes": pictures[0].notes, **timing}
    _send(pipe, words, pictures[0].icc, pictures[0].exif, pictures[0].xmp)


def _pyramid(pipe: socket.socket, request: Request, source: IO[bytes], target: IO[bytes]) -> None:
    from enlarger.engine.pictures.codec import open_stream, write_pyramid

    header, image = open_stream(source, request.frame or 0)
    check_pixels(header.size, 1, request.max_pixels)
    _send(pipe, {"kind": "header", **_facts(header, header.frames, header.pages)})
    sandbox.allow_cpu(seconds_for(header, request))
    write_pyramid(image(), header, target)
    _send(pipe, {"kind": "pyramid"})


def _write(pictures: Iterable[Picture], target: IO[bytes]) -> None:
    """Every row of every picture, one after another, as numbers of this machine."""
    try:
        for picture in pictures:
            row_bytes = picture.size.width * picture.channels * picture.depth // 8
            band = max(1, BAND_BYTES // row_bytes)
            for top in range(0, picture.size.height, band):
                rows = memoryview(picture.rows(top, min(top + band, picture.size.height)).tobytes())
                while rows:
                    rows = rows[target.write(rows) :]
    except OSError as error:
        if is_full_disk(error):
            raise StorageFull(
                f"The scratch folder cannot hold the decoded picture: {error.strerror}"
            ) from error
        raise OutOfMemory(f"the scratch folder cannot hold the decoded picture: {error.strerror}") from error


def _facts(picture: Picture | Header, frames: int, pages: int = 1) -> dict[str, Any]:
    return {
        "format": picture.format,
        "width": picture.size.width,
        "height": picture.size.height,
        "colours": picture.colours,
        "has_alpha": picture.has_alpha,
        "depth": picture.depth,
        "frames": frames,
        "pages": pages,
    }


def _named(error: EnlargerError | MemoryError) -> EnlargerError:
    """The error itself, or OutOfMemory where that is its cause: libraries say so in words alone."""
    text = str(error).lower()
    if isinstance(error, EnlargerError) and not any(words in text for words in OUT_OF_MEMORY):
        return error
    return OutOfMemory("the picture needs more memory than the decoder may use; send a smaller one")


def _send(pipe: socket.socket, words: Mapping[str, Any], *blobs: bytes) -> None:
    text = json.dumps({**words, "blobs": [len(blob) for blob in blobs]}).encode()
    pipe.sendall(b"".join((LENGTH.pack(len(text)), text, *blobs)))
