from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from enlarger.engine.geometry import Size
from enlarger.engine.pictures import picture
from enlarger.engine.pictures.picture import Picture, open_canvas


@pytest.mark.parametrize(
    ("shape", "colours", "has_alpha"),
    [
        ((5, 4), 1, False),
        ((5, 4, 1), 1, False),
        ((5, 4, 2), 1, True),
        ((5, 4, 3), 3, False),
        ((5, 4, 4), 3, True),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_array_is_a_picture_by_its_channels_and_type(
    shape: tuple[int, ...], colours: int, has_alpha: bool, dtype: type
) -> None:
    pixels = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    made = Picture.from_array(pixels)
    assert (made.size, made.colours, made.has_alpha) == (Size(4, 5), colours, has_alpha)
    assert made.depth == np.iinfo(dtype).bits
    np.testing.assert_array_equal(made.rows(1, 3), pixels.reshape(5, 4, -1)[1:3])


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4), np.int8), np.zeros((4, 4), bool)])
def test_an_array_of_another_type_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"uint8 or uint16, not \w+"):
        Picture.from_array(pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4,), (0, 4, 3), (4, 0), (4, 4, 5), (4, 4, 0), (1, 4, 4, 3)])
def test_an_array_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(h, w, 1\.\.4\)"):
        Picture.from_array(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(("depth", "top"), [(8, 255), (16, 65_535)])
def test_floats_are_clamped_and_rounded_to_the_nearest_level(depth: int, top: int) -> None:
    canvas = open_canvas(Size(6, 1), 1, depth)
    values = np.array([-0.5, 0.0, 10.4 / top, 10.6 / top, 1.0, 7.0], np.float32)
    canvas.write(0, 0, values[None, :, None])
    assert canvas.array.ravel().tolist() == [0, 0, 10, 11, top, top]


def test_a_canvas_is_written_by_parts_and_seen_by_channels() -> None:
    canvas = open_canvas(Size(4, 3), 4, 8)
    canvas.write(0, 0, np.zeros((3, 4, 4), np.float32))
    canvas.layer(3, 4).write(1, 2, np.ones((2, 2, 1), np.float32))
    assert canvas.array[:, :, :3].max() == 0
    assert canvas.array[:, :, 3].tolist() == [[0, 0, 0, 0], [0, 0, 255, 255], [0, 0, 255, 255]]
    assert canvas.rows(1, 2).shape == (1, 4, 4)


def test_a_large_canvas_is_a_mapped_file_that_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture, "IN_MEMORY_BYTES", 99)
    assert not isinstance(open_canvas(Size(9, 11), 1, 8, tmp_path).array, np.memmap)
    canvas = open_canvas(Size(10, 10), 1, 8, tmp_path)
    assert isinstance(canvas.array, np.memmap)
    canvas.write(0, 0, np.ones((10, 10, 1), np.float32))
    assert int(canvas.array.sum()) == 255 * 100
    del canvas
    assert list(tmp_path.iterdir()) == []
