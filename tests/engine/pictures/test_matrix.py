"""Every mode × orientation × profile × format is read as an independent reader reads it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import tifffile
from PIL import Image

from enlarger.engine.pictures import codec
from enlarger.errors import InvalidPicture

WIDTH, HEIGHT = 7, 5

# How stored pixels become upright ones, by EXIF orientation (CIPA DC-008, tag 0x0112).
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


def samples(channels: int, dtype: type = np.uint8) -> np.ndarray:
    """Pixels that no rotation or reflection leaves alike."""
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(channels).integers(0, top, (HEIGHT, WIDTH, channels), dtype, endpoint=True)
    pixels[0, 0], pixels[0, 1] = 0, top  # the ends of the range
    return pixels


def palette(*, transparent: bool) -> Image.Image:
    image = Image.fromarray((samples(1)[:, :, 0] % 9).astype(np.uint8), "L")
    image = image.convert("P")
    image.putpalette([value for colour in range(9) for value in (colour * 28, 255 - colour, colour * 7)])
    if transparent:
        image.info["transparency"] = 3
    return image


PILLOW_IMAGES: dict[str, Callable[[], Image.Image]] = {
    "1": lambda: Image.fromarray(samples(1)[:, :, 0] > 127),
    "L": lambda: Image.fromarray(samples(1)[:, :, 0]),
    "LA": lambda: Image.fromarray(samples(2), "LA"),
    "P": lambda: palette(transparent=False),
    "P+transparency": lambda: palette(transparent=True),
    "RGB": lambda: Image.fromarray(samples(3)),
    "RGBA": lambda: Image.fromarray(samples(4)),
    "CMYK": lambda: Image.fromarray(samples(4), "CMYK"),
}
READ_AS = {"1": "L", "L": "L", "LA": "LA", "P": "RGB", "P+transparency": "RGBA", "RGB": "RGB", "RGBA": "RGBA"}
DEEP = {"I;16": 1, "LA16": 2, "RGB16": 3, "RGBA16": 4}


@dataclass(frozen=True)
class Written:
    """A file, and its stored pixels as its own writer's library sees them."""

    data: bytes
    pixels: np.ndarray
    tolerance: int = 0


@dataclass(frozen=True)
class Maker:
    """How files of a format are made, which modes it holds, and whether it holds orientation and profile."""

    modes: tuple[str, ...]
    make: Callable[..., Written]
    oriented: bool = True
    profiled: bool = True


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def as_array(image: Image.Image, mode: str) -> np.ndarray:
    array = np.asarray(image.convert(mode))
    return array.reshape(*array.shape[:2], -1)


def by_pillow(format: str, **options: object) -> Callable[..., Written]:
    def make(mode: str, orientation: int, icc: bytes, **_: object) -> Written:
        image = PILLOW_IMAGES[mode]()
        given = dict(options)
        if icc:
            given["icc_profile"] = icc
        if orientation != 1:
            given["exif"] = exif_of(orientation)
        if mode == "P+transparency":
            given["transparency"] = 3
        file = io.BytesIO()
        image.save(file, format, **given)
        lossy = format in ("JPEG", "AVIF")
        # What a lossy format made of it, another build of its decoder tells. AVIF comes out of it upright.
        read = Image.open(file) if format == "JPEG" else image
        return Written(file.getvalue(), as_array(read, READ_AS[mode]), 3 if lossy else 0)

    return make


def png(mode: str, orientation: int, icc: bytes, *, png_file: Callable[..., bytes]) -> Written:
    if mode not in DEEP:
        return by_pillow("PNG", **({"bits": 4} if mode.startswith("P") else {}))(mode, orientation, icc)
    pixels = samples(DEEP[mode], np.uint16)
    return Written(png_file(pixels, exif=exif_of(orientation), icc=icc), pixels)


def tiff(mode: str, orientation: int, icc: bytes, **_: object) -> Written:
    tags = [(274, 3, 1, orientation, True)]
    if icc:
        tags.append((34675, 7, len(icc), icc, True))
    file = io.BytesIO()
    if mode in ("1", "P"):
        image = PILLOW_IMAGES[mode]()
        image.save(file, "TIFF", tiffinfo={274: orientation}, **({"icc_profile": icc} if icc else {}))
        return Written(file.getvalue(), as_array(image, READ_AS[mode]))
    pixels = samples(DEEP[mode], np.uint16) if mode in DEEP else as_array(PILLOW_IMAGES[mode](), mode)
    tifffile.imwrite(
        file,
        pixels if pixels.shape[2] > 1 else pixels[:, :, 0],
        photometric="rgb" if pixels.shape[2] >= 3 else "minisblack",
        planarconfig="contig" if pixels.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if pixels.shape[2] in (2, 4) else None,
        compression="zlib",
        extratags=tags,
        metadata=None,
    )
    return Written(file.getvalue(), pixels)


