"""The official detector, and pictures with faces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.faces.detector import FaceFinder
from enlarger.engine.faces.yunet import YuNet


@pytest.fixture(scope="session")
def yunet_path(samples: Path) -> Path:
    """The official file. Mark the test `shared`."""
    return samples.parent / "weights" / "face_detection_yunet_2023mar.onnx"


@pytest.fixture(scope="session")
def yunet(yunet_path: Path) -> YuNet:
    return YuNet(yunet_path.read_bytes())


@pytest.fixture(scope="session")
def finder(yunet: YuNet) -> FaceFinder:
    return FaceFinder(yunet)


@pytest.fixture(scope="session")
def photo(samples: Path) -> Callable[[str], np.ndarray]:
    """photo(name) → (h, w, 3) uint8 RGB of a sample, without alpha. Mark the test `shared`."""
    return lambda name: np.asarray(Image.open(samples / name).convert("RGB"))
