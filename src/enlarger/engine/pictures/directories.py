"""The structure that TIFF files and EXIF blocks share: a header, and directories (IFDs) of tagged values.

"II" or "MM" (byte order) · 42 · offset of the first directory
directory: count · entries of 12 bytes (tag, kind, count, value or its offset) · offset of the next directory
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from mmap import mmap
from typing import BinaryIO, NamedTuple

SHORT, LONG = 3, 4
ORIENTATION = 0x0112
EXIF_MARKER = b"Exif\0\0"
EXIF_IFD, GPS_IFD = 0x8769, 0x8825

_KIND_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SWAPPED_BYTES = {**_KIND_BYTES, 5: 4, 10: 4}  # a rational is two numbers

# What tells of the picture, not of how its pixels are stored, in the first directory of a TIFF.
_TELLING = frozenset(
    (
        *(0x010D, 0x010E, 0x010F, 0x0110, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x013C),
        *(0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0)),
    )
)


class Malformed(Exception):
    """A block that does not follow its own format."""


class Entry(NamedTuple):
    """One tag. `at` is where its 12 bytes start, `value_at` where its value does."""

    tag: int
    kind: int
    length: int
    at: int
    value_at: int
    value_bytes: int


class Block:
    """A TIFF structure, read with every pointer checked against the end. Raises Malformed."""

    def __init__(self, data: bytes | bytearray | mmap) -> None:
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(data[:4]))
        if order is None:
            raise Malformed("it does not start like EXIF")
        self.data = data
        self.order = order
        (self.first,) = self.read("I", 4)
        self.entries(self.first)

    def entries(self, directory: int) -> list[Entry]:
        """The tags of the directory at this offset."""
        (count,) = self.read("H", directory)
        found: list[Entry] = []
        for at in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, kind, length = self.read("HHI", at)
            value_bytes = _KIND_BYTES.get(kind, 1) * length
            value_at = at + 8 if value_bytes <= 4 else self.read("I", at + 8)[0]
            if value_at + value_bytes > len(self.data):
                raise Malformed(f"the value of tag {tag:#06x} lies outside of it")
            found.append(Entry(tag, kind, length, at, value_at, value_bytes))
        self.read("I", directory + 2 + 12 * count)
        # Many tags over the same bytes would grow without bounds when they are copied one by one.
        if sum(entry.value_bytes for entry in found) > len(self.data):
            raise Malformed("its values overlap")
        return found

    def directories(self) -> Iterator[tuple[int, int]]:
        """The first directory and those for EXIF and GPS below it: (tag that leads there or 0, offset)."""
        yield 0, self.first
        for entry in self.entries(self.first):
            if entry.tag in (EXIF_IFD, GPS_IFD):
                below = self.whole(entry)
                self.entries(below)
                yield entry.tag, below

    def whole(self, entry: Entry) -> int:
        """The first whole number of a SHORT or LONG tag."""
        return self.read("H" if entry.kind == SHORT else "I", entry.value_at)[0]

    def value(self, entry: Entry, order: str) -> bytes:
        """The bytes of a value, in the byte order asked for."""
        raw = bytes(self.data[entry.value_at : entry.value_at + entry.value_bytes])
        step = _SWAPPED_BYTES.get(entry.kind, 1)
        if order == self.order or step == 1:
            return raw
        return b"".join(raw[at : at + step][::-1] for at in range(0, len(raw), step))

    def read(self, form: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self.order + form, self.data, at)
        except struct.error as error:
            raise Malformed("a pointer leads out of it") from error


class _Layout(NamedTuple):
    """How a file writes directories: classic TIFF, or BigTIFF with its 64-bit numbers."""

    order: str
    first_at: int  # where the header holds the offset of the first directory
    offset: str
    total: str
    entry: str
    inline_bytes: int

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize("<" + self.entry) + self.inline_bytes


class _Tag(NamedTuple):
    tag: int
    kind: int
    length: int
    value: bytes
    """In the byte order of the file it goes to."""


def orientation_of(exif: bytes) -> int:
    """The orientation an EXIF block tells, 1 to 8; 1 where it tells none or is malformed."""
    try:
        block = Block(exif.removeprefix(EXIF_MARKER))
        found = [block.whole(entry) for entry in block.entries(block.first) if entry.tag == ORIENTATION]
    except Malformed:
        return 1
    return found[0] if found and 1 <= found[0] <= 8 else 1


def exif_of_tiff(data: bytes) -> bytes:
    """What a TIFF file tells of its picture, as an EXIF block; empty for BigTIFF and where there is nothing."""
    try:
        source = Block(data)
        if not _telling(source, source.order) and len(list(source.directories())) == 1:
            return b""
        file = io.BytesIO(data[:4] + struct.pack(source.order + "IHI", 8, 0, 0))  # an empty first directory
        add_exif(file, data)
    except Malformed:
        return b""
    return file.getvalue()


def add_exif(file: BinaryIO, exif: bytes) -> None:
    """Give a TIFF file, open for reading and writing, the tags of an EXIF block. Raises Malformed.

    The file gets a new first directory at its end; pixels are not touched.
    """
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", head, 2)[0] == 43:
        layout = _Layout(order, 8, "Q", "Q", "HHQ", 8)
    else:
        layout = _Layout(order, 4, "I", "H", "HHI", 4)
    source = Block(exif)
    tags = _telling(source, order)
    below = {tag: offset for tag, offset in source.directories() if tag}
    for tag, offset in below.items():
        at = _end(file)
        values = [
            _Tag(entry.tag, entry.kind, entry.length, source.value(entry, order))
            for entry in source.entries(offset)
        ]
        file.write(_directory(values, [], at, layout))
        tags.append(_Tag(tag, LONG, 1, struct.pack(order + "I", at)))
    replaced = {tag.tag for tag in tags}
    kept = [
        raw for raw in _raw_entries(file, layout) if struct.unpack_from(order + "H", raw)[0] not in replaced
    ]
    at = _end(file)
    file.write(_directory(tags, kept, at, layout))
    file.seek(layout.first_at)
    file.write(struct.pack(order + layout.offset, at))


def _telling(source: Block, order: str) -> list[_Tag]:
    return [
        _Tag(entry.tag, entry.kind, entry.length, source.value(entry, order))
        for entry in source.entries(source.first)
        if entry.tag in _TELLING
    ]


def _raw_entries(file: BinaryIO, layout: _Layout) -> list[bytes]:
    """The entries of the first directory as they stand; their offsets stay true."""
    file.seek(layout.first_at)
    (at,) = struct.unpack(layout.order + layout.offset, file.read(struct.calcsize("<" + layout.offset)))
    file.seek(at)
    (count,) = struct.unpack(layout.order + layout.total, file.read(struct.calcsize("<" + layout.total)))
    return [file.read(layout.entry_bytes) for _ in range(count)]


def _directory(tags: Sequence[_Tag], raw: Sequence[bytes], at: int, layout: _Layout) -> bytes:
    """A directory that starts at offset `at`, its values behind it."""
    total = len(tags) + len(raw)
    count_bytes, offset_bytes = struct.calcsize("<" + layout.total), struct.calcsize("<" + layout.offset)
    values_at = at + count_bytes + total * layout.entry_bytes + offset_bytes
    values = b""
    entries = list(raw)
    for tag in tags:
        entry = struct.pack(layout.order + layout.entry, tag.tag, tag.kind, tag.length)
        if len(tag.value) <= layout.inline_bytes:
            entries.append(entry + tag.value.ljust(layout.inline_bytes, b"\0"))
        else:
            entries.append(entry + struct.pack(layout.order + layout.offset, values_at + len(values)))
            values += tag.value + bytes(len(tag.value) % 2)
    entries.sort(key=lambda entry: struct.unpack_from(layout.order + "H", entry)[0])
    return struct.pack(layout.order + layout.total, total) + b"".join(entries) + bytes(offset_bytes) + values


def _end(file: BinaryIO) -> int:
    """The end of the file, made even: directories start at even offsets."""
    end = file.seek(0, 2)
    if end % 2:
        file.write(b"\0")
    return end + end % 2
