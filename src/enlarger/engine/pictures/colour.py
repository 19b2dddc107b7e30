"""Colour: profiles, linear light, transparency.

Profiles are applied by libvips (Little CMS), relative colorimetric with black point compensation, which is what
picture editors do when nobody chooses.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips
from PIL import ImageCms

from enlarger.engine.pictures.picture import Pixels
from enlarger.engine.pictures.vips import VipsImage, blob, with_blob, wrapped

Floats = npt.NDArray[np.float32]

_SPACES = {b"GRAY": 1, b"RGB ": 3, b"CMYK": 4}
_LCMS_MODES = {1: "L", 3: "RGB", 4: "CMYK"}
FRINGE = 8
"""Width in pixels of the fringe of `bleed` that continues its neighbours pixel by pixel."""

_NEIGHBOURS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
_BAND_ROWS = 256


def channels_of(icc: bytes) -> int:
    """How many colour channels a profile is for (1, 3 or 4), 0 when it is no usable profile."""
    channels = _SPACES.get(icc[16:20], 0)
    if not channels or icc[36:40] != b"acsp":
        return 0
    try:
        profile = ImageCms.getOpenProfile(io.BytesIO(icc))
        srgb = ImageCms.getOpenProfile(io.BytesIO(srgb_profile()))
        ImageCms.buildTransform(profile, srgb, _LCMS_MODES[channels], "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return 0
    return channels


def to_srgb(image: VipsImage, depth: int) -> VipsImage:
    """An image converted to sRGB by its embedded profile and tagged as sRGB; alpha stays.

    An image without a usable profile is taken for generic CMYK or sRGB gray.
    """
    channels = 4 if image.interpretation == "cmyk" else 1 if image.bands <= 2 else 3
    if channels_of(blob(image, "icc-profile-data")) == channels:
        return _transformed(image, depth, embedded=True)
    image = with_blob(image, "icc-profile-data", b"")
    if channels == 4:
        return _transformed(image, depth, input_profile="cmyk")
    return with_blob(_widened(image, depth), "icc-profile-data", srgb_profile())


def srgb_profile() -> bytes:
    """A small sRGB profile."""
    return bytes(pyvips.Image.profile_load("srgb"))  # pyright: ignore[reportAttributeAccessIssue]


def flatten(image: VipsImage, background: str, depth: int) -> VipsImage:
    """An image with alpha laid on a colour like #ffffff, rounded once, in its own depth.

    Gray on a colour that is no gray becomes RGB. (libvips' own flatten cuts off instead of rounding.)
    """
    top_value = 2**depth - 1
    levels = [int(background[at : at + 2], 16) * top_value // 255 for at in (1, 3, 5)]
    if image.bands == 2:
        if len(set(levels)) == 1:
            levels = levels[:1]
        else:
            image = _widened(image, depth)
    colour = image.extract_band(0, n=image.bands - 1)
    # In double: f32 holds no product of two 16-bit samples.
    alpha = image.extract_band(image.bands - 1).cast("double") / top_value
    mixed = (colour - levels) * alpha + levels
    return mixed.rint().cast(image.format).copy(interpretation=image.interpretation)


def srgb_to_linear(values: Floats) -> Floats:
    """Samples in [0, 1] as sRGB encodes them → linear light, f32 (IEC 61966-2-1). Values below 0 stay linear."""
    values = np.asarray(values, np.float32)
    bent = ((np.maximum(values, np.float32(0.04045)) + np.float32(0.055)) / np.float32(1.055)) ** np.float32(
        2.4
    )
    return np.where(values <= np.float32(0.04045), values / np.float32(12.92), bent)


def linear_to_srgb(values: Floats) -> Floats:
    """Linear light → samples as sRGB encodes them, f32; the inverse of `srgb_to_linear`."""
    values = np.asarray(values, np.float32)
    edge = np.float32(0.0031308)
    bent = np.float32(1.055) * np.maximum(values, edge) ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(values <= edge, values * np.float32(12.92), bent)


def bleed(pixels: Pixels) -> Pixels:
    """The colour of (h, w, 2 or 4) pixels with alpha, what lies under zero alpha replaced by its surroundings.

    Whatever a file hides there (mostly black) would otherwise be drawn into the edge by a network. Where alpha is
    above zero the colour stays exactly as it is. A fringe of FRINGE pixels continues its neighbours; farther away
    the colour is that of ever larger blocks. A picture that is all transparent stays as it is.
    """
    colour, known = pixels[:, :, :-1], pixels[:, :, -1] > 0
    if known.all() or not known.any():
        return colour
    colour = np.where(known[:, :, None], colour, 0).astype(pixels.dtype)
    _grow(colour, known)
    if not known.all():
        _fill(colour, known)
    return colour


def _grow(colour: Pixels, known: npt.NDArray[np.bool_]) -> None:
    """Give unknown pixels the mean of their known neighbours, FRINGE times. Works in place."""
    rows, columns = np.nonzero(_beside(known) & ~known)
    for _ in range(FRINGE):
        if not len(rows):
            return
        total = np.zeros((len(rows), colour.shape[2]), np.int64)
        count = np.zeros(len(rows), np.int64)
        around: list[npt.NDArray[np.int64]] = []
        for dy, dx in _NEIGHBOURS:
            y, x = rows + dy, columns + dx
            inside = (y >= 0) & (y < known.shape[0]) & (x >= 0) & (x < known.shape[1])
            index = np.flatnonzero(inside)
            found = index[known[y[index], x[index]]]
            total[found] += colour[y[found], x[found]]
            count[found] += 1
            rest = index[~known[y[index], x[index]]]
            around.append(y[rest] * known.shape[1] + x[rest])
        colour[rows, columns] = (2 * total + count[:, None]) // (2 * count[:, None])
        known[rows, columns] = True
        rows, columns = np.divmod(np.unique(np.concatenate(around)), known.shape[1])
        open_still = ~known[rows, columns]
        rows, columns = rows[open_still], columns[open_still]


def _beside(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels that are known or have a known neighbour."""
    wide = known.copy()
    wide[:, 1:] |= known[:, :-1]
    wide[:, :-1] |= known[:, 1:]
    high = wide.copy()
    high[1:] |= wide[:-1]
    high[:-1] |= wide[1:]
    return high


def _fill(colour: Pixels, known: npt.NDArray[np.bool_]) -> None:
    """Give unknown pixels the mean of the smallest block around them that holds a known one. In place."""
    levels = [_halved(colour, known)]
    while not levels[-1][1].all():
        levels.append(_halved(*levels[-1]))
    mean = levels[-1][0]
    for finer, finer_known in reversed(levels[:-1]):
        mean = np.where(finer_known[:, :, None], finer, _doubled(mean, 0, *finer_known.shape))
    for top in range(0, len(colour), _BAND_ROWS):
        band, held = colour[top : top + _BAND_ROWS], known[top : top + _BAND_ROWS]
        filled = np.rint(_doubled(mean, top, *held.shape)).astype(colour.dtype)
        np.copyto(band, filled, where=~held[:, :, None])


def _halved(colour: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Means over the known pixels of 2×2 blocks, and which blocks hold one."""
    height, width, channels = colour.shape
    half = ((height + 1) // 2, (width + 1) // 2)
    total = np.zeros((*half, channels), np.float32)
    count = np.zeros(half, np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            part, held = colour[dy::2, dx::2], known[dy::2, dx::2]
            rows, columns = held.shape
            total[:rows, :columns] += part * held[:, :, None]
            count[:rows, :columns] += held
    mean = (total / np.maximum(count, 1)[:, :, None]).astype(np.float32, copy=False)
    return mean, count > 0


def _doubled(mean: Floats, top: int, rows: int, columns: int) -> Floats:
    """Rows [top, top + rows) of twice as large a picture; `top` is even."""
    part = mean[top // 2 : (top + rows + 1) // 2]
    return part.repeat(2, axis=0)[:rows].repeat(2, axis=1)[:, :columns]


def _transformed(image: VipsImage, depth: int, **source: Any) -> VipsImage:
    return wrapped(
        lambda: image.icc_transform(
            "srgb", depth=depth, intent="relative", black_point_compensation=True, **source
        )
    )


def _widened(image: VipsImage, depth: int) -> VipsImage:
    """Gray as RGB; anything else as it is."""
    if image.bands > 2:
        return image
    bands = [image[0], image[0], image[0], *([image[1]] if image.bands == 2 else [])]
    return bands[0].bandjoin(bands[1:]).copy(interpretation="srgb" if depth == 8 else "rgb16")
