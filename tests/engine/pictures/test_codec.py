"""Reading and writing files, against Pillow."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from enlarger.engine.geometry import Size
from enlarger.engine.options import FORMATS as OPTION_FORMATS
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.codec import FORMATS
from enlarger.errors import EnlargerError, InvalidPicture, PictureTooLarge, UnsupportedFormat

Scene = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]

LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True, "exact": True}}
ORIENTATION = 0x0112  # the EXIF tag


def decoded(data: bytes) -> np.ndarray:
    picture = codec.decode(data)
    return picture.rows(0, picture.size.height)


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def as_pillow(data: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has width × height RGB pixels, followed by almost none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_decodes_to_the_very_pixels(channels: int, scene: Scene, encoded: Encoded) -> None:
    pixels = scene(37, 23, channels)
    picture = codec.decode(encoded(pixels))
    assert (picture.size, picture.depth) == (Size(37, 23), 8)
    assert (picture.colours, picture.has_alpha) == (1 if channels < 3 else 3, channels in (2, 4))
    np.testing.assert_array_equal(picture.rows(0, 23), pixels)
    np.testing.assert_array_equal(picture.rows(11, 12), pixels[11:12])
    np.testing.assert_array_equal(picture.rows(0, 5), pixels[:5])


@pytest.mark.parametrize(
    ("mode", "bits"), [("P", {}), ("P", {"bits": 1}), ("1", {}), ("P", {"transparency": 3})], ids=str
)
def test_palette_and_bilevel_pngs_decode_to_8_bits(mode: str, bits: dict[str, int], scene: Scene) -> None:
    image = Image.fromarray(scene(37, 23)).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **bits)
    alpha = "transparency" in bits
    reread = Image.open(io.BytesIO(buffer.getvalue()))
    wanted = np.asarray(reread.convert("L" if mode == "1" else "RGBA" if alpha else "RGB"))
    pixels = decoded(buffer.getvalue())
    np.testing.assert_array_equal(
        np.broadcast_to(pixels, (23, 37, wanted.shape[2] if wanted.ndim == 3 else 1)).squeeze(), wanted
    )


@pytest.mark.parametrize(
    ("format", "options", "channels"),
    [
        ("JPEG", {"quality": 90}, 3),
        ("JPEG", {"quality": 90, "progressive": True}, 3),
        ("JPEG", {"quality": 90}, 1),
        ("WEBP", {"quality": 90}, 3),
        ("WEBP", {"lossless": True, "exact": True}, 4),
    ],
)
def test_jpeg_and_webp_decode_as_pillow_decodes_them(
    format: str, options: dict[str, int], channels: int, scene: Scene, encoded: Encoded
) -> None:
    data = encoded(scene(61, 47, channels), format, **options)
    difference = decoded(data).astype(int) - as_pillow(data)
    assert np.abs(difference).max() <= 3
    assert codec.probe(data).format == format.lower()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_exif_orientation_is_applied_to_pixels_and_size(
    format: str, orientation: int, scene: Scene, encoded: Encoded
) -> None:
    options = LOSSLESS.get(format, {"quality": 95})
    data = encoded(scene(48, 32), format, exif=turned(orientation), **options)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert codec.probe(data).size == Size(upright.shape[1], upright.shape[0])
    got = decoded(data)
    assert got.shape == upright.shape
    assert np.abs(got.astype(int) - upright).max() <= (3 if format == "JPEG" else 0)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_written_files_read_back_in_pillow(format: str, channels: int, scene: Scene, tmp_path: Path) -> None:
    pixels = scene(61, 47, channels)
    codec.encode(pixels, tmp_path / "out", format=format, quality=95)
    image = opened(tmp_path / "out")
    assert image.get_format_mimetype() == FORMATS[format].media_type
    reread = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(pixels.shape)
    error = np.abs(reread.astype(int) - pixels).mean()
    # Swapped channels would be some 70 levels off.
    assert error == 0 if format == "png" else error < 12


@pytest.mark.parametrize(("format", "channels"), [("png", 2), ("png", 4), ("webp", 4), ("webp", 2)])
def test_alpha_is_written_where_the_format_holds_it(
    format: str, channels: int, scene: Scene, tmp_path: Path
) -> None:
    pixels = scene(31, 17, channels)
    codec.encode(pixels, tmp_path / "out", format=format, quality=95)
    alpha = np.asarray(opened(tmp_path / "out").convert("RGBA"))[:, :, 3]
    np.testing.assert_array_equal(alpha, pixels[:, :, -1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 4])
def test_jpeg_gets_alpha_on_white(channels: int, dtype: type, tmp_path: Path) -> None:
    top = int(np.iinfo(dtype).max)
    pixels = np.zeros((16, 48, channels), dtype)
    pixels[:, :, 0] = top // 2  # a half red, or a middle gray
    pixels[:, 16:32, -1] = top // 2
    pixels[:, 32:, -1] = top
    codec.encode(pixels, tmp_path / "out", format="jpeg", quality=100)
    image = np.asarray(opened(tmp_path / "out").convert("RGB")).astype(int)
    colour = np.array([127, 127, 127] if channels == 2 else [127, 0, 0])
    for left, alpha in ((0, 0.0), (16, 0.5), (32, 1.0)):
        wanted = colour * alpha + 255 * (1 - alpha)
        assert np.abs(image[4:12, left + 4 : left + 12] - wanted).max() <= 4, alpha


def test_sixteen_bits_are_written_as_sixteen_bits(tmp_path: Path) -> None:
    pixels = np.arange(0, 65_536, 37, dtype=np.uint16)[:1700].reshape(34, 50, 1)
    codec.encode(pixels, tmp_path / "out", format="png", quality=95)
    np.testing.assert_array_equal(np.asarray(opened(tmp_path / "out")), pixels[:, :, 0])


def test_quality_makes_lossy_files_larger(scene: Scene, tmp_path: Path) -> None:
    for format in ("jpeg", "webp"):
        sizes = []
        for quality in (30, 95):
            codec.encode(scene(200, 150), tmp_path / "out", format=format, quality=quality)
            sizes.append((tmp_path / "out").stat().st_size)
        assert sizes[1] > 1.5 * sizes[0]


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_the_colour_profile_goes_through_unchanged(
    format: str, scene: Scene, encoded: Encoded, tmp_path: Path
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = codec.decode(encoded(scene(16, 16), format.upper(), icc_profile=profile))
    assert picture.icc == profile
    codec.encode(picture.rows(0, 16), tmp_path / "out", format=format, quality=95, icc=picture.icc)
    assert opened(tmp_path / "out").info["icc_profile"] == profile
    assert codec.decode(encoded(scene(16, 16), format.upper())).icc == b""


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("JPEG", {"quality": 90}), ("WEBP", {"quality": 90})]
)
@pytest.mark.parametrize("kept", [0.02, 0.1, 0.5, 0.9])
def test_a_file_that_was_cut_is_an_invalid_picture(
    format: str, options: dict[str, int], kept: float, scene: Scene, encoded: Encoded
) -> None:
    data = encoded(scene(200, 150), format, **options)
    with pytest.raises(InvalidPicture) as caught:
        decoded(data[: round(len(data) * kept)])
    assert type(caught.value) is InvalidPicture


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"", InvalidPicture, "no bytes"),
        (b"hello, I am text", UnsupportedFormat, "not a png, jpeg, webp file .*68 65 6c 6c"),
        (b"GIF89a" + bytes(30), UnsupportedFormat, "not a png"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", UnsupportedFormat, "not a png"),
        (b"RIFF\x24\0\0\0WAVEfmt ", UnsupportedFormat, "not a png"),
        (b"\x89PNG\r\n\x1a\n", InvalidPicture, "damaged"),
        (b"\xff\xd8\xff", InvalidPicture, "damaged"),
        (b"RIFF\0\0\0\0WEBP", InvalidPicture, "damaged"),
        (b"\x89", UnsupportedFormat, "not a png"),
    ],
)
def test_what_is_no_picture_is_refused(data: bytes, kind: type[Exception], said: str) -> None:
    for call in (codec.probe, codec.decode):
        with pytest.raises(InvalidPicture, match=said) as caught:
            call(data)
        assert type(caught.value) is kind


@pytest.mark.parametrize(("mode", "format"), [("CMYK", "JPEG"), ("I;16", "PNG")])
def test_kinds_of_pixels_not_yet_read_are_named(mode: str, format: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (8, 8)).save(buffer, format)
    with pytest.raises(UnsupportedFormat, match="8-bit RGB or gray"):
        codec.probe(buffer.getvalue())


def test_the_header_tells_the_size_where_the_pixels_are_missing() -> None:
    assert codec.probe(png_header(60_000, 60_000)).size == Size(60_000, 60_000)
    with pytest.raises(InvalidPicture):
        codec.probe(png_header(0, 5))


@given(
    format=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1),
)
def test_damaged_bytes_are_a_picture_or_an_invalid_picture(
    format: str, changes: list[tuple[int, int]], scene: Scene, encoded: Encoded
) -> None:
    damaged = bytearray(encoded(scene(24, 16), format))
    for at, value in changes:
        damaged[at % len(damaged)] = value
    try:
        if codec.probe(bytes(damaged)).size.pixels < 1_000_000:
            assert decoded(bytes(damaged)).dtype == np.uint8
    except InvalidPicture:
        pass


@pytest.mark.parametrize("format", FORMATS)
def test_the_longest_side_of_a_format_can_be_written_and_one_more_is_refused(
    format: str, tmp_path: Path
) -> None:
    longest = min(FORMATS[format].longest, 100_000)
    codec.encode(np.zeros((1, longest, 1), np.uint8), tmp_path / "out", format=format, quality=50)
    assert opened(tmp_path / "out").size == (longest, 1)
    if longest == FORMATS[format].longest:
        with pytest.raises(PictureTooLarge, match=f"longest side is {longest} px"):
            codec.check_fits(Size(1, longest + 1), format)


def test_a_folder_that_is_not_there_is_not_blamed_on_the_picture(tmp_path: Path) -> None:
    with pytest.raises(EnlargerError, match=r"could not be written to .*none") as caught:
        codec.encode(np.zeros((1, 1, 1), np.uint8), tmp_path / "none" / "out", format="png", quality=95)
    assert not isinstance(caught.value, InvalidPicture)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.png", "png"),
        ("a.JPG", "jpeg"),
        ("a.b.jpeg", "jpeg"),
        ("a.webp", "webp"),
        ("a", None),
        ("a.gif", None),
    ],
)
def test_a_file_name_asks_for_a_format_by_its_extension(name: str, format: str | None) -> None:
    assert codec.format_of(Path(name)) == format


def test_options_offer_the_formats_the_codec_writes() -> None:
    assert set(OPTION_FORMATS) == set(FORMATS)