def apng(mode: str, orientation: int, icc: bytes, **_: object) -> Written:
    image = PILLOW_IMAGES[mode]()
    second = image.point(lambda level: (level + 1) % 9 if image.mode == "P" else 255 - level)
    made = by_pillow("PNG", save_all=True, append_images=[second], duration=40)
    return Written(made(mode, orientation, icc).data, as_array(image, "RGBA"))


ALL = ("1", "L", "LA", "P", "P+transparency", "RGB", "RGBA")
MAKERS = {
    "png": Maker((*ALL, *DEEP), png),
    "tiff": Maker(("1", "L", "LA", "P", "RGB", "RGBA", *DEEP), tiff),
    "jpeg": Maker(("L", "RGB"), by_pillow("JPEG", quality=100, subsampling=0)),
    "webp": Maker(("RGB", "RGBA"), by_pillow("WEBP", lossless=True, exact=True)),
    "avif": Maker(("L", "RGB", "RGBA"), by_pillow("AVIF", quality=100, subsampling="4:4:4")),
    "gif": Maker(("L", "P", "P+transparency"), by_pillow("GIF"), oriented=False, profiled=False),
    "bmp": Maker(("1", "L", "P", "RGB"), by_pillow("BMP"), oriented=False, profiled=False),
    "apng": Maker(ALL, apng),
}
ROWS = [
    pytest.param(format, mode, orientation, id=f"{format}-{mode}-{orientation}")
    for format, maker in MAKERS.items()
    for mode in maker.modes
    for orientation in (UPRIGHT if maker.oriented else (1,))
]


@pytest.mark.parametrize(("format", "mode", "orientation"), ROWS)
def test_every_mode_is_read_as_it_was_written(
    format: str,
    mode: str,
    orientation: int,
    profiles: dict[str, bytes],
    png_file: Callable[..., bytes],
) -> None:
    maker = MAKERS[format]
    for name in ("none", "srgb", "wide", "gray") if maker.profiled else ("none",):
        written = maker.make(mode, orientation, profiles[name], png_file=png_file)
        header, picture = codec.probe(written.data), codec.decode(written.data, frame=0)
        expected = UPRIGHT[orientation](as_channels(written.pixels, header.colours, picture.channels))
        pixels = picture.rows(0, picture.size.height)

        assert (header.format, picture.format) == (format, format)
        assert header.size == picture.size == expected.shape[1::-1]
        assert (header.colours, header.has_alpha, header.depth) == (
            picture.colours,
            picture.has_alpha,
            picture.depth,
        )
        assert picture.depth == (16 if mode in DEEP else 8)
        assert pixels.dtype == expected.dtype
        assert_alike(format, pixels, expected, written.tolerance)
        # A profile for other channels than the picture has cannot be right, and some readers drop it silently.
        fitting = name != "none" and (name == "gray") == (picture.colours == 1)
        assert picture.icc == (profiles[name] if fitting else b"")


def as_channels(pixels: np.ndarray, colours: int, channels: int) -> np.ndarray:
    """Gray as RGB where a format knows no gray; an opaque alpha where the reader gives one."""
    gray = pixels.shape[2] <= 2
    assert not (colours == 1 and not gray), "colour was read as gray"
    colour = pixels[:, :, :1] if gray else pixels[:, :, :3]
    parts = [np.repeat(colour, colours // colour.shape[2], axis=2)]
    if pixels.shape[2] in (2, 4) and (channels > colours or pixels[:, :, -1].min() < 255):
        parts.append(pixels[:, :, -1:])
    return np.concatenate(parts, axis=2)


def assert_alike(format: str, pixels: np.ndarray, expected: np.ndarray, tolerance: int) -> None:
    wrong = np.abs(pixels.astype(int) - expected)
    if format in ("gif", "avif") and expected.shape[2] == 4:
        assert wrong[:, :, 3].max() == 0
        wrong = wrong[expected[:, :, 3] > 0]  # they do not store what cannot be seen
    assert wrong.max(initial=0) <= tolerance


def jpeg_of_four_inks(*, ycck: bool, icc: bytes, orientation: int = 1) -> bytes:
    """Inks as Photoshop stores them, inverted. The last byte of Adobe's marker says whether it is YCCK."""
    image = Image.fromarray(samples(4).repeat(16, 0).repeat(16, 1), "CMYK")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=100, subsampling=0, icc_profile=icc, exif=exif_of(orientation))
    data = bytearray(file.getvalue())
    data[data.index(b"Adobe") + 11] = 2 if ycck else 0
    return bytes(data)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["CMYK jpeg", "YCCK jpeg", "CMYK tiff", "CMYK tiff of 16 bits"])
