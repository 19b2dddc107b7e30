"""EXIF and XMP of a result: bytes in, bytes out.

What tells of the picture stays; what has become untrue is corrected (orientation, dimensions) or dropped (the
thumbnail). EXIF is edited in place, because maker notes point to places by their distance from the start.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from enlarger.engine.geometry import Size
from enlarger.engine.pictures.directories import (
    EXIF_MARKER,
    GPS_IFD,
    LONG,
    ORIENTATION,
    SHORT,
    Block,
    Entry,
    Malformed,
)

_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)
_XMP_IN_IFD, _SUB_IFDS = 0x02BC, 0x014A  # a second XMP, and pointers to pictures that are not here
_THUMBNAIL_PLACES = ((0x0201, 0x0202), (0x0111, 0x0117))  # tags of (offset, length)

_XMP_NAMESPACES = {
    "tiff": b"http://ns.adobe.com/tiff/1.0/",
    "exif": b"http://ns.adobe.com/exif/1.0/",
    "xmp": b"http://ns.adobe.com/xap/1.0/",
}


@dataclass(frozen=True, slots=True)
class Carried:
    """Metadata as a result carries it, and a sentence for each block that could not be carried."""

    exif: bytes = b""
    xmp: bytes = b""
    notes: tuple[str, ...] = ()


def carried(exif: bytes, xmp: bytes, size: Size, policy: str) -> Carried:
    """EXIF and XMP for a result of `size` whose pixels are upright. `policy` is keep, strip or strip-gps.

    A malformed block is dropped with a note.
    """
    if policy == "strip":
        return Carried()
    strip_gps = policy == "strip-gps"
    notes: list[str] = []
    if exif:
        try:
            exif = exif_of_result(exif, size, strip_gps=strip_gps)
        except Malformed as error:
            exif = b""
            notes.append(f"EXIF dropped: {error}")
    if xmp:
        try:
            xmp = xmp_of_result(xmp, size, strip_gps=strip_gps)
        except Malformed as error:
            xmp = b""
            notes.append(f"XMP dropped: {error}")
    return Carried(exif, xmp, tuple(notes))


def exif_of_result(exif: bytes, size: Size, *, strip_gps: bool) -> bytes:
    """An EXIF block, with or without its marker, corrected for a picture of `size`. Raises Malformed."""
    editor = _Editor(exif.removeprefix(EXIF_MARKER))
    block = editor.block
    editor.drop_thumbnail()
    editor.drop(_XMP_IN_IFD)
    editor.drop(_SUB_IFDS)
    if strip_gps:
        editor.drop(GPS_IFD)
    for entry in block.entries(block.first):
        if entry.tag == ORIENTATION:
            editor.set_whole(entry, 1)
    for _, directory in block.directories():
        for entry in block.entries(directory):
            if entry.tag in _WIDTHS:
                editor.set_whole(entry, size.width)
            if entry.tag in _HEIGHTS:
                editor.set_whole(entry, size.height)
    result = bytes(editor.data)
    # Hostile pointers can make one edit spoil another: what leaves here must still be readable.
    for _, directory in Block(result).directories():
        block.entries(directory)
    return result


def xmp_of_result(xmp: bytes, size: Size, *, strip_gps: bool) -> bytes:
    """An XMP packet corrected for a picture of `size`. Raises Malformed."""
    if b"\0" in xmp:
        raise Malformed("it is not UTF-8")
    tiff, exif, basic = (_prefixes(xmp, uri) for uri in _XMP_NAMESPACES.values())
    for prefixes, name, value in (
        (tiff, b"Orientation", 1),
        (tiff, b"ImageWidth", size.width),
        (tiff, b"ImageLength", size.height),
        (exif, b"PixelXDimension", size.width),
        (exif, b"PixelYDimension", size.height),
    ):
        for prefix in prefixes:
            xmp = _with_value(xmp, prefix + name, b"%d" % value)
    for prefix in basic:
        xmp = _without(xmp, prefix + b"Thumbnails")
    if strip_gps:
        for prefix in exif:
            xmp = _without(xmp, prefix + rb"GPS\w*")
        if b"GPS" in xmp:
            raise Malformed("it names a position in a way that cannot be taken out alone")
    return xmp


class _Editor:
    """Edits of an EXIF block in place."""

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif)
        self.block = Block(self.data)

    def set_whole(self, entry: Entry, value: int) -> None:
        """Make the value of a tag one whole number; a LONG fits into the 12 bytes of any entry."""
        if entry.tag == ORIENTATION:  # which has to be a SHORT
            struct.pack_into(f"{self.block.order}HHIHH", self.data, entry.at, entry.tag, SHORT, 1, value, 0)
        else:
            struct.pack_into(f"{self.block.order}HHII", self.data, entry.at, entry.tag, LONG, 1, value)

    def drop(self, tag: int) -> None:
        """Take a tag out of the first directory, its value and a directory it points to included."""
        first, entries = self.block.first, self.block.entries(self.block.first)
        left = len(entries)
        for entry in reversed(entries):
            if entry.tag != tag:
                continue
            if tag == GPS_IFD:
                self._erase_directory(self.block.whole(entry))
            if entry.value_bytes > 4:
                self._erase(entry.value_at, entry.value_bytes)
            end = first + 2 + 12 * left + 4
            self.data[entry.at : end] = self.data[entry.at + 12 : end] + bytes(12)
            left -= 1
            struct.pack_into(f"{self.block.order}H", self.data, first, left)

    def drop_thumbnail(self) -> None:
        """Take out the second directory with the small picture it describes."""
        link = self.block.first + 2 + 12 * len(self.block.entries(self.block.first))
        (second,) = self.block.read("I", link)
        struct.pack_into("I", self.data, link, 0)
        if not second:
            return
        values = {entry.tag: entry for entry in self.block.entries(second)}
        places = [
            (self.block.whole(values[start]), self.block.whole(values[length]))
            for start, length in _THUMBNAIL_PLACES
            if start in values and length in values
        ]
        self._erase_directory(second)
        for start, length in places:
            self._erase(start, length)
        # Mostly the thumbnail is the last thing in the block, which then becomes shorter.
        last = [start for start, length in places if start + length >= len(self.data)]
        if last and min(last) >= self._used():
            del self.data[min(last) :]

    def _used(self) -> int:
        """Where the last value that a directory still names ends."""
        ends = [8]
        for _, directory in self.block.directories():
            entries = self.block.entries(directory)
            ends.append(directory + 6 + 12 * len(entries))
            ends += [entry.value_at + entry.value_bytes for entry in entries]
        return max(ends)

    def _erase_directory(self, directory: int) -> None:
        entries = self.block.entries(directory)
        for entry in entries:
            self._erase(entry.value_at, entry.value_bytes)
        self._erase(directory, 2 + 12 * len(entries) + 4)

    def _erase(self, start: int, length: int) -> None:
        if start < 8:
            raise Malformed("a value lies in its header")
        stop = min(start + length, len(self.data))
        self.data[start:stop] = bytes(max(0, stop - start))


def _prefixes(xmp: bytes, uri: bytes) -> list[bytes]:
    """The prefixes, colon included, that stand for a namespace in this packet."""
    found = re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']" + re.escape(uri) + rb"[\"']", xmp)
    return [re.escape(prefix) + b":" for prefix in dict.fromkeys(found)]


def _with_value(xmp: bytes, name: bytes, value: bytes) -> bytes:
    """The packet with a simple property set, as an attribute or as an element, wherever it is already there."""
    xmp = re.sub(rb"(\s" + name + rb"\s*=\s*)(\"[^\"]*\"|'[^']*')", rb'\g<1>"' + value + b'"', xmp)
    return re.sub(rb"(<" + name + rb"\s*>)[^<]*(</)", rb"\g<1>" + value + rb"\g<2>", xmp)


def _without(xmp: bytes, name: bytes) -> bytes:
    """The packet without properties of this name, attributes and elements. Raises Malformed."""
    xmp = re.sub(rb"\s" + name + rb"\s*=\s*(\"[^\"]*\"|'[^']*')", b"", xmp)
    kept: list[bytes] = []
    at = 0
    for start in re.finditer(rb"<(" + name + rb")(?=[\s/>])[^<>]*>", xmp):
        if start.start() < at:
            continue
        kept.append(xmp[at : start.start()])
        at = start.end()
        if not start.group().endswith(b"/>"):
            end = xmp.find(b"</" + start.group(1) + b">", at)
            if end < 0:
                raise Malformed("an element has no end")
            at = end + len(start.group(1)) + 3
    return b"".join([*kept, xmp[at:]])
