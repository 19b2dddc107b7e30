"""Multipart: the one file of a `multipart/form-data` body, taken out of it as it arrives and kept nowhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from enlarger.api.bodies import malformed
from enlarger.errors import InvalidOption

FIELD = "file"
_MAX_HEADER_BYTES = 4096
_MAX_HEADERS = 16


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form. `chunks` gives its bytes, and raises RequestError where the body is not what it claims."""

    filename: str
    content_type: str
    chunks: AsyncGenerator[bytes]


async def file_part(content_type: str, body: AsyncIterator[bytes]) -> FilePart:
    """The first file of the form in `body`; `content_type` is the header of the request.

    Raises InvalidOption when there is none, RequestError when the body is no such form.
    """
    kind, parameters = parse_options_header(content_type)
    boundary = parameters.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise malformed(f"send multipart/form-data with the picture in the field {FIELD!r}")
    reading = _Reading()
    chunks = _file_bytes(body, boundary, reading)
    # Nothing is known of the file before the parser has passed its headers.
    try:
        first = await anext(chunks)
    except StopAsyncIteration:
        raise InvalidOption(f"the form has no file; send one in the field {FIELD!r}", FIELD) from None
    return FilePart(reading.filename, reading.content_type, _resumed(first, chunks))


@dataclass(slots=True)
class _Reading:
    """Where the parser stands: what its callbacks have heard since the last look."""

    filename: str = ""
    content_type: str = ""
    is_found: bool = False
    is_inside: bool = False
    is_complete: bool = False
    data: list[bytes] = field(default_factory=list[bytes])
    name: bytearray = field(default_factory=bytearray)
    value: bytearray = field(default_factory=bytearray)
    headers: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])

    def on_part_begin(self) -> None:
        self.headers = {}

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        self.headers[bytes(self.name).lower()] = bytes(self.value)
        self.name.clear()
        self.value.clear()

    def on_headers_finished(self) -> None:
        _, parameters = parse_options_header(self.headers.get(b"content-disposition"))
        if self.is_found or b"filename" not in parameters:
            return
        self.is_found = self.is_inside = True
        self.filename = parameters[b"filename"].decode("utf-8", "replace")
        self.content_type = self.headers.get(b"content-type", b"").decode("latin-1")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.is_inside:
            self.data.append(data[start:end])

    def on_part_end(self) -> None:
        self.is_inside = False

    def on_end(self) -> None:
        self.is_complete = True


async def _file_bytes(
    body: AsyncIterator[bytes], boundary: bytes, reading: _Reading
) -> AsyncGenerator[bytes]:
    """An empty chunk when the file begins, then its bytes; the rest of the form is read and forgotten."""
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reading.on_part_begin,
                "on_header_field": reading.on_header_field,
                "on_header_value": reading.on_header_value,
                "on_header_end": reading.on_header_end,
                "on_headers_finished": reading.on_headers_finished,
                "on_part_data": reading.on_part_data,
                "on_part_end": reading.on_part_end,
                "on_end": reading.on_end,
            },
            max_header_count=_MAX_HEADERS,
            max_header_size=_MAX_HEADER_BYTES,
        )
        announced = False
        async for chunk in body:
            parser.write(chunk)
            if reading.is_found and not announced:
                announced = True
                yield b""
            found, reading.data = reading.data, []
            for data in found:
                yield data
    except FormParserError as error:
        raise malformed(f"the form cannot be read: {error}") from error
    if not reading.is_complete:
        raise malformed("the form ends before its last boundary")


async def _resumed(first: bytes, rest: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk
