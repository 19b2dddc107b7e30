"""Files ↔ pictures, through libvips. What a file is, is told by its first bytes, never by its name.

`probe` reads the header only; nothing decodes pixels before its size has been checked against the limits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from enlarger.engine.geometry import Size
from enlarger.engine.pictures.picture import Picture, Pixels
from enlarger.errors import EnlargerError, InvalidPicture, PictureTooLarge, UnsupportedFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format we read and write. `longest` is the longest side it can hold."""

    name: str
    media_type: str
    extension: str
    suffixes: tuple[str, ...]
    longest: int
    holds_alpha: bool


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(
            name="png",
            media_type="image/png",
            extension="png",
            suffixes=(".png",),
            longest=2**31 - 1,
            holds_alpha=True,
        ),
        Format(
            name="jpeg",
            media_type="image/jpeg",
            extension="jpg",
            suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
            longest=65_500,  # the format could hold 65,535; libjpeg stops here
            holds_alpha=False,
        ),
        Format(
            name="webp",
            media_type="image/webp",
            extension="webp",
            suffixes=(".webp",),
            longest=16_383,
            holds_alpha=True,
        ),
    )
}

VipsImage = Any  # pyvips types its metadata as a union of everything

# interpretation as libvips names it → (colour channels, bits a sample)
_MODES = {"srgb": (3, 8), "b-w": (1, 8), "rgb": (3, 8)}

# (bytes a sample, colour channels) → interpretation
_KINDS = {(1, 1): "b-w", (1, 3): "srgb", (2, 1): "grey16", (2, 3): "rgb16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself, orientation already applied to `size`."""

    format: str
    size: Size
    colours: int
    has_alpha: bool
    depth: int


def sniff(data: bytes) -> str:
    """Name of the format by its first bytes. Raises UnsupportedFormat."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if not data:
        raise InvalidPicture("the picture has no bytes")
    raise UnsupportedFormat(f"this is not a {', '.join(FORMATS)} file (it starts with {data[:8].hex(' ')})")


def probe(data: bytes) -> Header:
    """The header of a picture file. Raises UnsupportedFormat or InvalidPicture."""
    return _header(sniff(data), _opened(data))


def decode(data: bytes) -> Picture:
    """The picture in a file, its EXIF orientation applied. Pixels are decoded at the first read of rows.

    Raises UnsupportedFormat or InvalidPicture; so does `rows` of the result, where the pixel data is damaged.
    """
    image = _opened(data)
    header = _header(sniff(data), image)
    icc = bytes(image.get("icc-profile-data")) if image.get_typeof("icc-profile-data") else b""
    upright = image.autorot()

    def rows(top: int, bottom: int) -> Pixels:
        band = upright.crop(0, top, header.size.width, bottom - top)
        return _wrapped(lambda: band.numpy()).reshape(bottom - top, header.size.width, -1)

    return Picture(
        size=header.size,
        colours=header.colours,
        has_alpha=header.has_alpha,
        depth=header.depth,
        rows=rows,
        icc=icc,
    )


def encode(pixels: Pixels, target: Path, *, format: str, quality: int, icc: bytes = b"") -> None:
    """Write (h, w, 1..4) uint8 or uint16 to the file `target`. A format without alpha gets it on white.

    Raises PictureTooLarge when the format cannot hold the size, EnlargerError when the file cannot be written.
    """
    height, width, channels = pixels.shape
    check_fits(Size(width, height), format)
    colours = 1 if channels <= 2 else 3
    # libvips would take 16-bit samples for 8-bit ones that overflow, unless told.
    image: VipsImage = pyvips.Image.new_from_array(pixels, interpretation=_KINDS[pixels.itemsize, colours])
    if channels > colours and not FORMATS[format].holds_alpha:
        image = image.flatten(background=[int(np.iinfo(pixels.dtype).max)] * colours)
    if icc:
        image = image.copy()
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    savers: dict[str, Callable[[str], Any]] = {
        # Level 1 takes a third of the time of level 6 for files some 10 % larger.
        "png": lambda path: image.pngsave(path, compression=1),
        "jpeg": lambda path: image.jpegsave(path, Q=quality, subsample_mode="auto"),
        "webp": lambda path: image.webpsave(path, Q=quality),
    }
    try:
        savers[format](str(target))
    except pyvips.Error as error:
        raise EnlargerError(f"the result could not be written to {target}: {_reason(error)}") from error


def check_fits(size: Size, format: str) -> None:
    """Raises PictureTooLarge when a side is longer than the format can hold."""
    longest = FORMATS[format].longest
    if max(size) > longest:
        raise PictureTooLarge(
            f"the result of {size.width}×{size.height} does not fit into {format}, whose longest side is "
            f"{longest} px; choose output_format=png or a smaller scale"
        )


def format_of(path: Path) -> str | None:
    """The format a file name asks for by its extension, or None."""
    suffix = path.suffix.lower()
    return next((row.name for row in FORMATS.values() if suffix in row.suffixes), None)


def _opened(data: bytes) -> VipsImage:
    loaders: dict[str, Callable[..., pyvips.Image]] = {
        "png": pyvips.Image.pngload_buffer,
        "jpeg": pyvips.Image.jpegload_buffer,
        "webp": pyvips.Image.webpload_buffer,
    }
    return _wrapped(lambda: loaders[sniff(data)](data, fail_on="truncated"))


def _header(format: str, image: VipsImage) -> Header:
    mode = _MODES.get(image.interpretation)
    if mode is None or image.format != "uchar":
        raise UnsupportedFormat(
            f"pictures of kind {image.interpretation} with {image.format} samples are not supported; "
            "convert it to 8-bit RGB or gray"
        )
    colours, depth = mode
    width, height = image.width, image.height
    turned = image.get_typeof("orientation") != 0 and image.get("orientation") >= 5
    return Header(
        format=format,
        size=Size(height, width) if turned else Size(width, height),
        colours=colours,
        has_alpha=image.bands > colours,
        depth=depth,
    )


def _wrapped(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except pyvips.Error as error:
        raise InvalidPicture(f"the picture file is damaged or incomplete: {_reason(error)}") from error


def _reason(error: pyvips.Error) -> str:
    return str(error).strip().splitlines()[-1].strip()
