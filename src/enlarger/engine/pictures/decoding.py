"""Files → pictures. `probe` reads the header alone; pixels are decoded when rows are read.

Whatever the file holds becomes gray or RGB of 8 or 16 bits a sample, upright, with straight alpha if it has any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import IO

from enlarger.engine.geometry import Size
from enlarger.engine.pictures import colour, pillow, vips
from enlarger.engine.pictures.animation import Animation
from enlarger.engine.pictures.directories import EXIF_MARKER, exif_of_tiff
from enlarger.engine.pictures.formats import Header, sniff
from enlarger.engine.pictures.picture import Picture, Pixels
from enlarger.engine.pictures.vips import VipsImage, blob
from enlarger.errors import InvalidOption, InvalidPicture, UnsupportedFormat

_HEAD_BYTES = 16 * 2**20
"""Enough to tell the format: what may stand before the pixels of an animated PNG."""
_MIRRORED = 2
"""The highest EXIF orientation whose rows still come from top to bottom."""
_PILLOWS = ("bmp", "apng")
_ANIMATED = ("gif", "webp")  # read frame by frame through libvips

# (interpretation, sample format) as libvips names them → (channels in the file, colours given out, depth)
_KINDS = {
    ("b-w", "uchar"): (1, 1, 8),
    ("grey16", "ushort"): (1, 1, 16),
    ("srgb", "uchar"): (3, 3, 8),
    ("rgb", "uchar"): (3, 3, 8),
    ("rgb16", "ushort"): (3, 3, 16),
    ("cmyk", "uchar"): (4, 3, 8),
    ("cmyk", "ushort"): (4, 3, 16),
}
_SAMPLES = {
    "char": "8-bit signed",
    "short": "16-bit signed",
    "uint": "32-bit",
    "int": "32-bit signed",
    "float": "32-bit float",
    "double": "64-bit float",
    "complex": "complex",
    "dpcomplex": "complex",
}


def probe(data: bytes) -> Header:
    """The header of a picture file. Raises UnsupportedFormat, InvalidPicture."""
    format = sniff(data)
    if format in _PILLOWS:
        return _pillow_header(format, pillow.opened(data, format))
    return _header(format, vips.opened(data, format))


def decode(data: bytes, *, frame: int | None = None) -> Picture:
    """The still picture in a file, or one `frame` of an animation or page of a TIFF, counted from 0.

    Pixels are decoded at the first read of rows, which raises InvalidPicture where they are damaged. Raises
    UnsupportedFormat (also for an animation of which no frame is chosen), InvalidPicture, InvalidOption.
    """
    header = probe(data)
    if frame is None and header.frames > 1:
        raise UnsupportedFormat(
            f"this {header.format} is an animation of {header.frames} frames; choose one of them with frame"
        )
    page = frame or 0
    _check_frame(page, header)
    if header.format in _PILLOWS:
        return _pillow_pictures(header, pillow.opened(data, header.format))[page]
    if max(header.frames, header.pages) == 1:
        return _described(_picture(header.format, vips.opened(data, header.format)), data)
    note = f"page {page} taken, the file holds {header.pages}" if header.pages > 1 else f"frame {page} taken"
    return _described(_picture(header.format, vips.opened(data, header.format, page=page), (note,)), data)


def decode_animation(data: bytes) -> Animation:
    """All frames of an animation with their timing; a still picture is an animation of one frame.

    Raises as `decode` does.
    """
    header = probe(data)
    if header.format == "apng":
        opened = pillow.opened(data, header.format)
        return Animation(
            frames=_pillow_pictures(header, opened), delays_ms=opened.delays_ms, loop=opened.loop
        )
    if header.frames == 1:
        return Animation(frames=(decode(data),), delays_ms=(0,), loop=0)
    # One below the other; every frame is already whole.
    roll = vips.opened(data, header.format, n=-1)
    delays_ms: list[int] = roll.get("delay") if roll.get_typeof("delay") else []
    page_height = roll.get("page-height")
    if len(delays_ms) != header.frames or page_height * header.frames != roll.height:
        raise InvalidPicture("the picture file is damaged or incomplete: it has other frames than it says")
    return Animation(
        frames=tuple(
            _picture(header.format, roll.crop(0, index * page_height, roll.width, page_height))
            for index in range(header.frames)
        ),
        delays_ms=tuple(delays_ms),
        loop=roll.get("loop") if roll.get_typeof("loop") else 0,
    )


def open_stream(file: IO[bytes], frame: int = 0) -> tuple[Header, Callable[[], VipsImage]]:
    """The header of a picture, and how to get it as an upright image to be read once, from top to bottom.

    Where its format allows it the pixels never lie in memory together. `frame` of an animation, or page of a TIFF,
    whose own size the header tells. Raises as `decode` does; damaged pixels raise pyvips.Error when they are read.
    """
    format = sniff(file.read(_HEAD_BYTES))
    if format in _PILLOWS:
        file.seek(0)
        opened = pillow.opened(file.read(), format)
        header = _pillow_header(format, opened)
        _check_frame(frame, header)
        return header, lambda: _pillow_image(header, opened, frame)
    header = _header(format, vips.opened_stream(file, format))
    _check_frame(frame, header)
    page = {"page": frame} if frame else {}
    header = _header(format, vips.opened_stream(file, format, **page))
    return header, lambda: _streamed(vips.opened_stream(file, format, access="sequential", **page), header)


def _check_frame(frame: int, header: Header) -> None:
    count = max(header.frames, header.pages)
    if not 0 <= frame < count:
        raise InvalidOption(f"frame must be from 0 to {count - 1} for this picture, not {frame}", "frame")


def _streamed(image: VipsImage, header: Header) -> VipsImage:
    turned = image.get("orientation") if image.get_typeof("orientation") else 1
    if turned > _MIRRORED:
        image = vips.wrapped(image.copy_memory)  # turning reads the last rows first
    return _upright(image, header)[0]


def _pillow_image(header: Header, opened: pillow.Opened, frame: int) -> VipsImage:
    picture = _pillow_pictures(header, opened)[frame]
    return vips.with_blob(vips.from_pixels(opened.pixels(frame)), "icc-profile-data", picture.icc)


def _header(format: str, image: VipsImage) -> Header:
    kind = _KINDS.get((image.interpretation, image.format))
    if kind is None or image.bands < kind[0]:
        samples = _SAMPLES.get(image.format, image.format)
        raise UnsupportedFormat(
            f"{format} pictures of kind {image.interpretation} with {samples} samples are not supported; "
            "convert it to gray, RGB or CMYK with 8 or 16 bits a sample"
        )
    channels, colours, depth = kind
    turned = image.get_typeof("orientation") != 0 and image.get("orientation") >= 5
    count = image.get("n-pages") if image.get_typeof("n-pages") else 1
    return Header(
        format=format,
        size=Size(image.height, image.width) if turned else Size(image.width, image.height),
        colours=colours,
        has_alpha=image.bands > channels,
        depth=depth,
        frames=count if format in _ANIMATED else 1,
        pages=count if format == "tiff" else 1,
    )


def _picture(format: str, image: VipsImage, notes: tuple[str, ...] = ()) -> Picture:
    """A picture over an image of libvips: upright, in gray or RGB, samples over the whole of their range."""
    header = _header(format, image)
    exif, xmp = blob(image, "exif-data"), blob(image, "xmp-data")
    image, changed = _upright(image, header)
    return Picture(
        size=header.size,
        colours=header.colours,
        has_alpha=header.has_alpha,
        depth=header.depth,
        rows=_rows_of(image),
        icc=blob(image, "icc-profile-data"),
        exif=exif.removeprefix(EXIF_MARKER),
        xmp=xmp,
        format=format,
        notes=notes + changed,
    )


def _upright(image: VipsImage, header: Header) -> tuple[VipsImage, tuple[str, ...]]:
    """The image as a Picture shows it, and what was changed for that."""
    image, dropped = _without_extra_channels(image.autorot(), header)
    image, changed = _coloured(_full_range(image, header.format), header)
    return image, dropped + changed


def _described(picture: Picture, data: bytes) -> Picture:
    """The picture with its EXIF also where libvips does not give it: TIFF keeps it in tags of its own."""
    return replace(picture, exif=exif_of_tiff(data)) if picture.format == "tiff" else picture


def _rows_of(image: VipsImage) -> Callable[[int, int], Pixels]:
    return lambda top, bottom: vips.to_pixels(image.crop(0, top, image.width, bottom - top))


def _without_extra_channels(image: VipsImage, header: Header) -> tuple[VipsImage, tuple[str, ...]]:
    most = (4 if image.interpretation == "cmyk" else header.colours) + header.has_alpha
    extra = image.bands - most
    if extra <= 0:
        return image, ()
    return image.extract_band(0, n=most), (f"{extra} extra channels dropped",)


def _full_range(image: VipsImage, format: str) -> VipsImage:
    """AVIF of 10 or 12 bits over all 16: libvips shifts them up, which leaves white at 65,472."""
    bits = image.get("bits-per-sample") if image.get_typeof("bits-per-sample") else 16
    if format != "avif" or image.format != "ushort" or bits >= 16:
        return image
    samples = (image / 2 ** (16 - bits)).floor() * (65535 / (2**bits - 1))
    return samples.rint().cast("ushort").copy(interpretation=image.interpretation)


def _coloured(image: VipsImage, header: Header) -> tuple[VipsImage, tuple[str, ...]]:
    """The image in gray or RGB with a profile that fits it, and what was done for that."""
    icc = blob(image, "icc-profile-data")
    if image.interpretation == "cmyk":
        known = colour.channels_of(icc) == 4
        source = "its embedded profile" if known else "a generic profile, as it has no usable one of its own"
        return colour.to_srgb(image, header.depth), (f"CMYK converted to sRGB by {source}",)
    if icc and colour.channels_of(icc) != header.colours:
        note = "the embedded colour profile does not fit the picture and was dropped"
        return vips.with_blob(image, "icc-profile-data", b""), (note,)
    return image, ()


def _pillow_header(format: str, opened: pillow.Opened) -> Header:
    return Header(
        format=format,
        size=opened.size,
        colours=1 if opened.channels == 1 else 3,
        has_alpha=opened.channels == 4,
        depth=8,
        frames=len(opened.delays_ms),
    )


def _pillow_pictures(header: Header, opened: pillow.Opened) -> tuple[Picture, ...]:
    icc = opened.block("icc_profile")
    notes = opened.notes
    if icc and colour.channels_of(icc) != header.colours:
        icc = b""
        notes = (*notes, "the embedded colour profile does not fit the picture and was dropped")

    def picture(frame: int) -> Picture:
        return Picture(
            size=header.size,
            colours=header.colours,
            has_alpha=header.has_alpha,
            depth=header.depth,
            rows=lambda top, bottom: opened.pixels(frame)[top:bottom],
            icc=icc,
            exif=opened.block("exif").removeprefix(EXIF_MARKER),
            xmp=opened.block("xmp"),
            format=header.format,
            notes=notes,
        )

    return tuple(picture(frame) for frame in range(header.frames))
