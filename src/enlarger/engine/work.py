"""Work: a picture or animation that is decoded and planned, and how its result will be written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

import numpy as np
import PIL
import pyvips

from enlarger.engine.geometry import Size
from enlarger.engine.options import Options
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.animation import Animation
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.plan import Limits, Plan, Subject, check_pixels
from enlarger.engine.timing import Timings
from enlarger.errors import UnsupportedFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is left is to compute it, on the engine that made it."""

    source: Picture | Animation
    options: Options
    plan: Plan
    encoding: codec.Encoding
    source_sha256: str
    """Of the file the picture came from; empty where that is not known."""
    fingerprint: str
    """Of the result, if all goes as planned; empty where bytes of the result depend on what is not known."""
    timings: Timings
    """Of the steps so far."""

    @property
    def frames(self) -> tuple[Picture, ...]:
        return frames_of(self.source)

    @property
    def can_resume(self) -> bool:
        """Whether bands of it are saved: not of animations, nor where there is nothing between start and end."""
        rows = sum(len(tiles.rows) for tiles in self.plan.passes)
        is_one = isinstance(self.source, Picture)
        return bool(is_one and self.fingerprint and self.options.strength > 0 and rows > 1)

    @property
    def input_pixels(self) -> int:
        """Of all frames together."""
        return sum(frame.size.pixels for frame in self.frames)


def frames_of(source: Picture | Animation) -> tuple[Picture, ...]:
    return source.frames if isinstance(source, Animation) else (source,)


def subject_of(source: Picture | Animation) -> Subject:
    frames = frames_of(source)
    first = frames[0]
    return Subject(size=first.size, depth=first.depth, has_alpha=first.has_alpha, frames=len(frames))


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def decoded(data: bytes, frame: int | None, limits: Limits) -> Picture | Animation:
    """The picture or animation in a file, its size checked from the header before any pixel is decoded."""
    header = codec.probe(data)
    check_pixels("the picture", header.size, limits.max_input_pixels)
    if header.frames > 1 and frame is None:
        # An animation is upscaled whole; its frames lie in memory together.
        all_frames = Size(header.size.width, header.size.height * header.frames)
        check_pixels(f"the animation of {header.frames} frames", all_frames, limits.max_output_pixels // 4)
        return codec.decode_animation(data)
    return codec.decode(data, frame=frame)


def encoding_of(source: Picture | Animation, options: Options, plan: Plan) -> codec.Encoding:
    """How the result will be written. Raises UnsupportedFormat or PictureTooLarge where it cannot be."""
    first, is_animated = frames_of(source)[0], isinstance(source, Animation)
    name = options.output_format
    if name == "auto":
        name = codec.natural_format(first.format, is_animated)
    if is_animated and not codec.FORMATS[name].holds_animation:
        raise UnsupportedFormat(
            f"{name} holds no animation; choose output_format=webp, or one picture of it with frame=0"
        )
    codec.check_fits(plan.size, name)
    codec.check_holds(name, lossless=options.lossless, bit_depth=options.bit_depth)
    return codec.Encoding(
        format=name,
        quality=options.quality,
        lossless=options.lossless,
        bit_depth=options.bit_depth,
        metadata=options.metadata,
        background=options.background,
        icc=first.icc,
        exif=first.exif,
        xmp=first.xmp,
    )


@cache
def library_versions(runtime: str) -> dict[str, str]:
    """Of the libraries that have a hand in every pixel, by name. The native kernel is a part of the engine."""
    vips = ".".join(str(pyvips.version(place)) for place in range(3))
    versions = {"numpy": np.__version__, "pillow": PIL.__version__, "libvips": vips}
    return versions | {name: version(name) for name in ("openvino", "torch") if name == runtime}
