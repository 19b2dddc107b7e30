"""Importing a checkpoint: which network is it? The shapes of its tensors tell.

Known are RRDBNet, also under the names of the older ESRGAN programs, SRVGGNetCompact, GFPGANv1Clean and ParseNet.
What was imported is kept as safetensors in float32 with a card beside it (cards.py), so that the original is needed
once only.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.cards import (
    FACE_HYPER,
    FACE_ROLES,
    IMPORTED,
    MAX_HYPER,
    card_path,
    check_name,
    write_card,
)
from enlarger.engine.networks.catalogue import (
    FACE_MODELS,
    MODELS,
    AnyModel,
    FaceModelSpec,
    FaceNet,
    ModelSpec,
    Net,
    WeightsFile,
)
from enlarger.engine.networks.checkpoints import (
    NcnnLayer,
    check_finite,
    check_shapes,
    ncnn_layers,
    ncnn_tensors,
)
from enlarger.engine.networks.durable_files import write_durably
from enlarger.engine.networks.ops import Array, Weights
from enlarger.engine.networks.safetensors import read_safetensors, write_safetensors
from enlarger.engine.networks.torch_files import LEGACY_START, ZIP_START, read_checkpoint
from enlarger.errors import InvalidOption, WeightsCorrupt

MAX_FILE_BYTES = 2_000_000_000

_FIRST, _GROWN = "conv_first", "body.0.rdb1.conv1"
_FACE_MARKS: dict[FaceNet, str] = {"gfpgan": "stylegan_decoder.", "parsenet": "out_mask_conv."}
"""How the name of a tensor starts that only this network has."""

_UNSHUFFLES = {3: 1, 12: 2, 48: 4}
"""Factor of the pixel-unshuffle before an RRDBNet, by the channels of its first convolution."""

# Names in ESRGAN's own program, and in the program it was developed in, which numbers its modules.
_RENAMED = (
    (re.compile(r"RRDB_trunk\.(\d+)\.RDB([123])\.conv([1-5])\."), r"body.\1.rdb\2.conv\3."),
    (re.compile(r"trunk_conv\."), "conv_body."),
    (re.compile(r"upconv([12])\."), r"conv_up\1."),
    (re.compile(r"HRconv\."), "conv_hr."),
    (re.compile(r"model\.0\."), "conv_first."),
    (re.compile(r"model\.1\.sub\.(\d+)\.RDB([123])\.conv([1-5])\.0\."), r"body.\1.rdb\2.conv\3."),
    (re.compile(r"model\.1\.sub\.\d+\.(?=weight|bias)"), "conv_body."),
    (re.compile(r"model\.3\."), "conv_up1."),
    (re.compile(r"model\.6\."), "conv_up2."),
    (re.compile(r"model\.8\."), "conv_hr."),
    (re.compile(r"model\.10\."), "conv_last."),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A network told from its tensors, which are under their official names now."""

    net: Net | FaceNet
    hyper: dict[str, int]
    tensors: Weights


def import_model(
    path: Path, weights_dir: Path, *, name: str = "", licence: str = "not stated", origin: str = ""
) -> AnyModel:
    """Copy the weights in `path` to the weights folder as a model of their own; gives its row.

    `path` is a .pth, .pt, .ckpt or .safetensors file, or either half of an ncnn pair. An official file of the
    catalogue, the ONNX one too, is recognised by its sha256 and put where `pull` would have put it. `name` is the
    stem of the file unless given. Raises InvalidOption or WeightsCorrupt.
    """
    data = _read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if (official := _official(sha256)) is not None:
        spec, file = official
        write_durably(weights_dir / file.name, data)
        return spec
    name = check_name(name or path.stem)
    if card_path(name, weights_dir).exists():
        raise InvalidOption(
            f"there is a model {name} already; remove it first, or choose another name with --name", "name"
        )
    try:
        found = _recognised(path, data)
        check_shapes(found.tensors, ARCHITECTURES[found.net].shapes(found.hyper))
        check_finite(found.tensors)
    except WeightsCorrupt as error:
        raise WeightsCorrupt(f"cannot import {path}: {error}") from error
    content = write_safetensors(found.tensors)
    spec = _spec(found, name, content, licence=licence, origin=origin or f"{path.name}, sha256 {sha256}")
    write_durably(weights_dir / spec.files[0].name, content)
    write_card(spec, weights_dir)
    return spec


