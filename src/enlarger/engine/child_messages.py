"""What the device child and its parent say to each other. Nothing here loads what computes.

parent ─▶ child    Prepare, Compute, Encode, Ask; then perhaps Cancel. Forget, once a prepared picture is done with
child  ─▶ parent   Progress …, then Prepared, Computed, Finished, Planned or Failure: each in an Answer
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enlarger.engine.options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildConfig:
    """What an engine in a child is made with."""

    device: str = "auto"
    threads: int = 0
    weights_dir: Path | None = None
    max_input_megapixels: float = 64
    max_output_megapixels: float = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Decode the picture file `source` into `folder`, and plan it."""

    id: int
    source: Path
    folder: Path
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Tell what upscaling `source` would be."""

    id: int
    source: Path
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """Run the networks over the picture that was prepared under the id `prepared`."""

    id: int
    prepared: int
    bands: Path | None = None
    """Folder of what is computed of it already, and for what will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encode:
    """Write what was computed of it to the file `target`."""

    id: int
    prepared: int
    target: Path


Request = Prepare | Ask | Compute | Encode


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the request of this id. It is answered even so."""

    id: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Let go of the picture that was prepared under this id. There is no answer."""

    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A picture that waits, decoded, for the device. Good until the `async with` that gave it ends."""

    id: int
    fingerprint: str
    """Of the result, if every tile goes as planned."""
    megapixels: float
    """Million pixels of the input, all frames together."""
    can_resume: bool
    """Whether `compute` saves bands of it, given a folder."""
    plan: dict[str, Any]
    """In JSON types; see `Plan.told`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One more rectangle is done. Its place is in pixels of the result; done and total count input pixels."""

    left: int
    top: int
    width: int
    height: int
    done: int
    total: int

    @property
    def fraction(self) -> float:
        return self.done / self.total


@dataclass(frozen=True, slots=True)
class Computed:
    """The pixels are there; the device is free for the next picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The result lies, complete, in the target file."""

    media_type: str
    width: int
    height: int
    report: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Planned:
    """What upscaling would be, in JSON types."""

    plan: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error of the tree, on its way through the pipe."""

    code: str
    message: str


Outcome = Prepared | Computed | Finished | Planned | Failure
"""The last word on a request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """To the request of this id."""

    id: int
    body: Outcome | Progress
