"""Options: what the user asks of one picture. Frozen, validated, standard library only.

The fields are the single source of the HTTP request schema, the command-line flags and their documentation:
each carries an `Ask` that tells its sentence, its kind, and its range or choices.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from enlarger.engine.networks.catalogue import DEFAULT_FACE_MODEL, DEFAULT_MODEL
from enlarger.errors import InvalidOption

MAX_SCALE = 10.0
_SIDE = r"-?\d{1,6}(\.\d{1,3})?"
_FACE = rf"(\d{{1,4}}|{_SIDE}(,{_SIDE}){{3}})"
FACES_PATTERN = rf"({_FACE}( +{_FACE}){{0,99}})?"
FORMATS = ("auto", "png", "jpeg", "webp", "avif", "tiff", "gif")

Kind = Literal["number", "integer", "boolean", "choice", "name", "colour", "faces"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """How a field may be filled.

    `over` excludes its value, `low` and `high` include theirs. `nullable`: None is a value, and the default.
    """

    kind: Kind
    doc: str
    over: float | None = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str | int, ...] = ()
    nullable: bool = False


def _option(default: Any, doc: str, kind: Kind, **rest: Any) -> Any:
    return field(default=default, metadata={"ask": Ask(kind=kind, doc=doc, nullable=default is None, **rest)})


def _side(doc: str) -> Any:
    return _option(None, doc, "integer", low=1, high=1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to do with one picture.

    Raises InvalidOption, naming the field, when a value has the wrong type or lies outside its range.
    """

    scale: float = _option(
        4.0, "Output size ÷ input size, each side rounded half up.", "number", over=0.0, high=MAX_SCALE
    )
    width: int | None = _side("Output width in pixels; wins over scale.")
    height: int | None = _side("Output height in pixels; wins over scale.")
    long_side: int | None = _side("Output length of the longer side in pixels; wins over scale.")
    short_side: int | None = _side("Output length of the shorter side in pixels; wins over scale.")
    megapixels: float | None = _option(
        None, "Output size in million pixels; wins over scale.", "number", over=0.0, high=10_000.0
    )
    fit: str = _option(
        "contain",
        "Where width and height are both given: fit inside, fill and crop the middle, or stretch.",
        "choice",
        choices=("contain", "cover", "stretch"),
    )
    face_enhance: bool = _option(False, "Restore faces.", "boolean")
    face_model: str = _option(DEFAULT_FACE_MODEL, "Network that restores faces.", "name")
    face_strength: float = _option(
        1.0,
        "Share of the restored face in the result; the rest is the face as it is enlarged without.",
        "number",
        low=0.0,
        high=1.0,
    )
    face_confidence: float = _option(
        0.8, "How sure the detector must be of a face to restore it.", "number", low=0.0, high=1.0
    )
    face_min_size: int = _option(
        24,
        "Shorter side of a face in input pixels from which it is restored: smaller ones would be invented.",
        "integer",
        low=0,
        high=100_000,
    )
    face_only_center: bool = _option(
        False, "Restore only the face nearest to the centre of the picture.", "boolean"
    )
    faces: str = _option(
        "",
        "Restore these faces, whatever their size, pose and score: numbers of the report or boxes "
        "left,top,right,bottom in input pixels, separated by spaces.",
        "faces",
    )
    aligned: bool = _option(
        False, "The picture is one face already, upright and cut as in FFHQ: restore all of it.", "boolean"
    )
    model: str = _option(DEFAULT_MODEL, "Network to run, or auto to choose by scale and cost.", "name")
    passes: int = _option(1, "How many times the network runs over its own result.", "integer", low=1, high=3)
    denoise: float = _option(
        1.0,
        "How much noise realesr-general-x4v3 removes; other models have no such knob.",
        "number",
        low=0.0,
        high=1.0,
    )
    strength: float = _option(
        1.0,
        "Share of the network in the result; the rest is a plain resize, mixed in linear light.",
        "number",
        low=0.0,
        high=1.0,
    )
    colour_lock: bool = _option(
        False,
        "Give large areas the colour they have in the input; networks shift it by up to 7 levels.",
        "boolean",
    )
    alpha: str = _option("resize", "How transparency is enlarged.", "choice", choices=("resize", "network"))
    background: str = _option(
        "#ffffff", "Colour behind transparency where the output format holds none.", "colour"
    )
    output_format: str = _option(
        "auto",
        "File format of the result; auto is the natural partner of the input.",
        "choice",
        choices=FORMATS,
    )
    quality: int = _option(95, "Quality of lossy formats.", "integer", low=1, high=100)
    lossless: bool = _option(False, "Lossless WebP or AVIF.", "boolean")
    bit_depth: int | None = _option(
        None, "Bits a sample of the result; as the input when not given.", "choice", choices=(8, 16)
    )
    metadata: str = _option(
        "keep", "What becomes of EXIF and XMP.", "choice", choices=("keep", "strip", "strip-gps")
    )
    frame: int | None = _option(
        None,
        "Which frame of an animation to take, counted from 0; all when not given.",
        "integer",
        low=0,
        high=100_000,
    )
    tile_mode: str = _option(
        "fast", "Context around tile cuts: enough for the eye, or exact.", "choice", choices=("fast", "exact")
    )
    precision: str = _option(
        "auto",
        "Arithmetic of the network; auto is bf16 where this machine is quicker in it, else f32.",
        "choice",
        choices=("auto", "f32", "bf16"),
    )

    def __post_init__(self) -> None:
        for name, ask in asks().items():
            object.__setattr__(self, name, _CHECKS[ask.kind](name, ask, getattr(self, name)))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Options:
        """Options from the known keys of `values`; unknown keys are ignored, null means the default."""
        known = asks()
        return cls(**{name: value for name, value in values.items() if name in known and value is not None})

    @property
    def has_target(self) -> bool:
        """Whether a size is asked for, which then wins over scale."""
        sides = (self.width, self.height, self.long_side, self.short_side, self.megapixels)
        return any(side is not None for side in sides)


