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


@pytest.mark.parametrize(
    ("name", "asked", "written"),
    [
        ("out.png", "auto", "PNG"),
        ("out.TIF", "auto", "TIFF"),
        ("out.webp", "auto", "WEBP"),
        ("out", "auto", "JPEG"),
        ("out.result", "auto", "JPEG"),
        ("out.png", "webp", "WEBP"),
    ],
)
def test_a_name_sets_the_format_unless_the_options_do_and_else_the_input_does(
    tmp_path: Path, name: str, asked: str, written: str
) -> None:
    photo = io.BytesIO()
    Image.new("RGB", (6, 4), "teal").save(photo, "JPEG")
    enlarger.upscale(photo.getvalue(), output_format=asked, **QUICK).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert (image.format, image.size) == (written, (15, 10))


def test_a_name_whose_format_cannot_hold_the_result_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:], duration=50)
    result = enlarger.upscale(animation.getvalue(), **QUICK)
    for name, told in (("out.png", "png holds no animation"), ("out.bmp", "not bmp")):
        with pytest.raises(enlarger.InvalidOption, match=told):
            result.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    result.save(tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as image:
        assert (image.format, image.n_frames) == ("GIF", 2)


def test_options_are_checked_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(enlarger.InvalidOption, match=r"^scale"):
        enlarger.upscale(tmp_path / "none.png", scale=0)
