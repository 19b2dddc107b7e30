"""Files are told by their content, refused by their name, and measured before they are decoded."""

from __future__ import annotations

import contextlib
import io
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from enlarger.engine.geometry import Size
from enlarger.engine.pictures import codec
from enlarger.errors import EnlargerError, InvalidPicture, PictureTooLarge, UnsupportedFormat


def saved(format: str, mode: str = "RGB", size: tuple[int, int] = (6, 4), **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "gif", "bmp", "avif"])
def test_every_format_is_known_by_its_content(format: str) -> None:
    assert codec.sniff(saved(format.upper())) == format


def test_an_animated_png_is_told_from_a_still_one() -> None:
    data = saved("PNG", save_all=True, append_images=[Image.new("RGB", (6, 4), "red")])
    assert codec.sniff(data) == "apng"
    # A chunk of that name behind the pixels makes no animation.
    still = saved("PNG")
    late = (
        still[:-12]
        + struct.pack(">I4s8sI", 8, b"acTL", bytes(8), zlib.crc32(b"acTL" + bytes(8)))
        + still[-12:]
    )
    assert codec.sniff(late) == "png"


def test_the_documentation_says_what_each_format_holds(root: Path) -> None:
    def cells(row: codec.Format) -> list[str]:
        qualities = (
            *(row.holds_alpha, row.holds_16_bit, row.holds_gray, row.holds_icc, row.holds_metadata),
            *(row.holds_animation, row.can_be_lossless),
        )
        told = [("no", "yes")[quality] if row.is_written else "–" for quality in qualities]
        longest = str(row.longest) if row.is_written else "–"
        return [row.name, "yes", ("no", "yes")[row.is_written], *told, longest, row.natural]

    page = (root / "docs" / "formats.md").read_text("utf-8")
    for row in codec.FORMATS.values():
        assert f"| {' | '.join(cells(row))} |" in page


FOREIGN = [
    (b"%PDF-1.7\n", "PDF"),
    (b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "HEIC"),
    (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00mif1heicmiaf", "HEIC"),
    (b"\x00\x00\x00\x1cftypavis\x00\x00\x00\x00avifavismiaf", "AVIF image sequence"),
    (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "camera raw"),
    (b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x01isommp41", "MP4"),
    (b"\xff\x0a\xfa\x7f\x01", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"8BPS\x00\x01", "PSD"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "camera raw"),
    (b"<!DOCTYPE html><html>", "HTML"),
    (b"P6 2 2 255\n" + bytes(12), "PNM"),
]


@pytest.mark.parametrize(("data", "name"), FOREIGN)
def test_what_is_not_read_is_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name) as refusal:
        codec.probe(data)
    assert "avif" in refusal.value.message


@pytest.mark.parametrize("data", [b"BMW cars are fast, they say.", b"hello", bytes(64)])
def test_the_unknown_is_refused_with_what_would_do(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="png, jpeg, webp"):
        codec.decode(data)
    with pytest.raises(InvalidPicture, match="no bytes"):
        codec.decode(b"")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float32, "32-bit float"),
        (np.uint32, "32-bit"),
        (np.int16, "16-bit signed"),
    ],
)
def test_tiff_samples_that_are_not_supported_are_named(dtype: type, name: str) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 4), dtype), metadata=None)
    with pytest.raises(UnsupportedFormat, match=name):
        codec.probe(file.getvalue())


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_in_lab_is_refused_by_name_and_not_called_damaged(depth: type) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((4, 5, 3), depth), photometric="rgb", metadata=None)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        at = tiff.pages.first.tags["PhotometricInterpretation"].valueoffset
    data = bytearray(file.getvalue())
    data[at] = 8  # CIE L*a*b* (TIFF 6.0, section 23)
    with pytest.raises(UnsupportedFormat, match=r"(L\*a\*b\*|labs).*convert it to gray, RGB or CMYK"):
        codec.probe(bytes(data))


def test_the_first_page_of_a_tiff_is_taken_unless_another_is_chosen() -> None:
    pages = [np.full((3, 5), 10, np.uint8), np.full((7, 2), 20, np.uint8)]
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page in pages:
            writer.write(page, photometric="minisblack", metadata=None)
    header = codec.probe(file.getvalue())
    assert (header.frames, header.pages) == (1, 2)
    for frame, page in ((None, pages[0]), (1, pages[1])):
        picture = codec.decode(file.getvalue(), frame=frame)
        assert np.array_equal(picture.rows(0, picture.size.height)[:, :, 0], page)
        assert any("holds 2" in note for note in picture.notes)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("black_is_zero", [False, True])
def test_few_bits_fill_the_whole_range(bits: int, black_is_zero: bool) -> None:
    """A hand-made TIFF of one row: all levels there are, packed."""
    levels = list(range(2**bits))
    packed = int("".join(f"{level:0{bits}b}" for level in levels).ljust(64, "0"), 2).to_bytes(8, "big")
    tags = {
        256: len(levels),
        257: 1,
        258: bits,
        259: 1,
        262: int(black_is_zero),
        273: 8,
        277: 1,
        278: 1,
        279: 8,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<I", 16) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    expected = [255 * level // levels[-1] for level in levels]
    row = codec.decode(data).rows(0, 1)[0, :, 0].tolist()
    assert row == (expected if black_is_zero else expected[::-1])


def test_avif_of_more_bits_reaches_full_white() -> None:
    import pyvips

    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1).repeat(3, 2)
    image = pyvips.Image.new_from_array(levels).copy(interpretation="rgb16")
    for bits in (10, 12):
        data = image.heifsave_buffer(compression="av1", lossless=True, bitdepth=bits, effort=0)
        picture = codec.decode(data)
        pixels = picture.rows(0, 8)
        assert picture.depth == 16
        assert (pixels.min(), pixels.max()) == (0, 65535)
        assert np.abs(pixels.astype(int) - levels).max() <= 65535 / (2**bits - 1)


