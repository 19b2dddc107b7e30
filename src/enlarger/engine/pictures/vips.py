"""libvips at its seam: opened once, closed to what is not fuzzed, its errors turned into ours."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import IO, Any

import numpy as np
import pyvips

from enlarger.engine.pictures.picture import Pixels
from enlarger.errors import InvalidPicture, UnsupportedFormat

VipsImage = Any  # pyvips makes its methods at run time and types metadata as a union of everything

_LOADERS = {
    "png": "pngload",
    "jpeg": "jpegload",
    "webp": "webpload",
    "tiff": "tiffload",
    "gif": "gifload",
    "avif": "heifload",
}
# What makes a loader give up. TIFF: a tile that is cut off is only a warning to libvips, whatever is read then.
_FAIL_ON = {"tiff": "warning"}
_INTERPRETATIONS = {(1, 8): "b-w", (1, 16): "grey16", (3, 8): "srgb", (3, 16): "rgb16"}


def opened(data: bytes, format: str, **options: int) -> VipsImage:
    """The image in a file of a known format; only its header is read. Raises InvalidPicture."""
    return _loaded("buffer", data, format, options)


def opened_stream(file: IO[bytes], format: str, **options: Any) -> VipsImage:
    """As `opened`, from an open file, of which no copy is made in memory; it may be closed afterwards."""
    os.lseek(file.fileno(), 0, os.SEEK_SET)  # libvips reads from wherever the last reader stopped
    source: Any = pyvips.Source.new_from_descriptor(file.fileno())
    return _loaded("source", source, format, options)


def _loaded(kind: str, source: Any, format: str, options: dict[str, Any]) -> VipsImage:
    _prepare()
    load: Callable[..., VipsImage] = getattr(pyvips.Image, f"{_LOADERS[format]}_{kind}")
    return wrapped(lambda: load(source, fail_on=_FAIL_ON.get(format, "error"), **options))


def from_pixels(pixels: Pixels) -> VipsImage:
    """An image over (h, w, 1..4) uint8 or uint16, without a copy where the array is contiguous."""
    _prepare()
    pixels = np.ascontiguousarray(pixels)
    height, width, channels = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    image: VipsImage = pyvips.Image.new_from_memory(
        pixels.data, width, height, channels, "uchar" if depth == 8 else "ushort"
    )
    # Left alone libvips takes 16-bit RGBA for 8-bit samples of something.
    return image.copy(interpretation=_INTERPRETATIONS[1 if channels <= 2 else 3, depth])


def to_pixels(image: VipsImage) -> Pixels:
    """Compute the image: (h, w, channels). Raises InvalidPicture where its file is damaged."""
    return wrapped(image.numpy).reshape(image.height, image.width, -1)


def blob(image: VipsImage, name: str) -> bytes:
    """Attached bytes by their name, empty where there are none."""
    return bytes(image.get(name)) if image.get_typeof(name) else b""


def with_blob(image: VipsImage, name: str, value: bytes) -> VipsImage:
    """A copy of the image with bytes attached, or without them where they are empty."""
    image = image.copy()
    if value:
        image.set_type(pyvips.GValue.blob_type, name, value)
    elif image.get_typeof(name):
        image.remove(name)
    return image


def with_timing(image: VipsImage, page_height: int, delays_ms: tuple[int, ...], loop: int) -> VipsImage:
    """A copy of the image, made of frames one below the other, that is saved as an animation."""
    image = image.copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", page_height)
    image.set_type(pyvips.GValue.array_int_type, "delay", list(delays_ms))
    image.set_type(pyvips.GValue.gint_type, "loop", loop)
    return image


def stoppable(image: VipsImage, cancelled: Callable[[], bool]) -> VipsImage:
    """A copy of the image that ends with an error while it is computed, once `cancelled()` says yes."""

    def computed_a_part(evaluated: VipsImage, progress: object) -> None:
        del progress
        evaluated.set_kill(cancelled())

    image = image.copy()
    image.set_progress(True)
    image.signal_connect("eval", computed_a_part)
    return image


def wrapped(call: Callable[[], Any]) -> Any:
    """What `call` returns; the error of a damaged file becomes InvalidPicture."""
    try:
        return call()
    except pyvips.Error as error:
        if "bad labq format" in str(error):  # what it says of a TIFF in L*a*b* with 8 bits a sample
            raise UnsupportedFormat(
                "TIFF pictures in L*a*b* are not supported; convert it to gray, RGB or CMYK"
            ) from error
        raise InvalidPicture(f"the picture file is damaged or incomplete: {reason(error)}") from error


def reason(error: pyvips.Error) -> str:
    """The last line of what libvips says, where the cause stands."""
    return str(error).strip().splitlines()[-1].strip()


@cache
def _prepare() -> None:
    """Settings of the whole process, made at first use."""
    pyvips.block_untrusted_set(True)
    # A cached operation keeps decoded pixels alive after their picture is gone.
    pyvips.cache_set_max(0)
