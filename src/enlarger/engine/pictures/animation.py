"""Animation: pictures of one size, and how long each is shown."""

from __future__ import annotations

from dataclasses import dataclass

from enlarger.engine.pictures.picture import Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Animation:
    """A decoded animation. Every frame is whole: what the file stores as a difference is already put together.

    Pixels of a frame are decoded when its rows are read; reading frames in order is the cheap way.
    """

    frames: tuple[Picture, ...]
    delays_ms: tuple[int, ...]
    """How long each frame is shown, in milliseconds."""
    loop: int
    """How often the whole is played; 0 is for ever."""
