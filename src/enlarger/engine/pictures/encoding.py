"""Pictures → files, through libvips. What a format cannot hold is changed in a known way and said in a note."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyvips

from enlarger.engine.geometry import Size
from enlarger.engine.pictures import colour, vips
from enlarger.engine.pictures.directories import EXIF_MARKER, add_exif
from enlarger.engine.pictures.formats import FORMATS, Format, check_fits, check_holds
from enlarger.engine.pictures.metadata import Carried, carried
from enlarger.engine.pictures.picture import Pixels
from enlarger.engine.pictures.vips import VipsImage, with_blob
from enlarger.errors import Cancelled, EnlargerError, InvalidOption

Saver = Callable[..., Any]

TILED_TIFF_PIXELS = 50_000_000
"""From here on a TIFF is stored in tiles, so that a viewer can open a part of it."""

BIG_TIFF_BYTES = 3_900_000_000
"""From here on, uncompressed, a TIFF counts its bytes in 64 bits."""

_JPEG_BLOCK_BYTES = 65_000  # EXIF or XMP have to fit into one segment of a JPEG

_KEEP_EXIF, _KEEP_XMP, _KEEP_ICC = 1, 2, 8  # flags of libvips


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a result is written. `check_holds` says which combinations there are."""

    format: str
    quality: int = 95
    """1 to 100, of lossy formats."""
    lossless: bool = False
    bit_depth: int | None = None
    """8, 16, or None for the depth of the pixels where the format holds it."""
    icc: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    metadata: str = "keep"
    """keep, strip or strip-gps: what becomes of EXIF and XMP. The colour profile always stays."""
    background: str = "#ffffff"
    """Colour behind transparency, in the picture's own colour space."""


def encode(
    pixels: Pixels, target: Path, encoding: Encoding, cancelled: Callable[[], bool] = lambda: False
) -> tuple[str, ...]:
    """Write (h, w, 1..4) uint8 or uint16 with straight alpha to the file `target`.

    Returns a sentence for each thing the format could not hold. Raises PictureTooLarge, InvalidOption, and Cancelled
    where `cancelled()`, asked again and again, says yes.
    """
    row = _checked(pixels, encoding)
    image, notes = _fitted(vips.from_pixels(pixels), pixels, row, encoding)
    image, keep, kept = _with_metadata(image, Size(image.width, image.height), row, encoding)
    _write(image, row, target, encoding, keep, cancelled)
    if row.name == "tiff" and kept.exif:  # libvips does not write it there
        with target.open("r+b") as file:
            add_exif(file, kept.exif)
    return notes + kept.notes