def asks() -> dict[str, Ask]:
    """Every field of Options with its Ask, in order."""
    return {spec.name: spec.metadata["ask"] for spec in fields(Options)}


def chosen_faces(text: str) -> tuple[int | tuple[float, float, float, float], ...]:
    """The items of the option `faces`: indices into the report, and boxes (left, top, right, bottom)."""
    return tuple(_chosen_face(item) for item in text.split())


def _chosen_face(item: str) -> int | tuple[float, float, float, float]:
    if "," not in item:
        return int(item)
    left, top, right, bottom = (float(side) for side in item.split(","))
    return left, top, right, bottom


def _boolean(name: str, ask: Ask, value: Any) -> bool:
    del ask
    if not isinstance(value, bool):
        raise InvalidOption(f"{name} must be true or false, not {_shown(value)}", name)
    return value


def _choice(name: str, ask: Ask, value: Any) -> Any:
    if value is None and ask.nullable:
        return None
    # bool is an int to Python: True must not pass for a choice of 1.
    if isinstance(value, bool) or not isinstance(value, str | int) or value not in ask.choices:
        raise InvalidOption(
            f"{name} must be one of {', '.join(map(str, ask.choices))}, not {_shown(value)}", name
        )
    return value


def _name(name: str, ask: Ask, value: Any) -> str:
    del ask
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise InvalidOption(
            f"{name} must be a name of letters, digits, '.', '_' and '-', not {_shown(value)}", name
        )
    return value


def _colour(name: str, ask: Ask, value: Any) -> str:
    del ask
    if not isinstance(value, str) or not re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
        raise InvalidOption(f"{name} must be a colour like #ffffff, not {_shown(value)}", name)
    return value.lower()


def _faces(name: str, ask: Ask, value: Any) -> str:
    del ask
    if not isinstance(value, str) or not re.fullmatch(FACES_PATTERN, value.strip(), re.ASCII):
        raise InvalidOption(
            f"{name} must be numbers or boxes left,top,right,bottom with spaces between, 100 at most, "
            f"not {_shown(value)}",
            name,
        )
    return " ".join(value.split())


def _number(name: str, ask: Ask, value: Any) -> float | int | None:
    if value is None and ask.nullable:
        return None
    whole = ask.kind == "integer"
    wanted = f"{name} must be {'a whole number' if whole else 'a number'} " + (
        f"above {ask.over:g} and at most {ask.high:.10g}"
        if ask.low is None
        else f"from {ask.low:.10g} to {ask.high:.10g}"
    )
    # bool is an int to Python; `true` for a number is a mistake of the caller's.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"{wanted}, not {_shown(value)}", name)
    # Written so that NaN, for which every comparison is false, is refused.
    above = value > (ask.over or 0.0) if ask.low is None else value >= ask.low
    if not (above and ask.high is not None and value <= ask.high) or (whole and value != int(value)):
        raise InvalidOption(f"{wanted}, not {_shown(value)}", name)
    return int(value) if whole else float(value)


_CHECKS: dict[Kind, Callable[[str, Ask, Any], Any]] = {
    "number": _number,
    "integer": _number,
    "boolean": _boolean,
    "choice": _choice,
    "name": _name,
    "colour": _colour,
    "faces": _faces,
}


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits, or a list in a list in a …
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 40 else f"{text[:37]}..."
