"""The file formats: what each can hold, and how a file is told by its first bytes, never by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from enlarger.engine.geometry import Size
from enlarger.errors import InvalidOption, InvalidPicture, PictureTooLarge, UnsupportedFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format. `longest` is the longest side, in pixels, that can be written."""

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    """File name extensions, the usual one first."""
    longest: int
    natural: str
    """The format of a result whose input had this one."""
    is_written: bool = True
    holds_alpha: bool = True
    holds_16_bit: bool = False
    holds_gray: bool = True
    holds_icc: bool = True
    holds_metadata: bool = True
    """EXIF and XMP."""
    holds_animation: bool = False
    can_be_lossless: bool = True

    @property
    def extension(self) -> str:
        return self.suffixes[0].removeprefix(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself; `size` is that of the upright picture."""

    format: str
    size: Size
    colours: int
    """1 for gray, 3 for RGB and for CMYK, which is read as RGB."""
    has_alpha: bool
    depth: int
    frames: int = 1
    """Of an animation; 1 for a still picture."""
    pages: int = 1
    """Of a TIFF: separate pictures, of which the first is taken when nobody chooses."""


_COUNTED_IN_32_BITS = 2**31 - 1

FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(
            name="png",
            media_type="image/png",
            suffixes=(".png",),
            longest=_COUNTED_IN_32_BITS,
            natural="png",
            holds_16_bit=True,
        ),
        Format(
            name="jpeg",
            media_type="image/jpeg",
            suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
            longest=65_500,  # the library's limit; the format's own is 65,535
            natural="jpeg",
            holds_alpha=False,
            can_be_lossless=False,
        ),
        Format(
            name="webp",
            media_type="image/webp",
            suffixes=(".webp",),
            longest=16_383,
            natural="webp",
            holds_gray=False,
            holds_animation=True,
        ),
        Format(
            name="avif",
            media_type="image/avif",
            suffixes=(".avif",),
            longest=16_384,  # the encoder's limit
            natural="avif",
            holds_gray=False,
        ),
        Format(
            name="tiff",
            media_type="image/tiff",
            suffixes=(".tif", ".tiff"),
            longest=_COUNTED_IN_32_BITS,
            natural="tiff",
            holds_16_bit=True,
        ),
        Format(
            name="gif",
            media_type="image/gif",
            suffixes=(".gif",),
            longest=65_535,
            natural="png",
            holds_gray=False,
            holds_icc=False,
            holds_metadata=False,
            holds_animation=True,
            can_be_lossless=False,
        ),
        Format(
            name="bmp",
            media_type="image/bmp",
            suffixes=(".bmp", ".dib"),
            longest=_COUNTED_IN_32_BITS,
            natural="png",
            is_written=False,
        ),
        Format(
            name="apng",
            media_type="image/apng",
            suffixes=(".apng",),
            longest=_COUNTED_IN_32_BITS,
            natural="png",
            is_written=False,
            holds_animation=True,
        ),
    )
}

# First bytes of files that people send and this package does not read.
_KNOWN_OTHERS = (
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop (PSD)"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"II\xbc\x01", "a JPEG XR"),
    (b"\x76\x2f\x31\x01", "an OpenEXR"),
    (b"#?RADIANCE", "a Radiance HDR"),
    (b"FUJIFILMCCD-RAW", "a camera raw (Fujifilm)"),
    (b"IIRO", "a camera raw (Olympus)"),
    (b"IIU\x00", "a camera raw (Panasonic)"),
    (b"\x00\x00\x01\x00", "an ICO"),
    (b"DDS ", "a DDS"),
    (b"qoif", "a QOI"),
    (b"gimp xcf", "a GIMP (XCF)"),
    (b"%!PS", "a PostScript"),
    (b"PK\x03\x04", "a ZIP"),
    (b"\x1f\x8b", "a gzip"),
    (b"\x1a\x45\xdf\xa3", "a WebM or Matroska video"),
    *((b"P%d" % kind, "a PNM") for kind in range(1, 8)),
)
# Kinds of ISO media files: brand → what it is.
_BRANDS = {
    "avis": "an AVIF image sequence",
    **dict.fromkeys(("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"), "a HEIC"),
    "crx ": "a camera raw (Canon CR3)",
    "qt  ": "a QuickTime video",
    **dict.fromkeys(("isom", "iso2", "iso4", "iso5", "iso6", "mp41", "mp42", "M4V ", "dash"), "an MP4 video"),
}


def sniff(data: bytes) -> str:
    """Name of the format in FORMATS. Raises UnsupportedFormat, naming what the file is where it is known."""
    if not data:
        raise InvalidPicture("the picture has no bytes")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "apng" if _has_chunk_before_pixels(data, b"acTL") else "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and data[8:10] != b"CR":
        return "tiff"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[4:8] == b"ftyp" and "avif" in _brands(data) and _brands(data)[0] != "avis":
        return "avif"
    # "BM" alone is two letters of text: the reserved words must be zero and a header must follow.
    if data[:2] == b"BM" and data[6:10] == bytes(4) and int.from_bytes(data[14:18], "little") in _BMP_HEADERS:
        return "bmp"
    raise UnsupportedFormat(_refusal(data))


def check_fits(size: Size, format: str) -> None:
    """Raises PictureTooLarge when a side is longer than the format can hold."""
    longest = FORMATS[format].longest
    if max(size) > longest:
        raise PictureTooLarge(
            f"the result of {size.width}×{size.height} does not fit into {format}, whose longest side is "
            f"{longest} px; choose output_format=png or tiff, or a smaller size"
        )


def check_holds(format: str, *, lossless: bool = False, bit_depth: int | None = None) -> None:
    """Raises InvalidOption when the format is not written, or cannot be lossless or 16 bit as asked."""
    row = FORMATS.get(format)
    if row is None or not row.is_written:
        raise InvalidOption(
            f"output_format must be one of {_named('is_written')}, not {format}", "output_format"
        )
    if lossless and not row.can_be_lossless:
        raise InvalidOption(
            f"{format} has no lossless form; choose output_format {_named('can_be_lossless')}", "lossless"
        )
    if bit_depth == 16 and not row.holds_16_bit:
        raise InvalidOption(
            f"{format} is written with 8 bits a sample; choose output_format {_named('holds_16_bit')}, "
            "or bit_depth=8",
            "bit_depth",
        )


def format_of(path: Path) -> str | None:
    """The format a file name asks for by its extension, or None."""
    suffix = path.suffix.lower()
    return next((row.name for row in FORMATS.values() if suffix in row.suffixes), None)


def natural_format(input_format: str, animated: bool = False) -> str:
    """What a result is written as when nobody says: its input's format, or one that loses nothing of it.

    An animation becomes WebP; pixels that came from an array (input_format "") become PNG.
    """
    if animated:
        return "webp"
    return FORMATS[input_format].natural if input_format else "png"


_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths of the headers there ever were


def _named(quality: str) -> str:
    names = [row.name for row in FORMATS.values() if row.is_written and getattr(row, quality)]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _has_chunk_before_pixels(png: bytes, kind: bytes) -> bool:
    """Whether a PNG has a chunk of this kind before its first IDAT, where acTL must stand."""
    at = 8
    while at + 8 <= len(png):
        found = png[at + 4 : at + 8]
        if found in (kind, b"IDAT"):
            return found == kind
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return False


def _brands(data: bytes) -> list[str]:
    """Major and compatible brands of an ISO media file."""
    box = data[8 : min(int.from_bytes(data[:4], "big"), 512)]
    words = [box[at : at + 4].decode("latin-1") for at in range(0, len(box), 4)]
    return words[:1] + words[2:]  # the second word is a version


def _refusal(data: bytes) -> str:
    name = next((name for start, name in _KNOWN_OTHERS if data.startswith(start)), "")
    if data[4:8] == b"ftyp":
        name = next((_BRANDS[brand] for brand in _brands(data) if brand in _BRANDS), "an ISO media")
    if data[8:10] == b"CR" and data[:2] == b"II":
        name = "a camera raw (Canon CR2)"
    text = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        name = "an SVG"
    elif text.startswith((b"<!doctype html", b"<html")):
        name = "an HTML"
    readable = ", ".join(FORMATS)
    if name:
        return f"this is {name} file, which is not supported; send one of {readable}"
    return f"this is not a {readable} file (it starts with {data[:8].hex(' ')})"
