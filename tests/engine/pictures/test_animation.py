"""Animations: every frame whole, with its time, in and out; Pillow is the other reader and writer."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.pictures import codec
from enlarger.errors import InvalidOption, UnsupportedFormat

DELAYS = (50, 120, 80)


def frames(*, few_colours: bool = False) -> list[np.ndarray]:
    """RGBA frames; the later ones change a part only, so that writers store differences."""
    base = np.random.default_rng(5).integers(0, 4 if few_colours else 256, (12, 10, 4), np.uint8)
    if few_colours:
        base *= 80
    base[:, :, 3] = 255
    base[:3, :3] = 0  # a transparent corner
    second, third = base.copy(), base.copy()
    second[4:7, 2:6] = (250, 0, 0, 255)
    third[8:10, 5:9] = (0, 0, 250, 255)
    return [base, second, third]


def animated(format: str, *, loop: int = 2, **options: object) -> bytes:
    images = [Image.fromarray(frame) for frame in frames(few_colours=format == "GIF")]
    file = io.BytesIO()
    images[0].save(
        file, format, save_all=True, append_images=images[1:], duration=list(DELAYS), loop=loop, **options
    )
    return file.getvalue()


def as_seen(pixels: np.ndarray) -> np.ndarray:
    """RGBA with the colour of what cannot be seen set to zero."""
    if pixels.shape[2] == 3:
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    return np.where(pixels[:, :, 3:] > 0, pixels, 0)


def shown_by_pillow(data: bytes) -> tuple[list[np.ndarray], list[int]]:
    image = Image.open(io.BytesIO(data))
    pictures, delays = [], []
    for index in range(image.n_frames):
        image.seek(index)
        image.load()
        pictures.append(as_seen(np.asarray(image.convert("RGBA"))))
        delays.append(round(image.info["duration"]))
    return pictures, delays


def opaque_gif() -> bytes:
    images = [Image.fromarray(frame[:, :, :3]) for frame in frames(few_colours=True)]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=list(DELAYS), loop=2)
    return file.getvalue()


SOURCES = {
    "gif without transparency": opaque_gif,
    "gif": lambda: animated("GIF"),
    "gif that restores its background": lambda: animated("GIF", disposal=2),
    "webp": lambda: animated("WEBP", lossless=True),
    "apng": lambda: animated("PNG"),
    "apng with a still before it": lambda: animated("PNG", default_image=True),
    "apng that restores what was before": lambda: animated("PNG", disposal=2, blend=1),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_is_whole_and_keeps_its_time(name: str) -> None:
    data = SOURCES[name]()
    pictures, _ = shown_by_pillow(data) if "still" not in name else (frames()[1:], [])
    header, animation = codec.probe(data), codec.decode_animation(data)
    assert header.frames == len(animation.frames) == len(pictures)
    # A still before the animation is no frame of it: the first delay belongs to the second picture.
    assert animation.delays_ms == (DELAYS if "still" not in name else DELAYS[:2])
    # GIF counts repetitions, the others how often the whole is played.
    assert animation.loop == (3 if name.startswith("gif") else 2)
    for frame, expected in zip(animation.frames, pictures, strict=True):
        assert (frame.size, frame.colours, frame.has_alpha) == (header.size, header.colours, header.has_alpha)
        assert np.array_equal(as_seen(frame.rows(0, 12)), as_seen(expected))


@pytest.mark.parametrize("name", ["gif", "webp", "apng"])
def test_frames_may_be_read_in_any_order_and_in_bands(name: str) -> None:
    animation = codec.decode_animation(SOURCES[name]())
    forward = [frame.rows(0, 12) for frame in animation.frames]
    for index in (2, 0, 1):
        assert np.array_equal(animation.frames[index].rows(5, 9), forward[index][5:9])


@pytest.mark.parametrize("name", ["gif", "webp", "apng"])
def test_one_frame_of_an_animation_has_to_be_chosen(name: str) -> None:
    data = SOURCES[name]()
    with pytest.raises(UnsupportedFormat, match="3 frames"):
        codec.decode(data)
    with pytest.raises(InvalidOption, match="from 0 to 2"):
        codec.decode(data, frame=3)
    pictures, _ = shown_by_pillow(data)
    for index, expected in enumerate(pictures):
        picture = codec.decode(data, frame=index)
        assert picture.has_alpha == codec.probe(data).has_alpha
        assert np.array_equal(as_seen(picture.rows(0, 12)), expected)


def test_a_still_picture_is_an_animation_of_one_frame() -> None:
    file = io.BytesIO()
    Image.new("RGB", (3, 2)).save(file, "PNG")
    assert len(codec.decode_animation(file.getvalue()).frames) == 1


@pytest.mark.parametrize("format", ["webp", "gif"])
def test_timing_and_frames_survive_writing(tmp_path: Path, format: str) -> None:
    source = frames(few_colours=True)
    target = tmp_path / "result"
    how = codec.Encoding(format=format, lossless=format == "webp")
    codec.encode_animation(source, DELAYS, 4, target, how)
    pictures, delays = shown_by_pillow(target.read_bytes())
    assert tuple(delays) == DELAYS
    assert codec.decode_animation(target.read_bytes()).loop == 4
    for seen, given in zip(pictures, source, strict=True):
        assert np.abs(seen.astype(int) - as_seen(given)).max() <= (0 if format == "webp" else 16)


def test_an_animated_png_of_16_bits_is_read_with_8_and_says_so() -> None:
    deep = (np.random.default_rng(6).integers(0, 256, (12, 10)) * 257).astype(np.uint16)
    file = io.BytesIO()
    Image.fromarray(deep).save(file, "PNG", save_all=True, append_images=[Image.fromarray(deep[::-1])])
    first, second = codec.decode_animation(file.getvalue()).frames
    assert any("16 bits a sample read with 8" in note for note in first.notes)
    assert np.abs(first.rows(0, 12)[:, :, 0].astype(int) - deep // 257).max() <= 1
    assert np.array_equal(second.rows(0, 12), first.rows(0, 12)[::-1])


@pytest.mark.parametrize("count", [2, 3])
def test_frames_that_are_alike_keep_their_time(tmp_path: Path, count: int) -> None:
    target = tmp_path / "result"
    same = [frames(few_colours=True)[0]] * count
    codec.encode_animation(same, [70] * count, 0, target, codec.Encoding(format="gif"))
    assert shown_by_pillow(target.read_bytes())[1] == [70] * count


def test_gif_says_what_it_cannot_hold(tmp_path: Path) -> None:
    notes = codec.encode_animation(frames(), (33, 40, 50), 0, tmp_path / "a", codec.Encoding(format="gif"))
    assert any("10 ms" in note for note in notes)
    assert any("opaque or transparent" in note for note in notes)


@pytest.mark.parametrize("format", ["png", "jpeg", "avif", "tiff"])
def test_formats_without_animation_refuse_one(tmp_path: Path, format: str) -> None:
    with pytest.raises(InvalidOption, match="webp"):
        codec.encode_animation(frames(), DELAYS, 0, tmp_path / "a", codec.Encoding(format=format))