def recognise(tensors: Weights) -> Recognised:
    """Which network the tensors belong to. Raises WeightsCorrupt, telling what was found, when none."""
    renamed = {_official_name(name): tensor for name, tensor in tensors.items()}
    if len(renamed) != len(tensors):
        raise WeightsCorrupt("two of its tensors have the same place in the network")
    for net, mark in _FACE_MARKS.items():
        if any(name.startswith(mark) for name in tensors):
            return Recognised(net=net, hyper=FACE_HYPER[net], tensors=tensors)
    if f"{_FIRST}.weight" in renamed and f"{_GROWN}.weight" in renamed:
        return Recognised(net="rrdbnet", hyper=_limited(_rrdbnet_hyper(renamed)), tensors=renamed)
    if "body.0.weight" in renamed:
        return Recognised(net="compact", hyper=_limited(_compact_hyper(renamed)), tensors=renamed)
    raise WeightsCorrupt(
        "its tensors are those of no network that enlarger has, which are RRDBNet, SRVGGNetCompact, GFPGANv1Clean "
        "and ParseNet; "
        f"found {_shown(tensors)}"
    )


def mflops_per_pixel(net: str, hyper: Mapping[str, int]) -> float:
    """Million operations an input pixel, a multiply-add counted as two."""
    unshuffle = hyper.get("unshuffle", 1)
    growth = {"conv_up1": 2, "conv_up2": 4, "conv_hr": 4, "conv_last": 4} if net == "rrdbnet" else {}
    shapes = ARCHITECTURES[net].shapes(hyper)
    convs = ((name.removesuffix(".weight"), shape) for name, shape in shapes.items() if len(shape) == 4)
    return sum(2 * math.prod(shape) * growth.get(name, 1) ** 2 for name, shape in convs) / unshuffle**2 / 1e6


def _overlaps(net: str, hyper: Mapping[str, int]) -> tuple[int, int]:
    """Context of a tile in input pixels, fast and exact, by how far the network can see at all.

    A compact net is a chain of 3×3 convolutions. An RRDB net has chains of 15 a block, of which the far ends
    hardly count: 64 and 96 are measured for 23 blocks (docs/decisions.md) and taken as the most.
    """
    if net == "compact":
        return hyper["convs"] + 2, hyper["convs"] + 2
    reach = 15 * hyper["blocks"] + 3
    return min(64, reach) * hyper["unshuffle"], min(96, reach) * hyper["unshuffle"]


def _spec(found: Recognised, name: str, content: bytes, *, licence: str, origin: str) -> AnyModel:
    file = WeightsFile(
        name=f"{IMPORTED}/{name}.safetensors",
        layout="safetensors",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )
    row: dict[str, Any] = {
        "name": name,
        "net": found.net,
        "hyper": found.hyper,
        "files": (file,),
        "licence": licence,
        "origin": origin,
        "summary": f"Imported: {found.net} with " + ", ".join(f"{key} {n}" for key, n in found.hyper.items()),
    }
    if (role := FACE_ROLES.get(found.net)) is not None:
        return FaceModelSpec(**row, role=role)
    fast, exact = _overlaps(found.net, found.hyper)
    return ModelSpec(
        **row,
        scale=ARCHITECTURES[found.net].upscale(found.hyper),
        overlap_fast=fast,
        overlap_exact=exact,
        mflops_per_pixel=mflops_per_pixel(found.net, found.hyper),
    )


