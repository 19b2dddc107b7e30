"""Pyramids: a picture at every zoom, as a tiled TIFF. `engine.pyramid_file` takes the tiles out again."""

from __future__ import annotations

import errno
import os
from typing import IO, Any

import pyvips

from enlarger.engine.pictures import colour, vips
from enlarger.engine.pictures.encoding import of_depth
from enlarger.engine.pictures.formats import Header
from enlarger.engine.pictures.vips import VipsImage, blob
from enlarger.errors import InvalidPicture, OutOfMemory

TILE_SIZE = 512
QUALITY = 90
"""From here on libtiff keeps colour at full resolution."""


def write_pyramid(image: VipsImage, header: Header, target: IO[bytes]) -> None:
    """Write an upright image as a pyramid for the screen: sRGB, 8 bits a sample, each level half of the one before.

    Tiles are JPEG, or WebP where there is alpha, so that each can be handed to a browser as it lies in the file.
    `target` must be open for reading too. Raises InvalidPicture where the picture turns out to be damaged, and
    OutOfMemory where the disk is full.
    """
    if blob(image, "icc-profile-data"):
        image = colour.to_srgb(image, header.depth)
    shown = of_depth(image, header.depth, 8)
    place: Any = pyvips.Target.new_to_descriptor(target.fileno())
    try:
        shown.tiffsave_target(
            place,
            compression="webp" if header.has_alpha else "jpeg",
            Q=QUALITY,
            tile=True,
            tile_width=TILE_SIZE,
            tile_height=TILE_SIZE,
            pyramid=True,
            keep="none",
        )
    except pyvips.Error as error:
        if os.strerror(errno.ENOSPC) in str(error):
            raise OutOfMemory("the disk is too full to hold the picture at every zoom") from error
        raise InvalidPicture(f"the picture file is damaged or incomplete: {vips.reason(error)}") from error
