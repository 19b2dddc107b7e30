"""PyTorch checkpoints (.pth, .pt, .ckpt) → named arrays, without torch and without executing anything.

Two containers: a zip archive (since 2020) with the pickle in `data.pkl` and each storage in a file of its own; and
the older row of five pickles followed by the storages. Everything a file claims is checked against its size.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np

from enlarger.engine.networks.checkpoints import ITEM_BYTES, as_floats
from enlarger.engine.networks.ops import Array
from enlarger.engine.networks.pickled_tensors import Storage, TensorView
from enlarger.engine.networks.pickles import read_pickle
from enlarger.errors import WeightsCorrupt

STATE_KEYS = ("params_ema", "params", "state_dict", "model_state_dict")
"""Where training programs keep the weights; the first one there is taken. Otherwise the file is the weights."""

ZIP_START = b"PK\x03\x04"
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of a number that marks the format

_LEGACY_VERSION = 1001
_MAX_PICKLE_BYTES = 32_000_000
_MAX_DIMENSIONS = 8
_MAX_NAME = 200

Storages = Callable[[Storage], bytes | memoryview]


def read_checkpoint(data: bytes, state_key: str = "") -> dict[str, Array]:
    """The weights of a checkpoint as float32 by name, a common `module.` prefix removed.

    `state_key` is the entry that holds them; without it STATE_KEYS are tried. Raises WeightsCorrupt.
    """
    if data.startswith(ZIP_START):
        loaded, storages = _open_zip(data)
    elif data.startswith(LEGACY_START):
        loaded, storages = _open_legacy(data)
    else:
        raise WeightsCorrupt(f"this is no PyTorch checkpoint: it starts with {data[:12]!r}")
    views = _state(loaded, state_key)
    _check_room(views, len(data))
    flat: dict[str, Array] = {}
    for view in views.values():
        if view.storage.key not in flat:
            flat[view.storage.key] = _elements(view.storage, storages)
    return {name: _array(name, view, flat[view.storage.key]) for name, view in views.items()}


def _check_room(views: Mapping[str, TensorView], file_bytes: int) -> None:
    """Before memory is taken: neither tensors nor storages can be more than the file they come from."""
    used = {view.storage.key: view.storage for view in views.values()}
    stored = sum(storage.count * ITEM_BYTES[storage.dtype] for storage in used.values())
    shown = sum(math.prod(view.shape) * ITEM_BYTES[view.storage.dtype] for view in views.values())
    if max(stored, shown) > file_bytes:
        raise WeightsCorrupt(f"the tensors claim {max(stored, shown)} bytes of a file of {file_bytes}")


def _elements(storage: Storage, storages: Storages) -> Array:
    raw = storages(storage)
    if len(raw) != storage.count * ITEM_BYTES[storage.dtype]:
        raise WeightsCorrupt(f"storage {storage.key[:60]} has {len(raw)} bytes for {storage.count} elements")
    return as_floats(raw, storage.dtype)


def _open_zip(data: bytes) -> tuple[object, Storages]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OverflowError) as error:
        raise WeightsCorrupt(f"the zip archive of the checkpoint is damaged: {error}") from error
    members = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsCorrupt("the zip archive is no PyTorch checkpoint: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")

    def member(name: str, limit: int) -> bytes:
        info = members.get(folder + name)
        if info is None:
            raise WeightsCorrupt(f"the checkpoint has no member {name}")
        return _stored(archive, info, limit)

    if folder + "byteorder" in members and member("byteorder", 16) != b"little":
        raise WeightsCorrupt("the checkpoint was written on a big-endian machine, which is not supported")
    loaded = read_pickle(io.BytesIO(member("data.pkl", _MAX_PICKLE_BYTES)), {})
    return loaded, lambda storage: member(f"data/{storage.key}", len(data))


def _stored(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
    """PyTorch never compresses, so a member takes no more room here than in the file."""
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise WeightsCorrupt(f"the member {info.filename} is compressed, which PyTorch does not do")
    if info.file_size > limit:
        raise WeightsCorrupt(f"the member {info.filename} claims {info.file_size} bytes, more than {limit}")
    try:
        return archive.read(info)
    except (
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        struct.error,
    ) as error:
        raise WeightsCorrupt(f"the member {info.filename} is damaged: {error}") from error


def _open_legacy(data: bytes) -> tuple[object, Storages]:
    stream = io.BytesIO(data)
    found: dict[str, Storage] = {}
    read_pickle(stream, {})  # the number that marks the format
    version, machine = read_pickle(stream, {}), read_pickle(stream, {})
    if version != _LEGACY_VERSION:
        raise WeightsCorrupt("the checkpoint has a version of the old format that is not known")
    if not isinstance(machine, dict) or cast("dict[str, object]", machine).get("little_endian") is not True:
        raise WeightsCorrupt("the checkpoint was written on a big-endian machine, which is not supported")
    loaded, keys = read_pickle(stream, found), read_pickle(stream, {})
    content = memoryview(data)
    places: dict[str, memoryview] = {}
    at = stream.tell()
    for key in cast("list[object]", keys) if isinstance(keys, list) else ():
        storage = found.get(key) if isinstance(key, str) else None
        if storage is None:
            raise WeightsCorrupt("the checkpoint lists a storage that no tensor uses")
        start = at + 8  # behind the number of elements
        at = start + storage.count * ITEM_BYTES[storage.dtype]
        if at > len(data) or content[start - 8 : start].tobytes() != struct.pack("<q", storage.count):
            raise WeightsCorrupt(
                f"storage {storage.key} is cut short or of another size than its tensors say"
            )
        places[storage.key] = content[start:at]
    return loaded, lambda storage: _placed(places, storage)


def _placed(places: Mapping[str, memoryview], storage: Storage) -> memoryview:
    if storage.key not in places:
        raise WeightsCorrupt(f"the checkpoint has no storage {storage.key!r}")
    return places[storage.key]


def _state(loaded: object, state_key: str) -> dict[str, TensorView]:
    state = _table(loaded, "the checkpoint")
    if state_key and state_key not in state:
        raise WeightsCorrupt(f"the checkpoint has no entry {state_key}; it has {_shown(state)}")
    for key in (state_key,) if state_key else STATE_KEYS:
        if isinstance(state.get(key), dict):
            state = _table(state[key], f"the entry {key}")
            break
    views: dict[str, TensorView] = {}
    for name, view in state.items():
        if not isinstance(name, str) or len(name) > _MAX_NAME or not isinstance(view, TensorView):
            raise WeightsCorrupt(
                f"the entry {str(name)[:60]!r} is no tensor; the checkpoint has {_shown(state)}"
            )
        views[name] = view
    if not views:
        raise WeightsCorrupt("the checkpoint holds no tensors")
    if all(name.startswith("module.") for name in views):  # what nn.DataParallel adds
        views = {name.removeprefix("module."): view for name, view in views.items()}
    return views


def _table(value: object, what: str) -> dict[object, object]:
    if not isinstance(value, dict):
        raise WeightsCorrupt(f"{what} holds a {type(value).__name__}, not tensors by name")
    return cast("dict[object, object]", value)


def _shown(state: Mapping[object, object]) -> str:
    names = [str(name)[:60] for name in state]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _array(name: str, view: TensorView, elements: Array) -> Array:
    """The tensor `view` shows. Its window must lie inside the storage, and have no more room than that."""
    shape, strides = view.shape, view.strides
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS or 0 in shape:
        raise WeightsCorrupt(f"tensor {name} has the shape {shape} and the strides {strides}")
    last = view.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= len(elements) or math.prod(shape) > len(elements):
        raise WeightsCorrupt(
            f"tensor {name} of shape {shape} reaches element {last} of a storage of {len(elements)}"
        )
    steps = tuple(stride * elements.itemsize for stride in strides)
    window = np.lib.stride_tricks.as_strided(elements[view.offset :], shape, steps)
    return np.asarray(window, order="C")  # ascontiguousarray would give a number a dimension
