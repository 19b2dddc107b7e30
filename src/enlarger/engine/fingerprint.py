"""Fingerprint: one digest over all that determines the bytes of a result. Pure; the same in every process.

Two runs with one fingerprint may stand in for each other: a stored result for a repeated request, a saved band for
the rows it holds. Not in it is the make of the processor: f32 of two CPUs may differ by a level in a few pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from enlarger import ENGINE_VERSION
from enlarger.engine.geometry import Target, TilePlan
from enlarger.engine.options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the bytes of a result depend on. Whatever is missing here lets a stale result pass for a new one."""

    source_sha256: str
    """Of the file that holds the picture."""
    options: Options
    net: str
    hyper: Mapping[str, int]
    weights: Mapping[str, str]
    """The sha256 of every network that may run, by the name of its model."""
    runtime: str
    """The native kernel with what it multiplies with, as that rounds sums in an order of its own."""
    device: str
    """Its kind: cpu, cuda, mps or gpu."""
    precision: str
    face_precision: str
    passes: tuple[TilePlan, ...]
    target: Target
    frames: int
    depth: int
    output_format: str
    libraries: Mapping[str, str]
    """Versions of the packages that decode, compute, resize and encode."""
    engine_version: int = ENGINE_VERSION


def fingerprint(parts: Parts) -> str:
    """64 hex digits: the SHA-256 of the parts as canonical JSON."""
    text = json.dumps(asdict(parts), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
