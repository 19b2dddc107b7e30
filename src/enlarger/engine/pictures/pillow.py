"""BMP and animated PNG, through Pillow: the two formats that libvips does not read (it silently takes the
first frame of an animated PNG).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from enlarger.engine.geometry import Size
from enlarger.engine.pictures.directories import orientation_of
from enlarger.engine.pictures.picture import Pixels
from enlarger.errors import InvalidPicture, PictureTooLarge

# How Pillow's modes are read; everything else it makes of these two formats is RGB.
_MODES = {"1": "L", "L": "L", "LA": "RGBA", "RGBA": "RGBA"}
_DEEP = ("I", "I;16", "I;16B")  # gray of 16 bits, which Pillow's own conversion would cut off at 255
_CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, struct.error)


@dataclass(slots=True)
class Opened:
    """An open file. Frames are composed one after another; going back starts again at the first."""

    image: Image.Image
    mode: str
    """What frames are converted to: L, RGB or RGBA."""
    first: int
    """Index of the first frame of the animation: 1 where a still picture stands before it."""
    orientation: int
    """As EXIF counts it, 1 to 8."""
    delays_ms: tuple[int, ...]
    """How long each frame is shown; a still picture has one entry."""
    notes: tuple[str, ...]
    _held: tuple[int, Pixels] | None = None

    @property
    def size(self) -> Size:
        width, height = self.image.size
        return Size(height, width) if self.orientation >= 5 else Size(width, height)

    @property
    def channels(self) -> int:
        return _CHANNELS[self.mode]

    @property
    def loop(self) -> int:
        return int(self.image.info.get("loop", 0))

    def block(self, name: str) -> bytes:
        """Attached bytes by Pillow's name (icc_profile, exif, xmp), empty where there are none."""
        value: Any = self.image.info.get(name, b"")
        return value if isinstance(value, bytes) else str(value).encode()

    def pixels(self, frame: int) -> Pixels:
        """A whole frame, upright, (h, w, channels) uint8. The last one read is held."""
        if self._held is None or self._held[0] != frame:
            self._held = frame, wrapped(lambda: self._composed(frame))
        return self._held[1]

    def _composed(self, frame: int) -> Pixels:
        self.image.seek(self.first + frame)
        whole = (_of_8_bits(self.image) if self.image.mode in _DEEP else self.image).convert(self.mode)
        if self.orientation in _UPRIGHT:
            whole = whole.transpose(_UPRIGHT[self.orientation])
        array = np.asarray(whole)
        return array.reshape(*array.shape[:2], -1)


def opened(data: bytes, format: str) -> Opened:
    """A BMP or APNG file; only its header is read. Raises InvalidPicture, PictureTooLarge."""
    size, depth = wrapped(lambda: _SIZES[format](data))
    # Pillow warns above this size and refuses above twice of it; one clear answer is better.
    limit = Image.MAX_IMAGE_PIXELS or 0
    if size.pixels > limit:
        raise PictureTooLarge(
            f"the picture is {size.width}×{size.height}; {format} files are read up to {limit / 1e6:.0f} megapixels, "
            "so send a PNG or TIFF file"
        )
    delays_ms = _delays_ms(data) if format == "apng" else (0,)
    if not delays_ms or not size.pixels:
        raise InvalidPicture("the picture file is damaged or incomplete: it holds no picture")
    image = wrapped(lambda: Image.open(io.BytesIO(data), formats=("PNG" if format == "apng" else "BMP",)))
    first = int(bool(image.info.get("default_image")))
    if len(delays_ms) != getattr(image, "n_frames", 1) - first:
        raise InvalidPicture("the picture file is damaged or incomplete: it has other frames than it says")
    return Opened(
        image=image,
        mode="RGBA" if format == "apng" else _MODES.get(image.mode, "RGB"),
        first=first,
        orientation=orientation_of(image.info.get("exif", b"")),
        delays_ms=delays_ms,
        notes=("animated PNG of 16 bits a sample read with 8",) if depth == 16 else (),
    )


def wrapped(call: Callable[[], Any]) -> Any:
    """What `call` returns; what Pillow raises over a damaged file becomes InvalidPicture."""
    try:
        return call()
    except _DAMAGED as error:
        raise InvalidPicture(f"the picture file is damaged or incomplete: {error}") from error


def _of_8_bits(gray: Image.Image) -> Image.Image:
    """Gray of 16 bits a sample, rounded to 8, its transparent level kept as transparency."""
    deep = np.asarray(gray).astype(np.int64)
    levels = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    clear = gray.info.get("transparency")
    if not isinstance(clear, int):
        return levels
    return Image.merge("LA", (levels, Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8))))


def _bmp_size(data: bytes) -> tuple[Size, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<II", data, 18)
        if height >= 0xFF000000:  # a small negative height, which means rows from the top
            height = 2**32 - height
    return Size(width, height), 8


def _png_size(data: bytes) -> tuple[Size, int]:
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    return Size(width, height), depth


def _delays_ms(png: bytes) -> tuple[int, ...]:
    """Of every frame, from its fcTL chunk; asking Pillow would decode them all. Raises InvalidPicture."""
    delays: list[int] = []
    announced: list[int] = []
    at = 8
    while at + 8 <= len(png):
        kind = png[at + 4 : at + 8]
        if kind == b"fcTL":
            part, whole = wrapped(lambda start=at + 28: struct.unpack_from(">HH", png, start))
            delays.append(round(1000 * part / (whole or 100)))
        elif kind == b"acTL":
            announced.append(int.from_bytes(png[at + 8 : at + 12], "big"))
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    if announced != [len(delays)]:
        raise InvalidPicture("the picture file is damaged or incomplete: it has other frames than it says")
    return tuple(delays)


_SIZES: dict[str, Callable[[bytes], tuple[Size, int]]] = {"bmp": _bmp_size, "apng": _png_size}
