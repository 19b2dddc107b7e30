"""Models a user imported, and the table of all models. Standard library only: the service reads it too.

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

from enlarger.engine.networks.catalogue import MODELS, ModelSpec, WeightsFile
from enlarger.engine.networks.durable_files import write_durably
from enlarger.errors import InvalidOption, WeightsCorrupt

IMPORTED = "imported"
"""Folder of the imported models inside the weights folder."""

MAX_HYPER = 1024
"""Most blocks, features and so on of a network."""

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HYPER = {"rrdbnet": {"blocks", "features", "growth", "unshuffle"}, "compact": {"convs", "features", "scale"}}
_NUMBERS = ("scale", "overlap_fast", "overlap_exact", "mflops_per_pixel")
_TEXTS = ("name", "net", "licence", "origin", "summary")


def default_weights_dir() -> Path:
    """Where pulled and imported weights are kept: `enlarger/weights` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path.home() / ".cache") / "enlarger" / "weights"


def models(weights_dir: Path | None = None) -> dict[str, ModelSpec]:
    """Every model by name: the catalogue, then the imported ones. A card that cannot be read is left out."""
    found = dict(MODELS)
    for path in card_paths(weights_dir or default_weights_dir()):
        try:
            spec = read_card(path)
        except WeightsCorrupt:  # `enlarger models list` names it; the other models still work
            continue
        found.setdefault(spec.name, spec)
    return found


def model_named(name: str, weights_dir: Path | None = None) -> ModelSpec:
    """The model of that name. Raises InvalidOption."""
    known = models(weights_dir)
    if name not in known:
        raise InvalidOption(f"there is no model {name!r}; there are {', '.join(known)}", "model")
    return known[name]


def card_paths(weights_dir: Path) -> Iterator[Path]:
    """The cards of the imported models, in the order of their names."""
    yield from sorted((weights_dir / IMPORTED).glob("*.json"))


def card_path(name: str, weights_dir: Path) -> Path:
    return weights_dir / IMPORTED / f"{name}.json"


def check_name(name: str) -> str:
    """Raises InvalidOption where `name` cannot be the name of an imported model."""
    if not _NAME.fullmatch(name):
        raise InvalidOption(f"{name!r} is no name for a model: use letters, digits, '.', '_' and '-'", "name")
    if name.lower() in {known.lower() for known in (*MODELS, "auto", "all")}:
        raise InvalidOption(f"{name} is the name of a model of the catalogue; choose another", "name")
    return name


def is_imported(spec: ModelSpec) -> bool:
    return spec.name not in MODELS


def remove_imported(name: str, weights_dir: Path) -> list[Path]:
    """Delete an imported model, also one whose card cannot be read; gives the paths that were there."""
    card = card_path(check_name(name), weights_dir)
    removed = [path for path in (card, card.with_name(f"{name}.safetensors")) if path.is_file()]
    for path in removed:
        path.unlink()
    return removed


def write_card(spec: ModelSpec, weights_dir: Path) -> None:
    """Make an imported model known; its weights must be in place already."""
    row = asdict(spec)
    (file,) = row.pop("files")
    card = {"format": _FORMAT, **{key: row[key] for key in (*_TEXTS, *_NUMBERS, "hyper")}}
    card |= {"sha256": file["sha256"], "bytes": file["bytes"]}
    write_durably(card_path(spec.name, weights_dir), json.dumps(card, indent=2).encode() + b"\n")


def read_card(path: Path) -> ModelSpec:
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
    return ModelSpec(**{key: row[key] for key in (*_TEXTS, *_NUMBERS, "hyper")}, files=(file,))


def _wrong_field(row: dict[str, Any], path: Path) -> str:
    """The first field that is missing or of the wrong kind, or an empty text."""
    checks = {
        **{key: isinstance(row.get(key), str) for key in _TEXTS},
        **{key: _is_number(row.get(key), above=0) for key in ("scale", "mflops_per_pixel")},
        **{key: _is_number(row.get(key), above=-1) for key in ("overlap_fast", "overlap_exact")},
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
    numbers = all(type(number) is int and 0 < number <= MAX_HYPER for number in hyper.values())
    return isinstance(net, str) and hyper.keys() == _HYPER.get(net) and numbers
