"""Colour profiles and picture files made without the code under test."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageCms


def icc_profile(space: bytes, kind: bytes, pcs: bytes, tags: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A version 2 profile of the given tags."""
    table, body = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags:
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s28x3i48x",
        start + len(body), b"none", 0x02100000, kind, space, pcs, bytes(12), b"acsp", 63190, 65536, 54061,
    )  # fmt: skip
    return header + struct.pack(">I", len(tags)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


WHITE = (b"wtpt", xyz(0.9642, 1.0, 0.8249))
NAMES = [
    (b"desc", b"desc\0\0\0\0" + struct.pack(">I5s", 5, b"made\0") + bytes(78)),
    (b"cprt", b"text\0\0\0\0none\0"),
]


def cmyk_profile() -> bytes:
    """A printer of strange inks, so that no generic profile gives the same colours."""
    corners = np.random.default_rng(7).integers(60, 200, (16, 3))
    corners[0] = (255, 128, 128)  # paper: L*a*b* white
    corners[15] = (0, 128, 128)
    ramp = bytes(range(256))
    lut = (
        b"mft1\0\0\0\0"
        + bytes([4, 3, 2, 0])
        + struct.pack(">9i", *(65536 * n for n in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    )
    lut += ramp * 4 + corners.astype(np.uint8).tobytes() + ramp * 3
    return icc_profile(b"CMYK", b"prtr", b"Lab ", [*NAMES, WHITE, (b"A2B0", lut)])


@pytest.fixture(scope="session")
def profiles() -> dict[str, bytes]:
    """By name: none, srgb, wide (Adobe's primaries, gamma 2.2), gray (gamma 1.8), cmyk."""
    wide = [
        (b"rXYZ", xyz(0.6097, 0.3111, 0.0195)),
        (b"gXYZ", xyz(0.2053, 0.6257, 0.0609)),
        (b"bXYZ", xyz(0.1492, 0.0632, 0.7446)),
        *((name, gamma(2.2)) for name in (b"rTRC", b"gTRC", b"bTRC")),
    ]
    return {
        "none": b"",
        "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "wide": icc_profile(b"RGB ", b"mntr", b"XYZ ", [*NAMES, WHITE, *wide]),
        "gray": icc_profile(b"GRAY", b"mntr", b"XYZ ", [*NAMES, WHITE, (b"kTRC", gamma(1.8))]),
        "cmyk": cmyk_profile(),
    }


@pytest.fixture(scope="session")
def to_srgb(profiles: dict[str, bytes]) -> Callable[..., np.ndarray]:
    """Pillow's image through a profile to sRGB, by Little CMS without libvips."""

    def transform(image: Image.Image, icc: bytes) -> np.ndarray:
        source, target = (ImageCms.getOpenProfile(io.BytesIO(one)) for one in (icc, profiles["srgb"]))
        converted = ImageCms.profileToProfile(
            image, source, target, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        return np.asarray(converted)

    return transform


@pytest.fixture(scope="session")
def png_file() -> Callable[..., bytes]:
    """A PNG of any colour type and depth, after the specification: Pillow writes none of 16 bits."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def make(pixels: np.ndarray, *, exif: bytes = b"", icc: bytes = b"") -> bytes:
        height, width, channels = pixels.shape
        colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        lines = pixels.astype(pixels.dtype.newbyteorder(">")).reshape(height, -1)
        extra = chunk(b"iCCP", b"made\0\0" + zlib.compress(icc)) if icc else b""
        extra += chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")) if exif else b""
        header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, colour_type, 0, 0, 0)
        body = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
        return (
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")
        )

    return make
