"""Whole runs, PNG bytes to pixels, against results made with the official weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.options import Options
from enlarger.engine.pipeline import Engine
from enlarger.engine.runtime.openvino import OpenVino

pytestmark = pytest.mark.shared

MODELS = ("RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B")
BF16_ON_OPENVINO = [("openvino", side) for side in (16, 32) if "bf16" in OpenVino().precisions()]

Psnr = Callable[[np.ndarray, np.ndarray], float]


def computed(engine: Engine, goldens: Path, model: str, side: int, precision: str) -> np.ndarray:
    data = (goldens / f"input-{side}x{side}.png").read_bytes()
    result = engine.upscale(data, Options(model=model, precision=precision))
    assert result.report["precision"] == precision
    return result.pixels


def official(goldens: Path, model: str, side: int) -> np.ndarray:
    return np.asarray(Image.open(goldens / f"{model}-{side}x{side}.png").convert("RGB"))


@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("model", MODELS)
def test_f32_is_the_official_result(model: str, side: int, engine: Engine, goldens: Path, psnr: Psnr) -> None:
    pixels, golden = computed(engine, goldens, model, side, "f32"), official(goldens, model, side)
    assert psnr(pixels, golden) >= 57
    assert np.abs(pixels.astype(int) - golden).max() <= 4


# NumPy rounds to bf16 on any machine; OpenVINO is here where the CPU has bf16.
@pytest.mark.parametrize(("runtime", "side"), [("numpy", 16), *BF16_ON_OPENVINO])
@pytest.mark.parametrize("model", MODELS)
def test_bf16_is_close_to_the_official_result(
    model: str, runtime: str, side: int, goldens: Path, psnr: Psnr
) -> None:
    pixels = computed(Engine(runtime=runtime), goldens, model, side, "bf16")
    assert psnr(pixels, official(goldens, model, side)) >= 48
