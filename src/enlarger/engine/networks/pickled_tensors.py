"""What a pickle of a checkpoint may name: storages of numbers, tensors over them, and ordered dictionaries.

Each is a plain description; CALLS are the only functions that reading a pickle can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from enlarger.errors import WeightsCorrupt

STORAGES: Mapping[str, str] = {
    "torch FloatStorage": "F32",
    "torch HalfStorage": "F16",
    "torch BFloat16Storage": "BF16",
    "torch DoubleStorage": "F64",
    "torch LongStorage": "I64",
    "torch IntStorage": "I32",
}
"""Type of its elements by the global that names a storage."""


@dataclass(frozen=True, slots=True)
class Storage:
    """`count` elements of `dtype` that lie somewhere else in the checkpoint, under `key`."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor as a window onto a storage; offset and strides count elements. Not checked against it yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Global:
    """What a pickle calls by name, as the text `module name`."""

    name: str


def storage_from_id(value: object) -> Storage:
    """From the persistent id `("storage", type, key, location, count[, view])`; where it was stored is moot."""
    parts = list(cast("tuple[object, ...]", value)) if isinstance(value, tuple) else []
    if len(parts) not in (5, 6) or parts[0] != "storage" or parts[5:] not in ([], [None]):
        raise WeightsCorrupt("the pickle refers to something outside that is no storage of numbers")
    kind, key, count = parts[1], parts[2], parts[4]
    if not isinstance(kind, Global) or kind.name not in STORAGES:
        raise WeightsCorrupt(f"a storage has a {kind_of(kind)} for its type")
    if not isinstance(key, str) or not _is_count(count):
        raise WeightsCorrupt("a storage has no proper key or size")
    return Storage(key, STORAGES[kind.name], cast(int, count))


def _tensor(arguments: tuple[object, ...]) -> TensorView:
    """From `(storage, offset, shape, strides, …)`; what follows is about gradients."""
    if len(arguments) < 4:
        raise WeightsCorrupt("a tensor is described by too few values")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, Storage) or not _is_count(offset):
        raise WeightsCorrupt("a tensor has no storage or no offset")
    return TensorView(storage, cast(int, offset), _counts(shape), _counts(strides))


def _parameter(arguments: tuple[object, ...]) -> TensorView:
    """From `(tensor, …)`; what follows is about gradients."""
    if not arguments or not isinstance(arguments[0], TensorView):
        raise WeightsCorrupt("a parameter holds no tensor")
    return arguments[0]


def _ordered_dict(arguments: tuple[object, ...]) -> dict[object, object]:
    """From `()`, or `([[key, value], …],)` as Python 2 wrote it."""
    if len(arguments) > 1 or not all(isinstance(argument, list) for argument in arguments):
        raise WeightsCorrupt("a dictionary is made from something that is no list of pairs")
    made: dict[object, object] = {}
    pairs = cast("list[object]", arguments[0]) if arguments else []
    for pair in pairs:
        if not isinstance(pair, list | tuple):
            raise WeightsCorrupt("a dictionary is made from something that is no list of pairs")
        fill(made, list(cast("list[object]", pair)))
    return made


CALLS: Mapping[str, Callable[[tuple[object, ...]], object]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}


def fill(target: dict[object, object], pairs: list[object]) -> None:
    if len(pairs) % 2:
        raise WeightsCorrupt("the pickle is damaged: a key has no value")
    for key, value in zip(pairs[::2], pairs[1::2], strict=True):
        # A tuple that holds itself many times over would take forever to hash.
        if not isinstance(key, str | int):
            raise WeightsCorrupt(f"a dictionary has a {kind_of(key)} as a key")
        target[key] = value


def _counts(value: object) -> tuple[int, ...]:
    values = cast("tuple[object, ...]", value) if isinstance(value, tuple) else (None,)
    if not all(_is_count(item) for item in values):
        raise WeightsCorrupt("the shape or the strides of a tensor are not whole numbers")
    return cast("tuple[int, ...]", values)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def kind_of(value: object) -> str:
    return value.name.replace(" ", ".") if isinstance(value, Global) else type(value).__name__