def _official(sha256: str) -> tuple[AnyModel, WeightsFile] | None:
    for spec in (*MODELS.values(), *FACE_MODELS.values()):
        for file in spec.every_file:
            if not file.package and file.sha256 == sha256:
                return spec, file
    return None


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidOption(f"{path} has more than {MAX_FILE_BYTES} bytes, the most for a model", "file")
        return path.read_bytes()
    except OSError as error:
        raise InvalidOption(f"cannot read {path}: {error.strerror}", "file") from error


def _recognised(path: Path, data: bytes) -> Recognised:
    """By content: names of checkpoint files say little."""
    if path.suffix in (".param", ".bin") and not data.startswith(ZIP_START):
        param, weights = (_read_bytes(path.with_suffix(suffix)) for suffix in (".param", ".bin"))
        return _recognise_ncnn(ncnn_layers(param.decode("ascii", "replace")), weights)
    if data.startswith((ZIP_START, LEGACY_START)):
        return recognise(read_checkpoint(data))
    if data[8:9] == b"{":
        return recognise(read_safetensors(data))
    if data[:1] == b"<" or data[:200].lstrip()[:1] == b"<":
        raise WeightsCorrupt("it is a web page, not a checkpoint; the download went wrong")
    onnx = "; of ONNX files only the official YuNet is known" if path.suffix == ".onnx" else ""
    raise WeightsCorrupt(
        f"it is neither a PyTorch checkpoint nor safetensors nor ncnn: it starts with {data[:12]!r}{onnx}"
    )


