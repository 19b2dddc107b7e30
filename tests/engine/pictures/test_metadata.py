"""EXIF and XMP of a result, read back with Pillow."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from enlarger.engine.geometry import Size
from enlarger.engine.pictures import codec, encoding
from enlarger.engine.pictures.directories import Malformed, add_exif
from enlarger.engine.pictures.metadata import carried, exif_of_result, xmp_of_result

GPS_IFD, EXIF_IFD, IFD1 = 0x8825, 0x8769, ExifTags.IFD.IFD1
SIZE = Size(400, 70_000)  # a side that does not fit the SHORT of the original
MAKER_NOTE = b"Maker\0" + bytes(range(200))


def camera_exif(*, big_endian: bool, thumbnail: bytes = b"") -> bytes:
    """A block as a camera writes it, without the marker."""
    exif = Image.Exif()
    exif.endian = ">" if big_endian else "<"
    exif[0x010F], exif[0x0112], exif[0x0100], exif[0x8298] = "Maker", 6, 30, "© someone"
    below = exif.get_ifd(EXIF_IFD)
    below[0xA002], below[0xA003], below[0x9003], below[0x927C] = 30, 40, "2020:01:02 03:04:05", MAKER_NOTE
    gps = exif.get_ifd(GPS_IFD)
    gps[1], gps[2] = "N", (IFDRational(48), IFDRational(51), IFDRational(29))
    block = bytearray(exif.tobytes().removeprefix(b"Exif\0\0"))
    return with_thumbnail(block, thumbnail, ">" if big_endian else "<") if thumbnail else bytes(block)


def with_thumbnail(block: bytearray, thumbnail: bytes, order: str) -> bytes:
    """The block with a second directory that points to a small JPEG behind it."""
    (first,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, first)
    block += bytes(len(block) % 2)
    second = len(block)
    struct.pack_into(f"{order}I", block, first + 2 + 12 * count, second)
    picture = second + 2 + 2 * 12 + 4
    entries = ((0x0201, 4, 1, picture), (0x0202, 4, 1, len(thumbnail)))
    body = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return bytes(block) + struct.pack(f"{order}H", 2) + body + bytes(4) + thumbnail


def read(exif: bytes) -> Image.Exif:
    found = Image.Exif()
    found.load(b"Exif\0\0" + exif)
    return found


XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:t="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" t:Orientation="6" t:Make="Maker" exif:GPSLatitude="48,51.5N">
<t:ImageWidth>30</t:ImageWidth><exif:PixelYDimension>40</exif:PixelYDimension>
<exif:GPSLongitude>2,17.7E</exif:GPSLongitude><exif:GPSVersionID/>
<xmp:Thumbnails><rdf:Alt><rdf:li>SMALL</rdf:li></rdf:Alt></xmp:Thumbnails><xmp:Rating>5</xmp:Rating>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("marker", [b"", b"Exif\0\0"])
def test_what_became_untrue_is_corrected_and_the_rest_stays(big_endian: bool, marker: bytes) -> None:
    block = camera_exif(big_endian=big_endian)
    result = read(exif_of_result(marker + block, SIZE, strip_gps=False))
    below, gps = result.get_ifd(EXIF_IFD), result.get_ifd(GPS_IFD)
    assert (result[0x0112], result[0x0100]) == (1, 400)
    assert (below[0xA002], below[0xA003]) == (400, 70_000)
    assert (result[0x010F], result[0x8298]) == ("Maker", read(block)[0x8298])
    assert (below[0x9003], below[0x927C]) == ("2020:01:02 03:04:05", MAKER_NOTE)
    assert (gps[1], tuple(gps[2])) == ("N", (48, 51, 29))


@pytest.mark.parametrize("big_endian", [False, True])
def test_maker_notes_stay_where_they_are(big_endian: bool) -> None:
    block = camera_exif(big_endian=big_endian, thumbnail=b"\xff\xd8small\xff\xd9")
    result = exif_of_result(block, SIZE, strip_gps=True)
    assert result.index(MAKER_NOTE) == block.index(MAKER_NOTE)


@pytest.mark.parametrize("big_endian", [False, True])
def test_no_trace_of_a_position_is_left_when_it_is_stripped(big_endian: bool) -> None:
    block = camera_exif(big_endian=big_endian)
    result = exif_of_result(block, SIZE, strip_gps=True)
    assert GPS_IFD in read(block)
    assert GPS_IFD not in read(result)
    assert read(result)[0x010F] == "Maker"
    degrees = struct.pack(">6I" if big_endian else "<6I", 48, 1, 51, 1, 29, 1)
    assert degrees in block
    assert degrees not in result


@pytest.mark.parametrize("big_endian", [False, True])
def test_the_thumbnail_is_dropped(big_endian: bool) -> None:
    small = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(small, "JPEG")
    block = camera_exif(big_endian=big_endian, thumbnail=small.getvalue())
    result = exif_of_result(block, SIZE, strip_gps=False)
    assert read(block).get_ifd(IFD1)
    assert not read(result).get_ifd(IFD1)
    assert b"\xff\xd8" not in result
    assert len(result) <= len(block) - len(small.getvalue())


def test_xmp_is_corrected_under_whatever_prefix() -> None:
    result = xmp_of_result(XMP, SIZE, strip_gps=False)
    assert b't:Orientation="1"' in result
    assert b"<t:ImageWidth>400</t:ImageWidth>" in result
    assert b"<exif:PixelYDimension>70000</exif:PixelYDimension>" in result
    assert b"SMALL" not in result
    assert b"48,51.5N" in result
    assert b't:Make="Maker"' in result
    assert b"<xmp:Rating>5</xmp:Rating>" in result


def test_xmp_loses_its_position_when_asked() -> None:
    result = xmp_of_result(XMP, SIZE, strip_gps=True)
    assert b"GPS" not in result
    assert b"48,51.5N" not in result
    assert b"2,17.7E" not in result
    assert b"<xmp:Rating>5</xmp:Rating>" in result
    hidden = XMP.replace(b"xmlns:exif=", b"xmlns:e&#120;if=")
    with pytest.raises(Malformed):
        xmp_of_result(hidden, SIZE, strip_gps=True)


@pytest.mark.parametrize(
    "exif",
    [b"nonsense", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", camera_exif(big_endian=True)[:90]],
)
def test_a_malformed_block_is_dropped_and_said(exif: bytes) -> None:
    result = carried(exif, b"", SIZE, "keep")
    assert result.exif == b""
    assert "EXIF dropped" in result.notes[0]


def test_metadata_is_stripped_when_asked() -> None:
    result = carried(camera_exif(big_endian=False), XMP, SIZE, "strip")
    assert (result.exif, result.xmp, result.notes) == (b"", b"", ())


@given(st.data())
def test_no_bytes_make_the_correction_fail_in_any_other_way(data: st.DataObject) -> None:
    block = bytearray(camera_exif(big_endian=data.draw(st.booleans()), thumbnail=b"\xff\xd8small\xff\xd9"))
    for at, value in data.draw(
        st.lists(st.tuples(st.integers(4, len(block) - 1), st.integers(0, 255)), max_size=6)
    ):
        block[at] = value
    try:
        result = exif_of_result(bytes(block), SIZE, strip_gps=True)
    except Malformed:
        return
    assert len(result) <= len(block)
    assert exif_of_result(result, SIZE, strip_gps=True) == result


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "avif", "tiff"])
@pytest.mark.parametrize("policy", ["keep", "strip-gps", "strip"])
def test_files_carry_the_metadata_of_their_input(tmp_path: Path, format: str, policy: str) -> None:
    source = io.BytesIO()
    exif = b"Exif\0\0" + camera_exif(big_endian=True)
    Image.new("RGB", (30, 40), (10, 200, 30)).save(source, "JPEG", exif=exif, xmp=XMP)
    picture = codec.decode(source.getvalue())
    assert picture.size == (40, 30)

    target = tmp_path / f"result.{format}"
    pixels = np.zeros((60, 80, 3), np.uint8)
    how = codec.Encoding(format=format, exif=picture.exif, xmp=picture.xmp, metadata=policy)
    assert codec.encode(pixels, target, how) == ()
    image = Image.open(target)
    image.load()
    found = image.getexif()
    below = found.get_ifd(EXIF_IFD)
    again = codec.decode(target.read_bytes())

    assert image.size == again.size == (80, 60)
    assert found.get(0x010F) == (None if policy == "strip" else "Maker")
    assert found.get(0x0112, 1) == 1
    assert below.get(0x9003) == (None if policy == "strip" else "2020:01:02 03:04:05")
    if policy != "strip":
        assert (below[0xA002], below[0xA003]) == (80, 60)
    assert (found.get_ifd(GPS_IFD).get(1) == "N") == (policy == "keep")
    assert (b"<xmp:Rating>5" in again.xmp) == (policy != "strip")
    assert (b"GPSLatitude" in again.xmp) == (policy == "keep")
    assert (b"Maker" in again.exif) == (policy != "strip")


def test_a_huge_tiff_carries_metadata_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BIG_TIFF_BYTES", 1)
    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    target = tmp_path / "result.tiff"
    codec.encode(pixels, target, codec.Encoding(format="tiff", exif=camera_exif(big_endian=True)))
    with tifffile.TiffFile(target) as file:
        tags = file.pages.first.tags
        assert file.is_bigtiff
        assert tags["Make"].value == "Maker"
        assert tags["ExifTag"].value["DateTimeOriginal"] == "2020:01:02 03:04:05"
        assert tags["GPSTag"].value["GPSLatitude"] == (48, 1, 51, 1, 29, 1)
        assert np.array_equal(file.pages.first.asarray(), pixels)


def test_values_that_overlap_are_no_way_to_fill_the_memory() -> None:
    many = 2_000
    entries = b"".join(struct.pack("<HHII", 0x9000 + at, 7, 20_000, 8) for at in range(many))
    bomb = b"II*\0" + struct.pack("<IH", 8, many) + entries + bytes(4)
    assert carried(bomb, b"", SIZE, "keep").exif == b""
    with pytest.raises(Malformed):
        add_exif(io.BytesIO(camera_exif(big_endian=False)), bomb)


def test_a_block_too_long_for_jpeg_is_dropped_and_said(tmp_path: Path) -> None:
    long_xmp = XMP.replace(b"SMALL", b"").replace(b"Maker", b"M" * 70_000)
    how = codec.Encoding(format="jpeg", xmp=long_xmp)
    notes = codec.encode(np.zeros((8, 8, 3), np.uint8), tmp_path / "result.jpg", how)
    assert any("XMP" in note and "dropped" in note for note in notes)
    assert codec.decode((tmp_path / "result.jpg").read_bytes()).xmp == b""
