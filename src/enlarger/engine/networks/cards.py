"""Models a user imported, and the tables of all models. Standard library only: the service reads it too.

`imported/<name>.json` in the weights folder is the card of a model, and `imported/<name>.safetensors` its weights. A
card holds what a row of the catalogue holds.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from enlarger.engine.networks.catalogue import (
    FACE_MODELS,
    FACE_SET,
    MODELS,
    AnyModel,
    FaceModelSpec,
    ModelSpec,
    Role,
    WeightsFile,
)
from enlarger.engine.networks.durable_files import write_durably
from enlarger.errors import InvalidOption, WeightsCorrupt

IMPORTED = "imported"
"""Folder of the imported models inside the weights folder."""

MAX_HYPER = 1024
"""Most blocks, features and so on of a network."""

FACE_ROLES: dict[str, Role] = {"gfpgan": "restorer", "parsenet": "mask"}
"""What a network of faces does, by its name: those that can be imported."""

FACE_HYPER: dict[str, dict[str, int]] = {row.net: row.hyper for row in FACE_MODELS.values()}
"""The one form of each network of faces: others take faces of other sizes, or tell other parts of them."""

_WORDS = ("auto", "all", "faces")
"""What stands for a model, or several, in options and commands."""

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HYPER = {
    "rrdbnet": {"blocks", "features", "growth", "unshuffle"},
    "compact": {"convs", "features", "scale"},
}
_NUMBERS = ("scale", "overlap_fast", "overlap_exact", "mflops_per_pixel")
"""Of networks that enlarge; cards of the others have none of these."""
_TEXTS = ("name", "net", "licence", "origin", "summary")


def default_weights_dir() -> Path:
    """Where pulled and imported weights are kept: `enlarger/weights` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "enlarger" / "weights"


def models(weights_dir: Path | None = None) -> dict[str, ModelSpec]:
    """Every model that enlarges, by name: the catalogue, then the imported ones.

    A card that cannot be read is left out.
    """
    return dict(MODELS) | {
        name: spec for name, spec in _imported(weights_dir).items() if isinstance(spec, ModelSpec)
    }


def face_models(weights_dir: Path | None = None) -> dict[str, FaceModelSpec]:
    """Every model that the restoration of faces knows, by name, in the same order."""
    return dict(FACE_MODELS) | {
        name: spec for name, spec in _imported(weights_dir).items() if isinstance(spec, FaceModelSpec)
    }


def every_model(weights_dir: Path | None = None) -> dict[str, AnyModel]:
    """Both tables; no name is in both."""
    return {**models(weights_dir), **face_models(weights_dir)}


def model_named(name: str, weights_dir: Path | None = None) -> AnyModel:
    """The model of that name. Raises InvalidOption."""
    known = every_model(weights_dir)
    if name not in known:
        raise InvalidOption(f"there is no model {name!r}; there are {', '.join(known)}", "model")
    return known[name]


def pull_command(spec: AnyModel) -> str:
    """What brings the weights of `spec` to this machine; of the faces' usual set, what brings the set."""
    if not any(file.url for file in spec.every_file):
        return "enlarger models import"
    return f"enlarger models pull {'faces' if spec.name in FACE_SET else spec.name}"


def _imported(weights_dir: Path | None) -> dict[str, AnyModel]:
    found: dict[str, AnyModel] = {}
    for path in card_paths(weights_dir or default_weights_dir()):
        try:
            spec = read_card(path)
        except WeightsCorrupt:  # `enlarger models list` names it; the other models still work
            continue
        if is_imported(spec):
            found[spec.name] = spec
    return found


def card_paths(weights_dir: Path) -> Iterator[Path]:
    """The cards of the imported models, in the order of their names."""
    yield from sorted((weights_dir / IMPORTED).glob("*.json"))


def card_path(name: str, weights_dir: Path) -> Path:
    return weights_dir / IMPORTED / f"{name}.json"


