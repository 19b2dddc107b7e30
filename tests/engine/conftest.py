"""Pictures to upscale, and one engine that keeps its models between tests."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.pipeline import Engine


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The default runtime, with the default tiles."""
    return Engine()


@pytest.fixture(scope="session")
def scene() -> Callable[..., np.ndarray]:
    """scene(width, height, channels) → uint8 (height, width, channels): slopes, edges and grain."""

    def draw(width: int, height: int, channels: int = 3) -> np.ndarray:
        y, x = np.mgrid[0:height, 0:width]
        planes = [
            128 + 100 * np.sin(x / (5 + plane) + y / 11) * np.cos(y / (7 + 2 * plane))
            for plane in range(channels)
        ]
        picture = np.stack(planes, axis=2) + np.random.default_rng(7).normal(0, 8, (height, width, channels))
        picture[(x - y) % 37 < 3] = 240
        return np.clip(np.rint(picture), 0, 255).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """encoded(array, format="PNG", **save options) → the bytes of a file, written by Pillow."""

    def encode(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[1 if pixels.ndim == 2 else pixels.shape[2]]
        squeezed = pixels[:, :, 0] if mode == "L" and pixels.ndim == 3 else pixels
        buffer = io.BytesIO()
        Image.fromarray(squeezed, mode).save(buffer, format, **options)
        return buffer.getvalue()

    return encode
