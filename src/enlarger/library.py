"""upscale(): the whole engine in one call, for scripts and notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture, Pixels
from enlarger.engine.pipeline import Engine
from enlarger.engine.result import Result


def upscale(image: Path | str | bytes | Picture | Pixels, **options: Any) -> Result:
    """Upscale one picture: a path, the bytes of a file, a Picture, or an (h, w[, c]) uint8 or uint16 array.

    Keywords are the fields of `Options`, e.g. scale=2.5, model="RealESRGAN_x4plus_anime_6B". To upscale many,
    make one `Engine`: it keeps the model loaded. Raises the errors of `enlarger.errors`.
    """
    chosen = Options(**options)
    if isinstance(image, str | Path):
        image = Path(image).read_bytes()
    elif not isinstance(image, bytes | Picture):
        image = Picture.from_array(image)
    return Engine().upscale(image, chosen)