def test_premultiplied_tiff_becomes_straight() -> None:
    file = io.BytesIO()
    pixels = np.array([[[50, 25, 10, 100], [0, 0, 0, 0]]], np.uint8)
    tifffile.imwrite(file, pixels, photometric="rgb", extrasamples=["assocalpha"], metadata=None)
    assert np.abs(codec.decode(file.getvalue()).rows(0, 1)[0, 0].astype(int) - (127, 63, 25, 100)).max() <= 1


def test_channels_beyond_alpha_are_dropped_and_said() -> None:
    file = io.BytesIO()
    pixels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    extra = ["unassalpha", "unspecified"]
    tifffile.imwrite(
        file, pixels, photometric="rgb", planarconfig="contig", extrasamples=extra, metadata=None
    )
    picture = codec.decode(file.getvalue())
    assert np.array_equal(picture.rows(0, 3), pixels[:, :, :4])
    assert any("1 extra channel" in note for note in picture.notes)


def png_bomb(**options: object) -> bytes:
    data = bytearray(saved("PNG", **options))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def patched(format: str, marker: bytes, after: int, packed: bytes) -> bytes:
    data = bytearray(saved(format))
    at = data.index(marker) + after
    data[at : at + len(packed)] = packed
    return bytes(data)


def tiff_bomb() -> bytes:
    file = io.BytesIO(saved("TIFF"))
    with tifffile.TiffFile(file) as tiff:
        places = [tiff.pages.first.tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
        kinds = [tiff.pages.first.tags[name].dtype.value for name in ("ImageWidth", "ImageLength")]
    data = bytearray(file.getvalue())
    for place, kind in zip(places, kinds, strict=True):
        struct.pack_into("<H" if kind == 3 else "<I", data, place, 60_000)
    return bytes(data)


def lossless_webp_bomb() -> bytes:
    data = bytearray(saved("WEBP", lossless=True))
    at = data.index(b"VP8L") + 9  # behind the signature: width − 1 and height − 1 in 14 bits each, then flags
    flags = int.from_bytes(data[at : at + 4], "little") >> 28 << 28
    data[at : at + 4] = (flags | 16_382 << 14 | 16_382).to_bytes(4, "little")
    return bytes(data)


SIDE = 60_000
WEBP_SIDE = 16_383  # as much as a WebP can say
BOMBS: dict[str, Callable[[], bytes]] = {
    "png": png_bomb,
    "apng": lambda: png_bomb(save_all=True, append_images=[Image.new("RGB", (6, 4), "red")]),
    "jpeg": lambda: patched("JPEG", b"\xff\xc0", 5, struct.pack(">HH", SIDE, SIDE)),
    "webp": lambda: patched("WEBP", b"\x9d\x01\x2a", 3, struct.pack("<HH", WEBP_SIDE, WEBP_SIDE)),
    "webp, lossless": lossless_webp_bomb,
    "avif": lambda: patched("AVIF", b"ispe", 8, struct.pack(">II", SIDE, SIDE)),
    "gif": lambda: patched("GIF", b",\0\0\0\0", 5, struct.pack("<HH", SIDE, SIDE)),
    "tiff": tiff_bomb,
    "bmp": lambda: patched("BMP", b"BM", 18, struct.pack("<ii", SIDE, SIDE)),
}


@pytest.mark.parametrize("format", BOMBS)
def test_a_bomb_is_measured_or_refused_without_being_decoded(format: str) -> None:
    data = BOMBS[format]()
    side = WEBP_SIDE if "webp" in format else SIDE
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if format in ("bmp", "apng"):
        with pytest.raises(PictureTooLarge, match="60000×60000"):
            codec.probe(data)
    else:
        assert codec.probe(data).size == codec.decode(data).size == Size(side, side)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB; the pixels are 10 GB


@given(st.data())
def test_damaged_files_are_pictures_or_errors_of_ours(data: st.DataObject) -> None:
    """Whatever bytes change, nothing else is raised or warned, and the header keeps its word."""
    format = data.draw(st.sampled_from(["PNG", "APNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"]))
    more = {"save_all": True, "append_images": [Image.new("RGB", (6, 4), "red")]} if format == "APNG" else {}
    file = bytearray(saved(format.removeprefix("A"), **more))
    changes = st.tuples(st.integers(0, len(file) - 1), st.integers(0, 255))
    for at, value in data.draw(st.lists(changes, min_size=1, max_size=5)):
        file[at] = value
    with contextlib.suppress(EnlargerError):
        header = codec.probe(bytes(file))
        if header.size.pixels * header.frames > 1_000_000:
            return
        for frame in codec.decode_animation(bytes(file)).frames:
            pixels = frame.rows(0, frame.size.height)
            assert pixels.shape == (header.size.height, header.size.width, frame.channels)


def test_loaders_that_are_not_fuzzed_stay_closed() -> None:
    import pyvips

    codec.probe(saved("PNG"))
    with pytest.raises(pyvips.Error, match="blocked"):
        pyvips.Image.svgload_buffer(b"<svg xmlns='http://www.w3.org/2000/svg'/>")
