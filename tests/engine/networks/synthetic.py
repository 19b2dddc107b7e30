"""Weights of the right names and shapes, but seeded random values, for nets whose real ones cannot be had here."""

from __future__ import annotations

import math
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import FACE_MODELS, MODELS, ModelSpec
from enlarger.engine.networks.ops import Array, Hyper
from enlarger.engine.networks.safetensors import write_safetensors
from enlarger.engine.runtime import RUNTIMES
from enlarger.engine.runtime.choice import NATIVE
from enlarger.engine.runtime.numpy import NumPy


def random_weights(net: str, hyper: Hyper, seed: int = 1) -> dict[str, Array]:
    """Tensors under their official names, scaled so that values keep their size from layer to layer."""
    random = np.random.default_rng(seed)

    def tensor(shape: tuple[int, ...]) -> Array:
        size = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) == 4 else 0.1
        return random.standard_normal(shape, np.float32) * np.float32(size)

    return {name: tensor(shape) for name, shape in ARCHITECTURES[net].shapes(hyper).items()}


GFPGAN = FACE_MODELS["GFPGANv1.4"].hyper
PARSENET = FACE_MODELS["ParseNet"].hyper

GENERAL = tuple(name for name in RUNTIMES if name != NATIVE)
"""The runtimes that compute any network on any machine."""


def face_weights(net: str, hyper: Hyper, seed: int = 1) -> dict[str, Array]:
    """Tensors of gfpgan or parsenet that keep values near 1 and make a picture, or scores, of some contrast."""
    random = np.random.default_rng(seed)

    def tensor(name: str, shape: tuple[int, ...]) -> Array:
        centre, spread = _distribution(name, shape)
        values = random.standard_normal(shape, np.float32) * np.float32(spread) + np.float32(centre)
        return np.asarray(values, np.float32)  # one of no dimensions would be a number

    return {
        name: np.abs(tensor(name, shape)) if name.endswith("running_var") else tensor(name, shape)
        for name, shape in ARCHITECTURES[net].shapes(hyper).items()
    }


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation, as training starts from them where it matters."""
    if ".noises." in name or "constant_input" in name:
        return 0.0, 1.0
    if name.endswith(("modulation.bias", "norm.weight", "running_var")):
        return 1.0, 0.2  # styles and norms leave values as they are, but for a fifth
    if name.endswith(".weight") and len(shape) > 1:
        fan_in = math.prod(shape[-3:] if len(shape) > 2 else shape[1:])
        return 0.0, (0.6 if "to_rgb" in name else 0.8) / math.sqrt(fan_in)
    return 0.0, 0.1


def save_face_checkpoint(
    path: Path, net: str = "gfpgan", hyper: Hyper | None = None, layout: str = "torch"
) -> None:
    """Write seeded weights of gfpgan or parsenet in the form of the official files, or as safetensors."""
    tensors = face_weights(net, hyper or {"gfpgan": GFPGAN, "parsenet": PARSENET}[net])
    if layout == "safetensors":
        path.write_bytes(write_safetensors(tensors))
        return
    import torch

    state = {
        name: torch.from_numpy(tensor).long() if name.endswith("tracked") else torch.from_numpy(tensor)
        for name, tensor in tensors.items()
    }
    torch.save({"params_ema": state} if net == "gfpgan" else state, path)


def picture(side: int) -> Array:
    return np.random.default_rng(2).random((1, 3, side, side), np.float32)


def computed(net: str, hyper: Hyper, tensors: dict[str, Array], x_nchw: Array) -> Array:
    session = NumPy().open_session(ARCHITECTURES[net], hyper, tensors, precision="f32", threads=0)
    for stage in ARCHITECTURES[net].stages:
        x_nchw = session.run(stage.name, x_nchw)
    return x_nchw


def save_official(folder: Path, name: str, *, is_legacy: bool = False) -> ModelSpec:
    """Write random weights of the model `name` as its official files, by torch; gives the row that expects them."""
    import torch

    spec = MODELS[name]

    def written(files: tuple, seed: int) -> tuple:
        for file in (file for file in files if file.url):
            tensors = random_weights(spec.net, spec.hyper, seed)
            value = {file.state_key: {key: torch.from_numpy(tensor) for key, tensor in tensors.items()}}
            torch.save(value, folder / file.name, _use_new_zipfile_serialization=not is_legacy)
            data = (folder / file.name).read_bytes()
            return (replace(file, sha256=sha256(data).hexdigest(), bytes=len(data)),)
        return ()

    return replace(spec, files=written(spec.files, 1), denoise_files=written(spec.denoise_files, 2))
