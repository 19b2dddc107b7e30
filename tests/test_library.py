from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import enlarger

QUICK = {"model": "realesr-animevideov3", "scale": 2.5}


def test_a_path_bytes_a_picture_and_an_array_are_the_same_picture(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    (tmp_path / "in.png").write_bytes(buffer.getvalue())
    given = (
        tmp_path / "in.png", str(tmp_path / "in.png"), buffer.getvalue(), pixels, enlarger.Picture.from_array(pixels)
    )  # fmt: skip
    results = [enlarger.upscale(one, **QUICK) for one in given]
    assert results[0].size == (75, 50)
    for result in results[1:]:
        np.testing.assert_array_equal(result.pixels, results[0].pixels)


def test_a_result_is_saved_in_the_format_of_its_options(tmp_path: Path) -> None:
    result = enlarger.upscale(np.zeros((4, 6), np.uint8), output_format="jpeg", **QUICK)
    result.save(tmp_path / "out.jpg")
    assert Image.open(io.BytesIO((tmp_path / "out.jpg").read_bytes())).size == (15, 10)


def test_options_are_checked_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(enlarger.InvalidOption, match=r"^scale"):
        enlarger.upscale(tmp_path / "none.png", scale=0)
