"""Pyramids: the same picture as the file's, at every zoom, and nothing but refusals for files that are damaged."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from enlarger.engine.decoder import Decoder, DecoderLimits
from enlarger.engine.pyramid_file import PyramidFile, open_pyramid
from enlarger.errors import InvalidOption, InvalidPicture, NotFound, PictureTooLarge, UnsupportedFormat

ORIENTATION = 0x0112
WIDTH, HEIGHT = 1300, 700


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(DecoderLimits(max_pixels=1_000_000))) as opened:
        yield opened


def smooth(width: int = WIDTH, height: int = HEIGHT, channels: int = 3) -> np.ndarray:
    """Slow waves, another in each channel: what lossy tiles hold to within a few levels."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / (90 + 20 * band)) * np.cos(y / (70 + 15 * band)) for band in range(channels)]
    return np.rint(127.5 + 120 * np.stack(waves, axis=2)).astype(np.uint8)


def shown(tile: bytes) -> np.ndarray:
    """A tile as a browser decodes it; Pillow knows nothing of the pyramid it comes from."""
    return np.asarray(Image.open(io.BytesIO(tile)))


def assembled(pyramid: PyramidFile, level: int) -> np.ndarray:
    """A whole level, put together from its tiles."""
    width, height, columns, rows = pyramid.levels[level]
    bands = [
        np.concatenate([shown(pyramid.tile(level, column, row)) for column in range(columns)], axis=1)
        for row in range(rows)
    ]
    return np.concatenate(bands)[:height, :width]


def made(decoder: Decoder, folder: Path, image: Image.Image, name: str, **options: object) -> PyramidFile:
    path, target = folder / name, folder / "pyramid.tif"
    image.save(path, **options)
    decoder.write_pyramid(path, target)
    return open_pyramid(target)


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 12
    assert difference.mean() <= 1.5


def test_every_level_is_the_picture_at_its_size(decoder: Decoder, tmp_path: Path) -> None:
    pixels = smooth()
    pyramid = made(decoder, tmp_path, Image.fromarray(pixels), "a.png")
    assert pyramid.media_type == "image/jpeg"
    sizes = [(level.width, level.height) for level in pyramid.levels]
    assert sizes == [(1300, 700), (650, 350), (325, 175)]
    assert_alike(assembled(pyramid, 0), pixels)
    halved = pixels.reshape(350, 2, 650, 2, 3).mean(axis=(1, 3))
    assert_alike(assembled(pyramid, 1), np.rint(halved).astype(np.uint8))


def test_a_tile_is_what_another_reader_finds_in_the_file(decoder: Decoder, tmp_path: Path) -> None:
    pyramid = made(decoder, tmp_path, Image.fromarray(smooth()), "a.png")
    with tifffile.TiffFile(pyramid.path) as file:
        assert len(file.pages) == len(pyramid.levels)
        for level, page in enumerate(file.pages):
            assert page.shape[:2] == pyramid.levels[level][1::-1]
            assert page.tile == (pyramid.tile_size, pyramid.tile_size)
            assert len(page.dataoffsets) == pyramid.levels[level].columns * pyramid.levels[level].rows
            stored = pyramid.path.read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
            assert pyramid.tile(level, 0, 0).endswith(stored.removeprefix(b"\xff\xd8"))


@pytest.mark.parametrize("channels", [1, 3])
def test_gray_and_sixteen_bits_are_shown_with_eight(decoder: Decoder, tmp_path: Path, channels: int) -> None:
    pixels = smooth(channels=channels)
    deep = pixels.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "deep.tif", deep.squeeze())
    decoder.write_pyramid(tmp_path / "deep.tif", tmp_path / "pyramid.tif")
    pyramid = open_pyramid(tmp_path / "pyramid.tif")
    assert_alike(assembled(pyramid, 0), pixels.squeeze())


