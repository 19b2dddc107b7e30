"""enlarger: upscale pictures with Real-ESRGAN.

    import enlarger
    enlarger.upscale("photo.jpg", scale=2.5).save("photo-large.png")

The names below are the whole public API. They are imported when first used, so `import enlarger` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enlarger.engine.faces.face import Detector, Face, Restorer
    from enlarger.engine.options import Options
    from enlarger.engine.pictures.picture import Picture
    from enlarger.engine.pipeline import Engine
    from enlarger.engine.plan import Limits, Plan
    from enlarger.engine.result import Result
    from enlarger.engine.tiles import Watch
    from enlarger.errors import (
        Cancelled,
        EnlargerError,
        InvalidOption,
        InvalidPicture,
        ModelUnavailable,
    )
    from enlarger.library import upscale

__version__ = "0.1.0"

ENGINE_VERSION = 2
"""Raised by whoever changes a byte of any result. Stored results and half-done pictures of another number are left
alone and computed anew."""

_HOMES = {
    "upscale": "enlarger.library",
    "Engine": "enlarger.engine.pipeline",
    "Limits": "enlarger.engine.plan",
    "Plan": "enlarger.engine.plan",
    "Result": "enlarger.engine.result",
    "Watch": "enlarger.engine.tiles",
    "Options": "enlarger.engine.options",
    "Detector": "enlarger.engine.faces.face",
    "Face": "enlarger.engine.faces.face",
    "Restorer": "enlarger.engine.faces.face",
    "Picture": "enlarger.engine.pictures.picture",
    "EnlargerError": "enlarger.errors",
    "InvalidOption": "enlarger.errors",
    "InvalidPicture": "enlarger.errors",
    "ModelUnavailable": "enlarger.errors",
    "Cancelled": "enlarger.errors",
}

__all__ = [
    "Cancelled",
    "Detector",
    "Engine",
    "EnlargerError",
    "Face",
    "InvalidOption",
    "InvalidPicture",
    "Limits",
    "ModelUnavailable",
    "Options",
    "Picture",
    "Plan",
    "Restorer",
    "Result",
    "Watch",
    "upscale",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'enlarger' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
