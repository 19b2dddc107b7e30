"""Band file: rows of pixels on disk, whole or recognisably not.

1 KiB of JSON, padded with spaces, then the rows as one stream of deflate. Before it goes in, a pixel is replaced by
its difference to the one left of it and above it, within pieces of PIECE_ROWS rows, and 16-bit samples are sorted
into high and low bytes. Measured here on a photograph and a drawing enlarged four times: 45 and 19 % of the size at
80 to 100 MB/s; without differences level 1 makes 82 and 42 % of it at 50 to 90 MB/s.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from enlarger.engine.pictures.picture import Pixels

HEADER_BYTES = 1024
PIECE_ROWS = 64
_READ_BYTES = 2**20


class DamagedBand(Exception):
    """The file is cut short, or not what was written."""


def write_band(
    path: Path, facts: Mapping[str, Any], rows: Pixels, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Write (h, w, channels) pixels and what is told of them under a name that only a whole file has.

    Once `stopped()` says yes there will be no file.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            is_whole = _packed(file, facts, rows, stopped)
        if is_whole:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_facts(path: Path) -> dict[str, Any]:
    """What is told of the rows. Raises DamagedBand."""
    with path.open("rb") as file:
        return _header(file)


def read_band(path: Path, into: Pixels) -> None:
    """The rows of the file, into an array of their shape. Raises DamagedBand, with some of them written."""
    with path.open("rb") as file:
        header = _header(file)
        size = os.fstat(file.fileno()).st_size - HEADER_BYTES
        if {name: header.get(name) for name in ("shape", "dtype")} != _layout(into) or size != header.get(
            "bytes"
        ):
            raise DamagedBand("its rows have another shape or length")
        unpacker, digest = zlib.decompressobj(), hashlib.sha256()
        try:
            for top in range(0, len(into), PIECE_ROWS):
                piece = into[top : top + PIECE_ROWS]
                piece[:] = _sums(_unpacked(file, unpacker, digest.update, piece.size * piece.itemsize), piece)
        except zlib.error as error:
            raise DamagedBand(str(error)) from error
        while rest := file.read(_READ_BYTES):
            digest.update(rest)
        if digest.hexdigest() != header.get("sha256"):
            raise DamagedBand("its rows are not those that were written")


def _packed(file: IO[bytes], facts: Mapping[str, Any], rows: Pixels, stopped: Callable[[], bool]) -> bool:
    """Whether the file is whole."""
    packer, digest = zlib.compressobj(1, strategy=zlib.Z_RLE), hashlib.sha256()
    file.seek(HEADER_BYTES)
    for top in range(0, len(rows), PIECE_ROWS):
        if stopped():
            return False
        _append(file, digest.update, packer.compress(_differences(rows[top : top + PIECE_ROWS])))
    _append(file, digest.update, packer.flush())
    told = {**facts, **_layout(rows), "sha256": digest.hexdigest(), "bytes": file.tell() - HEADER_BYTES}
    header = json.dumps(told).encode().ljust(HEADER_BYTES)
    if len(header) > HEADER_BYTES:
        raise ValueError(f"a header of {len(header)} bytes")
    file.seek(0)
    file.write(header)
    return True


def _header(file: IO[bytes]) -> dict[str, Any]:
    try:
        header = json.loads(file.read(HEADER_BYTES))
    except (ValueError, RecursionError) as error:
        raise DamagedBand("it has no header") from error
    if not isinstance(header, dict):
        raise DamagedBand("it has no header")
    return cast(dict[str, Any], header)


def _layout(rows: Pixels) -> dict[str, Any]:
    return {"shape": list(rows.shape), "dtype": rows.dtype.str}


def _append(file: IO[bytes], hashed: Callable[[bytes], None], data: bytes) -> None:
    hashed(data)
    file.write(data)


def _unpacked(file: IO[bytes], unpacker: Any, hashed: Callable[[bytes], None], length: int) -> bytes:
    """The next `length` bytes of the stream."""
    parts: list[bytes] = []
    while length > 0:
        packed: bytes = unpacker.unconsumed_tail
        if not packed:
            packed = file.read(_READ_BYTES)
            hashed(packed)
        part: bytes = unpacker.decompress(packed, length)
        if not part and not packed:
            raise DamagedBand("it ends too early")
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _differences(rows: Pixels) -> bytes:
    # Unsigned numbers wrap around, and back again when they are added up.
    across = rows.copy()
    across[:, 1:] -= rows[:, :-1]
    down = across.copy()
    down[1:] -= across[:-1]
    return down.view(np.uint8).reshape(-1, rows.itemsize).T.tobytes()


def _sums(data: bytes, like: Pixels) -> Pixels:
    planes = np.frombuffer(data, np.uint8).reshape(like.itemsize, -1)
    down = np.ascontiguousarray(planes.T).view(like.dtype).reshape(like.shape)
    across: Pixels = np.add.accumulate(down, axis=0, dtype=like.dtype)
    return np.add.accumulate(across, axis=1, dtype=like.dtype)