def test_transparency_stays(decoder: Decoder, tmp_path: Path) -> None:
    pixels = smooth(channels=4)
    pyramid = made(decoder, tmp_path, Image.fromarray(pixels), "a.png")
    assert pyramid.media_type == "image/webp"
    np.testing.assert_array_equal(assembled(pyramid, 0)[:, :, 3], pixels[:, :, 3])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_upright(decoder: Decoder, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(smooth())
    pyramid = made(decoder, tmp_path, image, "a.jpg", exif=exif, quality=98)
    ways = {
        1: lambda pixels: pixels,
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: pixels.transpose(1, 0, 2),
        6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
        7: lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
    }
    assert_alike(assembled(pyramid, 0), ways[orientation](smooth()))


def test_colours_of_a_profile_are_shown_as_srgb(decoder: Decoder, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert profile.count(b"rXYZ") == profile.count(b"gXYZ") == 1
    # Under this one red means green.
    swapped = profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    pyramid = made(decoder, tmp_path, Image.fromarray(smooth()), "a.png", icc_profile=swapped)
    assert_alike(assembled(pyramid, 0), smooth()[:, :, [1, 0, 2]])


@pytest.mark.parametrize("name", ["a.bmp", "a.webp", "a.tif", "a.avif", "a.gif", "animated.gif", "apng.png"])
def test_every_format_that_is_read_can_be_looked_at(decoder: Decoder, tmp_path: Path, name: str) -> None:
    image = Image.fromarray(smooth(200, 100))
    more = {"save_all": True, "append_images": [image.rotate(180)]} if name[1] != "." else {}
    pyramid = made(decoder, tmp_path, image, name, **more)
    assert [(level.width, level.height) for level in pyramid.levels] == [(200, 100)]
    found = assembled(pyramid, 0)[:, :, :3].astype(int)
    assert np.abs(found - smooth(200, 100)).mean() < 10  # a GIF has 256 colours


def test_a_frame_of_an_animation_can_be_chosen(decoder: Decoder, tmp_path: Path) -> None:
    first, second = smooth(200, 100), smooth(200, 100)[::-1]
    options = {"save_all": True, "append_images": [Image.fromarray(second)], "lossless": True}
    Image.fromarray(first).save(tmp_path / "a.webp", **options)
    decoder.write_pyramid(tmp_path / "a.webp", tmp_path / "p.tif", frame=1)
    assert_alike(assembled(open_pyramid(tmp_path / "p.tif"), 0)[:, :, :3], second)
    with pytest.raises(InvalidOption, match="frame must be from 0 to 1"):
        decoder.write_pyramid(tmp_path / "a.webp", tmp_path / "p.tif", frame=2)


def test_there_are_no_tiles_outside_the_picture(decoder: Decoder, tmp_path: Path) -> None:
    pyramid = made(decoder, tmp_path, Image.fromarray(smooth()), "a.png")
    for place in [(-1, 0, 0), (3, 0, 0), (0, 3, 0), (0, 0, 2), (0, -1, 0), (2, 1, 0)]:
        with pytest.raises(NotFound):
            pyramid.tile(*place)


def test_pictures_that_are_refused_elsewhere_are_refused_here(decoder: Decoder, tmp_path: Path) -> None:
    target = tmp_path / "p.tif"
    (tmp_path / "text").write_text("<svg>")
    with pytest.raises(UnsupportedFormat, match="SVG"):
        decoder.write_pyramid(tmp_path / "text", target)
    Image.new("1", (1001, 1000)).save(tmp_path / "large.png")
    with pytest.raises(PictureTooLarge, match="1001×1000"):
        decoder.write_pyramid(tmp_path / "large.png", target)
    whole = tmp_path / "whole.png"
    Image.fromarray(smooth()).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:50_000])
    with pytest.raises(InvalidPicture, match="damaged"):
        decoder.write_pyramid(tmp_path / "cut.png", target)
    decoder.write_pyramid(whole, target)
    assert open_pyramid(target).levels[0].width == WIDTH


def test_the_process_that_asks_loads_nothing_that_decodes(tmp_path: Path) -> None:
    Image.fromarray(smooth()).save(tmp_path / "a.png")
    code = (
        "import sys; from pathlib import Path; from enlarger.engine.decoder import Decoder; "
        "from enlarger.engine.pyramid_file import open_pyramid; folder = Path(sys.argv[1]); "
        "Decoder().write_pyramid(folder / 'a.png', folder / 'p.tif'); "
        "open_pyramid(folder / 'p.tif').tile(0, 0, 0); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert {"numpy", "pyvips", "PIL"}.isdisjoint(run.stdout.split())


@pytest.fixture(scope="module")
def whole(decoder: Decoder, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    return made(decoder, folder, Image.fromarray(smooth(600, 300)), "a.png").path.read_bytes()


@given(data=st.data())
def test_a_damaged_file_is_refused_or_gives_bytes_of_its_own(
    data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directories = len(whole) - 1500  # what is read here stands at the end
    broken = bytearray(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    for _ in range(data.draw(st.integers(1, 4))):
        if broken:
            at = data.draw(st.one_of(st.integers(0, 8), st.integers(directories, len(whole) - 1)))
            broken[at % len(broken)] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "broken.tif"
    path.write_bytes(broken)
    try:
        pyramid = open_pyramid(path)
    except InvalidPicture:
        return
    for level in range(len(pyramid.levels)):
        assert 0 < len(pyramid.tile(level, 0, 0)) < len(broken) + 65_536


def test_a_pyramid_from_elsewhere_is_not_opened(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", smooth(64, 64), tile=(16, 16))
    with pytest.raises(InvalidPicture, match="not alike"):
        open_pyramid(tmp_path / "a.tif")