def check_name(name: str) -> str:
    """Raises InvalidOption where `name` cannot be the name of an imported model."""
    if not _NAME.fullmatch(name):
        raise InvalidOption(f"{name!r} is no name for a model: use letters, digits, '.', '_' and '-'", "name")
    if name.lower() in {known.lower() for known in (*MODELS, *FACE_MODELS, *_WORDS)}:
        raise InvalidOption(f"{name} is the name of a model of the catalogue; choose another", "name")
    return name


def is_imported(spec: AnyModel) -> bool:
    return not is_official(spec.name)


def is_official(name: str) -> bool:
    """Whether a model of that name is in the catalogue."""
    return name in MODELS or name in FACE_MODELS


def remove_imported(name: str, weights_dir: Path) -> list[Path]:
    """Delete an imported model, also one whose card cannot be read; gives the paths that were there."""
    card = card_path(check_name(name), weights_dir)
    removed = [path for path in (card, card.with_name(f"{name}.safetensors")) if path.is_file()]
    for path in removed:
        path.unlink()
    return removed


def write_card(spec: AnyModel, weights_dir: Path) -> None:
    """Make an imported model known; its weights must be in place already."""
    row = asdict(spec)
    (file,) = row.pop("files")
    keys = (*_TEXTS, *_numbers_of(spec.net), "hyper")
    card: dict[str, Any] = {"format": _FORMAT, **{key: row[key] for key in keys}}
    card |= {"sha256": file["sha256"], "bytes": file["bytes"]}
    write_durably(card_path(spec.name, weights_dir), json.dumps(card, indent=2).encode() + b"\n")


def read_card(path: Path) -> AnyModel:
    """The row a card holds. Raises WeightsCorrupt, naming the file and the field."""
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsCorrupt(f"{path} cannot be read: {error}") from error
    if not isinstance(card, dict) or cast("dict[str, Any]", card).get("format") != _FORMAT:
        raise WeightsCorrupt(f"{path} is no card of format {_FORMAT}")
    row = cast("dict[str, Any]", card)
    if wrong := _wrong_field(row, path):
        raise WeightsCorrupt(f"{path} has no proper {wrong}; remove it and import the model again")
    file = WeightsFile(
        name=f"{IMPORTED}/{row['name']}.safetensors",
        layout="safetensors",
        sha256=row["sha256"],
        bytes=row["bytes"],
    )
    values = {key: row[key] for key in (*_TEXTS, *_numbers_of(row["net"]), "hyper")}
    if (role := FACE_ROLES.get(row["net"])) is not None:
        return FaceModelSpec(**values, role=role, files=(file,))
    return ModelSpec(**values, files=(file,))


def _numbers_of(net: str) -> tuple[str, ...]:
    return () if net in FACE_ROLES else _NUMBERS


def _wrong_field(row: dict[str, Any], path: Path) -> str:
    """The first field that is missing or of the wrong kind, or an empty text."""
    numbers = _numbers_of(str(row.get("net")))
    checks = {
        **{key: isinstance(row.get(key), str) for key in _TEXTS},
        **{key: _is_number(row.get(key), above=-1 if "overlap" in key else 0) for key in numbers},
        "bytes": type(row.get("bytes")) is int,
        "sha256": isinstance(row.get("sha256"), str) and len(row["sha256"]) == 64,
        "name": row.get("name") == path.stem and bool(_NAME.fullmatch(path.stem)),
        "hyper": _is_hyper(row.get("net"), row.get("hyper")),
    }
    return next((key for key, is_right in checks.items() if not is_right), "")


def _is_number(value: object, *, above: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and above < value < 1e9


def _is_hyper(net: object, value: object) -> bool:
    """The network is built from these numbers before its weights are read, so that they need a limit."""
    hyper = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if not all(type(number) is int and 0 < number <= MAX_HYPER for number in hyper.values()):
        return False
    if not isinstance(net, str):
        return False
    return hyper == FACE_HYPER[net] if net in FACE_ROLES else hyper.keys() == _HYPER.get(net)
