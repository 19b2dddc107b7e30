"""What is written is read back by other libraries as it was given."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from enlarger.engine.geometry import Size
from enlarger.engine.pictures import codec, encoding
from enlarger.errors import Cancelled, EnlargerError, InvalidOption, PictureTooLarge

WRITTEN = ("png", "jpeg", "webp", "avif", "tiff")


def noise(channels: int, dtype: type = np.uint8, *, height: int = 23, width: int = 31) -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)
    pixels[0, :2] = 0
    pixels[0, 2:4] = np.iinfo(dtype).max
    return pixels


def smooth(channels: int, dtype: type = np.uint8) -> np.ndarray:
    """Slopes, which a lossy format of high quality keeps within few levels."""
    y, x = np.mgrid[0:32, 0:48] / 48
    planes = np.stack([x, y, (x + y) / 2, 1 - x / 2], axis=-1)[:, :, -channels:]
    return np.rint(planes * np.iinfo(dtype).max).astype(dtype)


def written(pixels: np.ndarray, folder: Path, format: str, **rest: object) -> tuple[bytes, tuple[str, ...]]:
    target = folder / f"result.{format}"
    notes = codec.encode(pixels, target, codec.Encoding(format=format, **rest))
    return target.read_bytes(), notes


def pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("format", "dtype", "lossless"),
    [
        ("png", np.uint8, False),
        ("png", np.uint16, False),
        ("tiff", np.uint8, False),
        ("tiff", np.uint16, False),
        ("webp", np.uint8, True),
        ("avif", np.uint8, True),
    ],
)
def test_lossless_formats_give_back_what_was_written(
    tmp_path: Path, format: str, dtype: type, lossless: bool, channels: int
) -> None:
    pixels = noise(channels, dtype)
    data, notes = written(pixels, tmp_path, format, lossless=lossless)
    picture = codec.decode(data)
    expected = pixels
    if picture.colours == 3 and channels <= 2:  # webp and avif know no gray
        expected = np.concatenate([pixels[:, :, :1]] * 3 + [pixels[:, :, 1:]], axis=2)
    assert np.array_equal(picture.rows(0, picture.size.height), expected)
    assert notes == ()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_another_library_reads_the_same_tiff(tmp_path: Path, channels: int, dtype: type) -> None:
    pixels = noise(channels, dtype)
    data, _ = written(pixels, tmp_path, "tiff")
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        assert np.array_equal(page.asarray().reshape(pixels.shape), pixels)
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        alpha = (tifffile.EXTRASAMPLE.UNASSALPHA,) if channels in (2, 4) else ()
        assert page.extrasamples == alpha


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_another_library_reads_the_same_png(tmp_path: Path, channels: int) -> None:
    pixels = noise(channels)
    image = pillow(written(pixels, tmp_path, "png")[0])
    assert image.mode == ("L", "LA", "RGB", "RGBA")[channels - 1]
    assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_lossy_formats_stay_near_what_was_written(tmp_path: Path, format: str, channels: int) -> None:
    pixels = smooth(channels)
    image = pillow(written(pixels, tmp_path, format, quality=95)[0])
    assert image.mode == ("L" if channels == 1 and format == "jpeg" else "RGB")
    wrong = np.asarray(image).reshape(32, 48, -1).astype(int) - pixels
    assert np.abs(wrong).max() <= 8
    assert np.abs(wrong.mean()) < 1


def test_quality_changes_the_size_of_a_file(tmp_path: Path) -> None:
    for format in ("jpeg", "webp", "avif"):
        low, high = (written(noise(3), tmp_path, format, quality=quality)[0] for quality in (30, 95))
        assert len(low) < 0.7 * len(high), format


@pytest.mark.parametrize("format", ["png", "tiff"])
def test_bit_depth_is_raised_and_lowered_as_asked(tmp_path: Path, format: str) -> None:
    deep, notes = written(noise(3), tmp_path, format, bit_depth=16)
    picture = codec.decode(deep)
    assert picture.depth == 16
    assert np.array_equal(picture.rows(0, 23), noise(3).astype(np.uint16) * 257)
    assert notes == ()

    samples = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    flat, notes = written(samples, tmp_path, format, bit_depth=8)
    assert np.array_equal(codec.decode(flat).rows(0, 256), np.rint(samples / 257).astype(np.uint8))
    assert any("rounded to 8" in note for note in notes)


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
def test_formats_of_8_bits_round_16_and_refuse_to_pretend(tmp_path: Path, format: str) -> None:
    data, notes = written(smooth(3, np.uint16), tmp_path, format)
    wrong = np.asarray(pillow(data)).astype(int) - smooth(3)
    assert np.abs(wrong).max() <= 8
    assert any(format in note and "rounded to 8" in note for note in notes)
    with pytest.raises(InvalidOption, match="png or tiff") as refusal:
        written(smooth(3, np.uint16), tmp_path, format, bit_depth=16)
    assert refusal.value.field == "bit_depth"


def test_jpeg_refuses_to_be_lossless(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="no lossless form"):
        written(noise(3), tmp_path, "jpeg", lossless=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("background", ["#ffffff", "#3080f0"])
def test_transparency_is_flattened_on_the_colour_asked_for(
    tmp_path: Path, background: str, dtype: type
) -> None:
    pixels = smooth(4, dtype)
    data, notes = written(pixels, tmp_path, "jpeg", background=background, quality=100)
    behind = np.array([int(background[at : at + 2], 16) for at in (1, 3, 5)])
    unit = pixels / np.iinfo(dtype).max
    expected = 255 * unit[:, :, :3] * unit[:, :, 3:] + behind * (1 - unit[:, :, 3:])
    assert np.abs(np.asarray(pillow(data)) - expected).max() <= 4
    assert any(background in note and "jpeg" in note for note in notes)


@pytest.mark.parametrize(("background", "mode"), [("#808080", "L"), ("#ff0000", "RGB")])
def test_gray_stays_gray_on_gray_only(tmp_path: Path, background: str, mode: str) -> None:
    clear = np.zeros((8, 8, 2), np.uint8)
    image = pillow(written(clear, tmp_path, "jpeg", background=background)[0])
    expected = (0x80,) * 3 if mode == "L" else (255, 0, 0)
    assert image.mode == mode
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("format", WRITTEN)
def test_the_profile_of_colour_is_kept_whatever_becomes_of_metadata(
    tmp_path: Path, format: str, profiles: dict[str, bytes]
) -> None:
    for policy in ("keep", "strip", "strip-gps"):
        data, _ = written(smooth(3), tmp_path, format, icc=profiles["wide"], metadata=policy)
        assert pillow(data).info["icc_profile"] == profiles["wide"]


@pytest.mark.parametrize("format", WRITTEN)
def test_gray_with_a_profile_keeps_its_looks(
    tmp_path: Path, format: str, profiles: dict[str, bytes], to_srgb: Callable[..., np.ndarray]
) -> None:
    gray = smooth(1)
    data, notes = written(gray, tmp_path, format, icc=profiles["gray"], quality=100)
    image = pillow(data)
    seen = to_srgb(image, image.info["icc_profile"]).astype(int)
    expected = to_srgb(Image.fromarray(gray[:, :, 0]), profiles["gray"]).astype(int)
    assert np.abs(seen - expected).max() <= 4
    assert (format in ("webp", "avif")) == any("gray converted to sRGB" in note for note in notes)


def test_a_gif_frame_is_converted_to_srgb_as_gif_holds_no_profile(
    tmp_path: Path, profiles: dict[str, bytes], to_srgb: Callable[..., np.ndarray]
) -> None:
    pixels = np.full((4, 4, 3), (200, 30, 60), np.uint8)
    data, notes = written(pixels, tmp_path, "gif", icc=profiles["wide"])
    expected = to_srgb(Image.fromarray(pixels), profiles["wide"])
    assert np.abs(np.asarray(pillow(data).convert("RGB")).astype(int) - expected).max() <= 2
    assert any("sRGB" in note for note in notes)


def test_a_file_without_metadata_gets_none_made_up(tmp_path: Path) -> None:
    for format in ("png", "jpeg", "webp", "avif"):
        assert dict(pillow(written(smooth(3), tmp_path, format)[0]).getexif()) == {}


@pytest.mark.parametrize(("format", "longest"), [("jpeg", 65_500), ("webp", 16_383), ("avif", 16_384)])
def test_the_longest_side_of_a_format_is_what_its_writer_takes(
    tmp_path: Path, format: str, longest: int
) -> None:
    assert pillow(written(np.zeros((1, longest, 3), np.uint8), tmp_path, format)[0]).width == longest
    with pytest.raises(PictureTooLarge, match=str(longest)):
        written(np.zeros((1, longest + 1, 3), np.uint8), tmp_path, format)
    codec.check_fits(Size(70_000, 1), "tiff")


def test_a_large_tiff_is_tiled_and_a_huge_one_counts_in_64_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise(3, height=300, width=400)
    monkeypatch.setattr(encoding, "TILED_TIFF_PIXELS", 100_000)
    monkeypatch.setattr(encoding, "BIG_TIFF_BYTES", 360_000)
    with tifffile.TiffFile(io.BytesIO(written(pixels, tmp_path, "tiff")[0])) as file:
        assert file.is_bigtiff
        assert file.pages.first.is_tiled
        assert np.array_equal(file.pages.first.asarray(), pixels)


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EnlargerError, match="cannot write"):
        codec.encode(noise(3), tmp_path / "no" / "folder.png", codec.Encoding(format="png"))


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_a_file_that_nobody_wants_any_more_is_not_written_to_its_end(tmp_path: Path, format: str) -> None:
    pixels = noise(3, height=600, width=500)
    asked: list[int] = []
    codec.encode(pixels, tmp_path / "whole", codec.Encoding(format=format), lambda: asked.append(1) or False)
    whole = len(asked)
    with pytest.raises(Cancelled):
        codec.encode(
            pixels, tmp_path / "part", codec.Encoding(format=format), lambda: asked.append(1) or True
        )
    assert len(asked) - whole < whole
    codec.encode(pixels, tmp_path / "again", codec.Encoding(format=format))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()


def test_results_follow_their_input_or_lose_nothing_of_it() -> None:
    stills = {"png": "png", "jpeg": "jpeg", "webp": "webp", "avif": "avif", "tiff": "tiff"}
    stills |= {"gif": "png", "bmp": "png", "apng": "png", "": "png"}
    assert {name: codec.natural_format(name) for name in stills} == stills
    assert {codec.natural_format(name, animated=True) for name in ("gif", "webp", "apng")} == {"webp"}
    assert codec.format_of(Path("a.JPG")) == "jpeg"
    assert codec.format_of(Path("a.tif")) == "tiff"
    assert codec.format_of(Path("a.doc")) is None