def encode_animation(
    frames: Sequence[Pixels],
    delays_ms: Sequence[int],
    loop: int,
    target: Path,
    encoding: Encoding,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[str, ...]:
    """Write frames of one shape, all in memory, as an animation that is played `loop` times, 0 for ever.

    Returns notes and raises as `encode` does; InvalidOption also where the format holds no animation.
    """
    row = _checked(frames[0], encoding)
    if not row.holds_animation:
        raise InvalidOption(
            f"{row.name} holds no animation; choose output_format=webp, or one frame", "output_format"
        )
    size = Size(frames[0].shape[1], frames[0].shape[0])
    fitted = [_fitted(vips.from_pixels(frame), frame, row, encoding) for frame in frames]
    roll = pyvips.Image.arrayjoin([image for image, _ in fitted], across=1)
    timed = vips.with_timing(roll, size.height, tuple(delays_ms), loop)
    image, keep, kept = _with_metadata(timed, size, row, encoding)
    _write(image, row, target, encoding, keep, cancelled)
    coarse = row.name == "gif" and any(delay % 10 for delay in delays_ms)
    timing = ("delays rounded to 10 ms, as gif counts them",) if coarse else ()
    return fitted[0][1] + kept.notes + timing


def _checked(pixels: Pixels, encoding: Encoding) -> Format:
    check_holds(encoding.format, lossless=encoding.lossless, bit_depth=encoding.bit_depth)
    check_fits(Size(pixels.shape[1], pixels.shape[0]), encoding.format)
    return FORMATS[encoding.format]


def _fitted(
    image: VipsImage, pixels: Pixels, row: Format, encoding: Encoding
) -> tuple[VipsImage, tuple[str, ...]]:
    """The image as the format can hold it: colour first, then transparency, then depth, rounded once each."""
    depth = 8 * pixels.dtype.itemsize
    channels = pixels.shape[2]
    notes: list[str] = []
    image = with_blob(image, "icc-profile-data", encoding.icc)
    is_gray, tinted = channels <= 2, len(set(_levels(encoding.background))) > 1
    flattened = channels in (2, 4) and not row.holds_alpha
    if encoding.icc and not row.holds_icc:
        image = colour.to_srgb(image, depth)
        notes.append(f"colours converted to sRGB: {row.name} holds no profile")
    elif is_gray and encoding.icc and (not row.holds_gray or (flattened and tinted)):
        image = colour.to_srgb(image, depth)
        notes.append("gray converted to sRGB by its profile, as the result is RGB")
    if flattened:
        image = colour.flatten(image, encoding.background, depth)
        notes.append(f"transparency flattened on {encoding.background}: {row.name} holds none")
    elif channels in (2, 4) and row.name == "gif":
        notes.append("every pixel made opaque or transparent: gif knows nothing between")
    wanted = encoding.bit_depth or (depth if row.holds_16_bit else 8)
    if wanted < depth:
        why = f": {row.name} holds no more" if not row.holds_16_bit else ""
        notes.append(f"16 bits a sample rounded to 8{why}")
    return of_depth(image, depth, wanted), tuple(notes)


def of_depth(image: VipsImage, depth: int, wanted: int) -> VipsImage:
    """An image of 8 or 16 bits a sample with the other depth, rounded to the nearest."""
    if depth == wanted:
        return image
    gray = image.bands <= 2
    if wanted == 16:
        return (image.cast("ushort") * 257).cast("ushort").copy(interpretation="grey16" if gray else "rgb16")
    return (image / 257).rint().cast("uchar").copy(interpretation="b-w" if gray else "srgb")


def _with_metadata(
    image: VipsImage, size: Size, row: Format, encoding: Encoding
) -> tuple[VipsImage, int, Carried]:
    """The image with its metadata attached, which kinds of it libvips shall write, and what is carried."""
    kept = carried(encoding.exif, encoding.xmp, size, encoding.metadata)
    if not row.holds_metadata and (kept.exif or kept.xmp):
        kept = Carried(notes=(*kept.notes, f"EXIF and XMP dropped: {row.name} holds none"))
    if row.name == "jpeg":
        kept = _within_segments(kept)
    # Without these flags libvips would make up an EXIF block of its own.
    keep = _KEEP_ICC + _KEEP_EXIF * bool(kept.exif) + _KEEP_XMP * bool(kept.xmp)
    image = with_blob(image, "exif-data", EXIF_MARKER + kept.exif if kept.exif else b"")
    return with_blob(image, "xmp-data", kept.xmp), keep, kept


def _within_segments(kept: Carried) -> Carried:
    exif, xmp, notes = kept.exif, kept.xmp, kept.notes
    if len(exif) > _JPEG_BLOCK_BYTES:
        exif, notes = b"", (*notes, f"EXIF dropped: jpeg holds up to {_JPEG_BLOCK_BYTES} bytes of it")
    if len(xmp) > _JPEG_BLOCK_BYTES:
        xmp, notes = b"", (*notes, f"XMP dropped: jpeg holds up to {_JPEG_BLOCK_BYTES} bytes of it")
    return Carried(exif, xmp, notes)


def _levels(background: str) -> list[str]:
    return [background[at : at + 2].lower() for at in (1, 3, 5)]


def _tiff(image: VipsImage, encoding: Encoding) -> Saver:
    del encoding
    raw_bytes = image.width * image.height * image.bands * (2 if image.format == "ushort" else 1)
    return partial(
        image.tiffsave,
        compression="deflate",
        predictor="horizontal",
        tile=image.width * image.height >= TILED_TIFF_PIXELS,
        tile_width=256,
        tile_height=256,
        bigtiff=raw_bytes >= BIG_TIFF_BYTES,
    )


_SAVERS: dict[str, Callable[[VipsImage, Encoding], Saver]] = {
    # Level 1 takes a third of the time of level 6 for files some 10 % larger.
    "png": lambda image, encoding: partial(image.pngsave, compression=1),
    "jpeg": lambda image, encoding: partial(image.jpegsave, Q=encoding.quality, subsample_mode="auto"),
    # exact: colour under zero alpha stays what it is.
    "webp": lambda image, encoding: partial(
        image.webpsave, Q=encoding.quality, lossless=encoding.lossless, exact=encoding.lossless
    ),
    # Effort 0 takes a 20th of the time of the default 4, for files of the same size (14 % larger if lossless).
    "avif": lambda image, encoding: partial(
        image.heifsave,
        compression="av1",
        effort=0,
        Q=encoding.quality,
        lossless=encoding.lossless,
        bitdepth=8,
    ),
    "tiff": _tiff,
    # Frames that are alike keep their own delays.
    "gif": lambda image, encoding: partial(image.gifsave, keep_duplicate_frames=True),
}


def _write(
    image: VipsImage, row: Format, target: Path, encoding: Encoding, keep: int, cancelled: Callable[[], bool]
) -> None:
    try:
        _SAVERS[row.name](vips.stoppable(image, cancelled), encoding)(str(target), keep=keep)
    except pyvips.Error as error:
        if cancelled():
            raise Cancelled("the work was cancelled") from error
        raise EnlargerError(f"cannot write {target}: {vips.reason(error)}") from error
