"""Result: finished pixels, how to write them, and the report of what was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import enlarger
from enlarger.engine.geometry import Size
from enlarger.engine.options import Options
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.picture import Pixels
from enlarger.engine.plan import Plan
from enlarger.engine.timing import Timings, timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished picture. `frames` are (h, w, 1..4) uint8 or uint16 arrays, one unless it is an animation."""

    frames: tuple[Pixels, ...]
    encoding: codec.Encoding
    report: dict[str, Any]
    """Model and weights, precision, passes, tiles, conversions, fallbacks, timings; see docs/library.md."""
    delays_ms: tuple[int, ...] = ()
    loop: int = 0
    follows_name: bool = False
    """Whether the name of a file sets its format, as nobody asked for one; `encoding` is for names that tell none."""

    @property
    def pixels(self) -> Pixels:
        """The picture, or the first frame."""
        return self.frames[0]

    @property
    def size(self) -> Size:
        return Size(self.pixels.shape[1], self.pixels.shape[0])

    @property
    def format(self) -> str:
        """What it is written as where no name tells otherwise."""
        return self.encoding.format

    def save(self, path: Path | str, *, cancelled: Callable[[], bool] = lambda: False) -> None:
        """Write the file. Adds the time and any conversion to the report.

        Its format is that of the options; where they leave it open that of the file's extension, or else the
        natural partner of the input. Raises InvalidOption or PictureTooLarge where that format cannot hold it, and
        Cancelled soon after `cancelled()` says yes, with a part of the file left behind.
        """
        target = Path(path)
        by_name = codec.format_of(target) if self.follows_name else None
        encoding = replace(self.encoding, format=by_name) if by_name else self.encoding
        with timed(self.report["timings_ms"], "encode"):
            notes = (
                codec.encode_animation(self.frames, self.delays_ms, self.loop, target, encoding, cancelled)
                if self.delays_ms
                else codec.encode(self.pixels, target, encoding, cancelled)
            )
        conversions: list[str] = self.report["conversions"]
        conversions += [note for note in notes if note not in conversions]


def report_of(
    plan: Plan,
    options: Options,
    *,
    device: str,
    weights_sha256: str,
    precision: str,
    conversions: Sequence[str],
    fallbacks: Sequence[str],
    faces: Sequence[dict[str, Any]],
    fingerprint: str,
    resumed: dict[str, Any] | None,
    timings: Timings,
) -> dict[str, Any]:
    """What is told of a result, in JSON types."""
    first = plan.passes[0]
    return {
        "engine": enlarger.__version__,
        "fingerprint": fingerprint or None,
        "model": plan.model.name,
        "weights_sha256": weights_sha256,
        "runtime": plan.runtime,
        "device": device,
        "precision": precision,
        "input": list(first.size),
        "output": list(plan.size),
        "depth": plan.depth,
        "passes": len(plan.passes),
        "tile_mode": options.tile_mode,
        "tiles": sum(tiles.tiles for tiles in plan.passes),
        "window": list(first.window),
        "overlap": first.overlap if first.tiles > 1 else 0,
        "work_ratio": round(plan.work_ratio, 4),
        "strength": options.strength,
        "colour_lock": options.colour_lock,
        "faces": _faces_told(faces),
        "choices": list(plan.notes),
        "conversions": list(dict.fromkeys(conversions)),
        "fallbacks": list(dict.fromkeys(fallbacks)),
        "resumed": resumed,
        "timings_ms": timings,
    }


def _faces_told(frames: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What is told of the faces of all frames; in an animation each face says in which frame it is."""
    if len(frames) <= 1:
        return frames[0] if frames else None
    return {
        **frames[0],
        "found": sum(one["found"] for one in frames),
        "note": "; ".join(dict.fromkeys(one["note"] for one in frames)),
        "faces": [{"frame": index, **face} for index, one in enumerate(frames) for face in one["faces"]],
    }