def test_inks_become_srgb_through_their_own_profile(
    kind: str, orientation: int, profiles: dict[str, bytes], to_srgb: Callable[..., np.ndarray]
) -> None:
    icc = profiles["cmyk"]
    if "jpeg" in kind:
        data = jpeg_of_four_inks(ycck="YCCK" in kind, icc=icc, orientation=orientation)
        inks = Image.open(io.BytesIO(data))
    else:
        inks = PILLOW_IMAGES["CMYK"]()
        deep = "16" in kind
        file, stored = io.BytesIO(), np.asarray(inks)
        tags = [(274, 3, 1, orientation, True), (34675, 7, len(icc), icc, True)]
        stored = stored.astype(np.uint16) * 257 if deep else stored
        tifffile.imwrite(file, stored, photometric="separated", extratags=tags)
        data = file.getvalue()
    picture = codec.decode(data)
    expected = UPRIGHT[orientation](to_srgb(inks, icc)).astype(int)
    pixels = picture.rows(0, picture.size.height) / (257 if picture.depth == 16 else 1)

    assert picture.size == expected.shape[1::-1]
    assert picture.depth == (16 if "16" in kind else 8)
    assert np.abs(pixels - expected).max() <= 3
    assert any("embedded profile" in note for note in picture.notes)
    # The result is tagged as what it now is.
    assert np.abs(to_srgb(Image.fromarray(samples(3)), picture.icc).astype(int) - samples(3)).max() <= 1


@pytest.mark.parametrize("name", ["none", "wide", "broken"])
def test_inks_without_a_usable_profile_become_srgb_through_a_generic_one(
    name: str, profiles: dict[str, bytes]
) -> None:
    icc = profiles["cmyk"][:200] if name == "broken" else profiles[name]
    file = io.BytesIO()
    Image.fromarray(np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [255, 0, 0, 0]]], np.uint8), "CMYK").save(
        file, "TIFF", icc_profile=icc
    )
    picture = codec.decode(file.getvalue())
    paper, ink, cyan = picture.rows(0, 1)[0].astype(int)
    assert paper.min() >= 250
    assert ink.max() <= 60
    assert cyan[0] < 40 < 120 < cyan[2]
    assert any("generic profile" in note for note in picture.notes)


@pytest.mark.parametrize(("format", "mode"), [(f, m) for f, maker in MAKERS.items() for m in maker.modes])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_the_smallest_and_thinnest_pictures_are_read(
    format: str, mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch, png_file: Callable
) -> None:
    def thin(channels: int, dtype: type = np.uint8) -> np.ndarray:
        return np.full((size[1], size[0], channels), 200, dtype)

    monkeypatch.setitem(globals(), "samples", thin)
    written = MAKERS[format].make(mode, 1, b"", png_file=png_file)
    picture = codec.decode(written.data, frame=0)
    expected = as_channels(written.pixels, picture.colours, picture.channels)
    assert picture.size == size
    assert_alike(format, picture.rows(0, size[1]), expected, written.tolerance)


@pytest.mark.parametrize("format", MAKERS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
def test_a_truncated_file_is_refused(
    format: str, share: float, monkeypatch: pytest.MonkeyPatch, png_file: Callable[..., bytes]
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 4), np.uint8)
    monkeypatch.setitem(globals(), "samples", lambda channels: noise[:, :, :channels])
    whole = MAKERS[format].make("RGB" if format != "gif" else "L", 1, b"", png_file=png_file).data
    with pytest.raises(InvalidPicture):
        read_wholly(whole[: int(len(whole) * share)])


def read_wholly(data: bytes) -> None:
    for frame in codec.decode_animation(data).frames:
        frame.rows(0, frame.size.height)
