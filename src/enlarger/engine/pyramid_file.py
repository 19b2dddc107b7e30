"""Pyramid files: tiles of a picture at every zoom, copied out of a TIFF without decoding a pixel.

The TIFF comes from the decoder's child, which is not trusted: every number in it is checked, and what a tile holds is
for the browser to decode. Standard library only: the server reads tiles itself.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from enlarger.engine.pictures.directories import SHORT, Block, Entry, Malformed
from enlarger.errors import InvalidPicture, NotFound

MAX_LEVELS = 32
MAX_TILE_SIZE = 4096
MAX_TILE_BYTES = 16 * 2**20
MAX_TABLES_BYTES = 65_536

_WIDTH, _HEIGHT, _COMPRESSION = 256, 257, 259
_TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _LENGTHS = 322, 323, 324, 325
_JPEG_TABLES = 347
_MEDIA_TYPES = {7: "image/jpeg", 50001: "image/webp"}
_START, _END = b"\xff\xd8", b"\xff\xd9"
"""First and last marker of a JPEG file."""


class Level(NamedTuple):
    """One zoom of a picture, in pixels, and how many tiles it has."""

    width: int
    height: int
    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class PyramidFile:
    """Where the tiles of a pyramid lie. Level 0 is the whole picture, each further one half of the one before.

    All tiles are `tile_size` wide and high; those at the right and lower edge are padded.
    """

    path: Path
    media_type: str
    tile_size: int
    levels: tuple[Level, ...]
    _tables: tuple[bytes, ...]
    """Of each level: the part all its JPEG tiles share; empty for WebP."""
    _places: tuple[tuple[tuple[int, int], ...], ...]
    """Of each level: offset and length of each tile, row by row."""

    def tile(self, level: int, column: int, row: int) -> bytes:
        """A tile as a file of its own. Raises NotFound outside the picture, FileNotFoundError when it is gone."""
        if not 0 <= level < len(self.levels):
            raise NotFound(f"level must be from 0 to {len(self.levels) - 1}, not {level}")
        _, _, columns, rows = self.levels[level]
        if not (0 <= column < columns and 0 <= row < rows):
            raise NotFound(f"level {level} has {columns}×{rows} tiles; there is none at {column}, {row}")
        offset, length = self._places[level][row * columns + column]
        with self.path.open("rb") as file:
            data = os.pread(file.fileno(), length, offset)
        tables = self._tables[level]
        return _START + tables + data.removeprefix(_START) if tables else data


def open_pyramid(path: Path) -> PyramidFile:
    """Read where everything is in a pyramid that `Decoder.write_pyramid` wrote.

    Raises InvalidPicture for any other file.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(path, Block(data))
    except (Malformed, ValueError) as error:  # ValueError: an empty file, too
        raise InvalidPicture(f"the pyramid is damaged: {error}") from error


def _read(path: Path, block: Block) -> PyramidFile:
    media_types: set[str] = set()
    tile_sizes: set[int] = set()
    levels: list[Level] = []
    tables: list[bytes] = []
    places: list[tuple[tuple[int, int], ...]] = []
    directory = block.first
    while directory and len(levels) < MAX_LEVELS:
        listed = block.entries(directory)
        entries = {entry.tag: entry for entry in listed}
        media_types.add(_MEDIA_TYPES.get(_whole(block, entries, _COMPRESSION), ""))
        tile_sizes |= {_whole(block, entries, tag) for tag in (_TILE_WIDTH, _TILE_HEIGHT)}
        levels.append(_level(block, entries, max(tile_sizes)))
        tables.append(_shared_tables(block, entries))
        places.append(_tile_places(block, entries, levels[-1]))
        (directory,) = block.read("I", directory + 2 + 12 * len(listed))
    if len(media_types) != 1 or "" in media_types or len(tile_sizes) != 1:
        raise Malformed("its levels are not alike")
    return PyramidFile(path, media_types.pop(), tile_sizes.pop(), tuple(levels), tuple(tables), tuple(places))


def _level(block: Block, entries: dict[int, Entry], tile_size: int) -> Level:
    if not 16 <= tile_size <= MAX_TILE_SIZE:
        raise Malformed(f"tiles of {tile_size} pixels")
    width, height = _whole(block, entries, _WIDTH), _whole(block, entries, _HEIGHT)
    if not (width and height):
        raise Malformed("a level without pixels")
    return Level(width, height, -(-width // tile_size), -(-height // tile_size))


def _shared_tables(block: Block, entries: dict[int, Entry]) -> bytes:
    """What stands between the first and the last marker of the tables: libtiff leaves it out of the tiles."""
    if _JPEG_TABLES not in entries:
        return b""
    entry = entries[_JPEG_TABLES]
    if entry.value_bytes > MAX_TABLES_BYTES:
        raise Malformed("JPEG tables that are too long")
    return block.value(entry, block.order).removeprefix(_START).removesuffix(_END)


def _tile_places(block: Block, entries: dict[int, Entry], level: Level) -> tuple[tuple[int, int], ...]:
    offsets, lengths = _wholes(block, entries, _OFFSETS), _wholes(block, entries, _LENGTHS)
    if not len(offsets) == len(lengths) == level.columns * level.rows:
        raise Malformed("a level with too few or too many tiles")
    places = tuple(zip(offsets, lengths, strict=True))
    end = len(block.data)
    if any(not 0 < length <= MAX_TILE_BYTES or offset + length > end for offset, length in places):
        raise Malformed("a tile lies outside of it")
    return places


def _whole(block: Block, entries: dict[int, Entry], tag: int) -> int:
    return _wholes(block, entries, tag)[0]


def _wholes(block: Block, entries: dict[int, Entry], tag: int) -> tuple[int, ...]:
    """The whole numbers of a tag, at least one."""
    if tag not in entries or not entries[tag].length:
        raise Malformed(f"it has no tag {tag}")
    entry = entries[tag]
    form, size = ("H", 2) if entry.kind == SHORT else ("I", 4)
    if entry.length * size != entry.value_bytes:
        raise Malformed(f"tag {tag} is no whole number")
    return struct.unpack_from(f"{block.order}{entry.length}{form}", block.data, entry.value_at)