def _official_name(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if pattern.match(name):
            return pattern.sub(replacement, name, count=1)
    return name


def _rrdbnet_hyper(tensors: Weights) -> dict[str, int]:
    blocks = {name.split(".")[1] for name in tensors if name.startswith("body.")}
    first, grown, last = (tensors.get(f"{name}.weight") for name in (_FIRST, _GROWN, "conv_last"))
    if first is None or grown is None or first.ndim != 4 or first.shape[1] not in _UNSHUFFLES:
        raise WeightsCorrupt(f"it looks like RRDBNet, but not one of RGB pictures: {_shown(tensors)}")
    if last is None or len(last) != 3 or "conv_up2.weight" not in tensors:
        raise WeightsCorrupt(
            f"it looks like RRDBNet, but its upsampling is not the one of ×4 to RGB: {_shown(tensors)}"
        )
    unshuffle = _UNSHUFFLES[first.shape[1]]
    return {"blocks": len(blocks), "features": len(first), "growth": len(grown), "unshuffle": unshuffle}


def _compact_hyper(tensors: Weights) -> dict[str, int]:
    places = {
        int(found[1]): name for name in tensors if (found := re.fullmatch(r"body\.(\d{1,4})\.weight", name))
    }
    convs = [tensors[name] for _, name in sorted(places.items()) if tensors[name].ndim == 4]
    scale = math.isqrt(len(convs[-1]) // 3) if convs else 0
    if len(convs) < 3 or len(convs[-1]) != 3 * scale**2 or len(places) != 2 * len(convs) - 1:
        raise WeightsCorrupt(f"it looks like SRVGGNetCompact with PReLU, but is not: {_shown(tensors)}")
    return {"convs": len(convs) - 2, "features": len(convs[0]), "scale": scale}


def _limited(hyper: dict[str, int]) -> dict[str, int]:
    if max(hyper.values()) > MAX_HYPER:
        raise WeightsCorrupt(f"its network is larger than enlarger runs: {hyper}, each at most {MAX_HYPER}")
    return hyper


def _shown(tensors: Weights) -> str:
    first = ", ".join(f"{name[:60]} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:3])
    return f"{len(tensors)} tensors, the first being {first}" if tensors else "no tensors"


_NCNN_KINDS = {
    *("Input", "Convolution", "PReLU", "ReLU", "Split", "Concat"),
    *("BinaryOp", "Eltwise", "Interp", "PixelShuffle", "Reorg"),
}


def _recognise_ncnn(layers: Sequence[NcnnLayer], data: bytes) -> Recognised:
    """ncnn files hold no names; convolutions and PReLUs come in the order of the official modules."""
    for layer in layers:
        _check_ncnn_layer(layer)
    tensors = ncnn_tensors(layers, data)
    kinds = [layer.kind for layer in layers if layer.kind in ("Convolution", "PReLU")]
    resizes = sum(layer.kind == "Interp" for layer in layers)
    if "PReLU" in kinds:
        names = [
            f"body.{index}.{part}"
            for index, kind in enumerate(kinds)
            for part in (("weight", "bias") if kind == "Convolution" else ("weight",))
        ]
        found = recognise(dict(zip(names, tensors, strict=True)))
    else:
        found = _ncnn_rrdbnet(tensors)
    if resizes != (1 if found.net == "compact" else 2):
        raise WeightsCorrupt(
            f"the ncnn file resizes {resizes} times, which {found.net} does not; if it shrinks the result of a "
            "larger model, import that one"
        )
    return found


def _ncnn_rrdbnet(tensors: Sequence[Array]) -> Recognised:
    convs = tensors[::2]
    blocks, rest = divmod(len(convs) - 6, 15)
    if blocks < 1 or rest:
        raise WeightsCorrupt(f"the ncnn file has {len(convs)} convolutions, which is no RRDBNet")
    if convs[0].shape[1] not in _UNSHUFFLES:
        raise WeightsCorrupt(f"the ncnn file takes pictures of {convs[0].shape[1]} channels, not RGB")
    unshuffle = _UNSHUFFLES[convs[0].shape[1]]
    hyper = {"blocks": blocks, "features": len(convs[0]), "growth": len(convs[1]), "unshuffle": unshuffle}
    names = ARCHITECTURES["rrdbnet"].shapes(hyper)
    return Recognised(net="rrdbnet", hyper=hyper, tensors=dict(zip(names, tensors, strict=True)))


def _check_ncnn_layer(layer: NcnnLayer) -> None:
    """Raises WeightsCorrupt where a layer computes something else than the networks here do."""
    kind, fields = layer.kind, layer.fields
    if kind not in _NCNN_KINDS:
        raise WeightsCorrupt(f"the ncnn file has a layer {kind[:40]}, which neither RRDBNet nor Compact has")
    plain = {1: 3, 2: 1, 3: 1, 4: 1, 5: 1, 8: 0}  # 3×3, dilation, stride, padding, bias, no integers
    defaults = {1: 0, 2: 1, 3: 1, 4: 0, 5: 0, 8: 0}
    if kind == "Convolution" and any(layer.number(key, defaults[key]) != plain[key] for key in plain):
        raise WeightsCorrupt("the ncnn file has a convolution that is not 3×3 with padding 1 and a bias")
    if kind == "Convolution" and fields.get(9, "0") not in ("0", "2"):
        raise WeightsCorrupt("the ncnn file has a convolution with an activation other than LeakyReLU")
    slope = fields.get(-23310, "1,0.2").split(",")[-1] if kind == "Convolution" else fields.get(0, "0.2")
    if kind in ("Convolution", "ReLU") and not _is_slope(slope):
        raise WeightsCorrupt(f"the ncnn file has a LeakyReLU of slope {slope[:20]}; RRDBNet has 0.2")
    if kind == "Interp" and layer.number(0) != 1:
        raise WeightsCorrupt("the ncnn file resizes otherwise than by repeating pixels")
    if kind in ("PixelShuffle", "Reorg") and layer.number(1, 0) != 0:
        raise WeightsCorrupt("the ncnn file shuffles pixels in another order than PyTorch does")


def _is_slope(text: str) -> bool:
    try:
        return abs(float(text) - 0.2) < 1e-4
    except ValueError:
        return False
