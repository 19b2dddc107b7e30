"""Options: what the user asks of one picture. Frozen, validated, standard library only.

The fields are the single source of the HTTP request schema, the command-line flags and their documentation:
each carries its sentence, and its range or choices, as metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from enlarger.engine.networks.catalogue import DEFAULT_MODEL, MODELS
from enlarger.errors import InvalidOption

MAX_SCALE = 10.0
FORMATS = ("png", "jpeg", "webp")


def _option(
    default: Any,
    doc: str,
    *,
    over: float | None = None,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return field(
        default=default, metadata={"doc": doc, "over": over, "low": low, "high": high, "choices": choices}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to do with one picture.

    Raises InvalidOption, naming the field, when a value has the wrong type or lies outside its range.
    """

    scale: float = _option(
        4.0, "Output size ÷ input size, each side rounded half up.", over=0.0, high=MAX_SCALE
    )
    face_enhance: bool = _option(False, "Restore faces.")
    model: str = _option(DEFAULT_MODEL, "Network to run.", choices=tuple(MODELS))
    output_format: str = _option("png", "File format of the result.", choices=FORMATS)
    quality: int = _option(95, "Quality of lossy formats.", low=1, high=100)
    tile_mode: str = _option(
        "fast", "Context around tile cuts: enough for the eye, or exact.", choices=("fast", "exact")
    )
    precision: str = _option(
        "auto",
        "Arithmetic of the network; auto is bf16 where the CPU has AMX, else f32.",
        choices=("auto", "f32", "bf16"),
    )

    def __post_init__(self) -> None:
        for spec in fields(self):
            object.__setattr__(self, spec.name, _checked(spec, getattr(self, spec.name)))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Options:
        """Options from the known keys of `values`; unknown keys are ignored, null means the default."""
        known = {spec.name for spec in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known and value is not None})


def _checked(spec: Field[Any], value: Any) -> Any:
    """`value` in the field's own type, or InvalidOption."""
    if isinstance(spec.default, bool):
        return _checked_bool(spec.name, value)
    if isinstance(spec.default, str):
        return _checked_choice(spec.name, value, spec.metadata["choices"])
    return _checked_number(spec, value)


def _checked_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption(f"{name} must be true or false, not {_shown(value)}", name)
    return value


def _checked_choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        raise InvalidOption(f"{name} must be one of {', '.join(choices)}, not {_shown(value)}", name)
    return value


def _checked_number(spec: Field[Any], value: Any) -> float | int:
    over, low, high = spec.metadata["over"], spec.metadata["low"], spec.metadata["high"]
    whole = isinstance(spec.default, int)
    wanted = f"{spec.name} must be {'a whole number' if whole else 'a number'} " + (
        f"above {over:g} and at most {high:g}" if low is None else f"from {low:g} to {high:g}"
    )
    # bool is an int to Python; `true` for a number is a mistake of the caller's.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"{wanted}, not {_shown(value)}", spec.name)
    # Written so that NaN, for which every comparison is false, is refused.
    if not (value <= high and (value > over if low is None else value >= low)):
        raise InvalidOption(f"{wanted}, not {_shown(value)}", spec.name)
    if whole and value != int(value):
        raise InvalidOption(f"{wanted}, not {_shown(value)}", spec.name)
    return int(value) if whole else float(value)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits, or a list in a list in a …
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 40 else f"{text[:37]}..."
