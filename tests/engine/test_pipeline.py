from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.geometry import Size, target_size
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.options import Options
from enlarger.engine.pictures import picture as picture_module
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine
from enlarger.engine.plan import Limits
from enlarger.engine.runtime.openvino import OpenVino
from enlarger.engine.tiles import Watch
from enlarger.errors import (
    Cancelled,
    EnlargerError,
    InvalidPicture,
    PictureTooLarge,
    RuntimeUnavailable,
)

Scene = Callable[..., np.ndarray]
Encoded = Callable[..., bytes]

COMPACT = "realesr-animevideov3"


def lanczos(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pillow's resize of one 8-bit plane, in floats; its 8-bit one also rounds between rows and columns."""
    floats = Image.fromarray(plane.astype(np.float32), "F").resize(size, Image.Resampling.LANCZOS)
    return np.clip(np.rint(np.asarray(floats)), 0, 255).astype(int)


def quick(**changes: object) -> Options:
    return Options(**{"model": COMPACT, "precision": "f32", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [5e-324, 0.01, 0.3, 0.5, 1, 1.145, 2, 2.5, 3.999, 4, 4.001, 7.3, 9.99, 10])
def test_any_scale_gives_the_exact_size(scale: float, engine: Engine, scene: Scene) -> None:
    result = engine.upscale(Picture.from_array(scene(23, 17)), quick(scale=scale))
    assert result.size == target_size(Size(23, 17), scale)
    assert result.pixels.shape == (result.size.height, result.size.width, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 1), (3, 2)])
@pytest.mark.parametrize("scale", [0.5, 2.5, 4])
def test_the_smallest_pictures_work(
    size: tuple[int, int], scale: float, engine: Engine, scene: Scene
) -> None:
    result = engine.upscale(Picture.from_array(scene(*size)), quick(scale=scale))
    assert result.size == target_size(Size(*size), scale)


def test_half_the_native_factor_is_the_native_result_resized(engine: Engine, scene: Scene) -> None:
    pixels = scene(48, 40)
    native = engine.upscale(Picture.from_array(pixels), quick(scale=4)).pixels
    half = engine.upscale(Picture.from_array(pixels), quick(scale=2)).pixels
    for channel in range(3):
        wanted = lanczos(native[:, :, channel], (96, 80))
        assert np.abs(half[:, :, channel] - wanted).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [1.5, 4])
def test_channels_stay_what_they_were(
    channels: int, scale: float, engine: Engine, scene: Scene, encoded: Encoded
) -> None:
    pixels = scene(31, 21, channels)
    result = engine.upscale(encoded(pixels), quick(scale=scale))
    assert result.pixels.shape[2] == channels
    assert result.pixels.dtype == np.uint8
    small = np.asarray(Image.fromarray(result.pixels[:, :, 0]).resize((31, 21), Image.Resampling.BOX))
    assert np.corrcoef(small.ravel(), pixels[:, :, 0].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_is_resized_apart_from_colour(channels: int, engine: Engine, scene: Scene) -> None:
    pixels = scene(33, 29, channels)
    opaque = engine.upscale(Picture.from_array(pixels[:, :, :-1]), quick(scale=2.5)).pixels
    result = engine.upscale(Picture.from_array(pixels), quick(scale=2.5)).pixels
    np.testing.assert_array_equal(result[:, :, :-1], opaque)
    assert np.abs(result[:, :, -1] - lanczos(pixels[:, :, -1], (83, 73))).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 255])
def test_an_even_alpha_stays_even(level: int, engine: Engine, scene: Scene) -> None:
    pixels = scene(33, 29, 4)
    pixels[:, :, 3] = level
    result = engine.upscale(Picture.from_array(pixels), quick(scale=3.3))
    assert set(np.unique(result.pixels[:, :, 3])) == {level}


def test_a_gray_picture_is_the_luma_of_its_rgb_copy(engine: Engine, scene: Scene) -> None:
    gray = scene(60, 40, 1)
    one = engine.upscale(Picture.from_array(gray), quick()).pixels[:, :, 0]
    copy = gray.repeat(3, axis=2)
    copy[0, 0, 2] ^= 1  # one coloured pixel: without it the copy would be computed as gray too
    three = engine.upscale(Picture.from_array(copy), quick()).pixels
    luma = np.asarray(Image.fromarray(three).convert("L"))
    reach = 4 * MODELS[COMPACT].overlap_exact
    assert np.ptp(three.astype(int), axis=2).max() > 0
    assert np.abs(one.astype(int) - luma)[reach:, reach:].max() <= 1


GRAY_FILES = {
    "png": ("PNG", "L", {}),
    "png of gray and alpha": ("PNG", "LA", {}),
    "png of two colours": ("PNG", "1", {}),
    "png with a palette": ("PNG", "P", {}),
    "png of rgb": ("PNG", "RGB", {}),
    "png of rgb and alpha": ("PNG", "RGBA", {}),
    "jpeg": ("JPEG", "L", {"quality": 90}),
    "jpeg of rgb": ("JPEG", "RGB", {"quality": 90}),
    "webp": ("WEBP", "RGB", {"lossless": True}),
    "lossy webp": ("WEBP", "RGB", {"quality": 90}),
    "avif": ("AVIF", "L", {}),
    "tiff": ("TIFF", "L", {}),
    "tiff of rgb": ("TIFF", "RGB", {}),
    "gif": ("GIF", "L", {}),
    "bmp": ("BMP", "RGB", {}),
}


@pytest.mark.parametrize("name", GRAY_FILES)
def test_gray_in_is_gray_out_exactly_in_every_format(
    name: str, engine: Engine, scene: Scene, tmp_path: Path
) -> None:
    format, mode, how = GRAY_FILES[name]
    file = BytesIO()
    gray = Image.fromarray(scene(24, 18, 1)[:, :, 0])
    gray.convert(mode).save(file, format, **how)
    result = engine.upscale(file.getvalue(), quick(scale=1.5))
    for written in ("png", "jpeg", "webp", "avif", "tiff", "gif"):
        result.save(tmp_path / f"out.{written}")
        with Image.open(tmp_path / f"out.{written}") as image:
            pixels = np.asarray(image.convert("RGBA")).astype(int)
        # The decoder of lossy WebP rounds gray to RGB within one level.
        assert np.ptp(pixels[:, :, :3], axis=2).max() <= (written == "webp"), written
    small = np.asarray(Image.fromarray(result.pixels[:, :, 0]).resize((24, 18), Image.Resampling.BOX))
    assert np.corrcoef(small.ravel(), np.asarray(gray.convert(mode).convert("L")).ravel())[0, 1] > 0.9


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_kept_as_rgb_is_what_one_channel_would_be(
    channels: int, dtype: type, engine: Engine, scene: Scene
) -> None:
    gray = scene(30, 20, 1).astype(dtype)
    alpha = [scene(30, 20, 1).astype(dtype)] if channels == 4 else []
    for options in ({"scale": 2}, {"scale": 2.5, "strength": 0.6, "colour_lock": True}, {"strength": 0.0}):
        one = engine.upscale(Picture.from_array(np.concatenate([gray, *alpha], 2)), quick(**options))
        many = engine.upscale(Picture.from_array(np.concatenate([gray] * 3 + alpha, 2)), quick(**options))
        assert many.pixels.dtype == dtype
        for channel in range(3):
            np.testing.assert_array_equal(many.pixels[:, :, channel], one.pixels[:, :, 0])
        np.testing.assert_array_equal(many.pixels[:, :, 3:], one.pixels[:, :, 1:])
        told = [note for note in many.report["conversions"] if "as gray" in note]
        assert len(told) == (options.get("strength") != 0)
        assert one.report["conversions"] == []


def test_sixteen_bits_in_are_sixteen_bits_out(engine: Engine, scene: Scene) -> None:
    eight = scene(40, 30)
    fine = engine.upscale(Picture.from_array(eight.astype(np.uint16) * 257), quick(scale=3))
    assert fine.pixels.dtype == np.uint16
    assert len(np.unique(fine.pixels)) > 1000
    coarse = engine.upscale(Picture.from_array(eight), quick(scale=3)).pixels
    assert np.abs(fine.pixels / 257 - coarse).max() <= 3  # the coarse one was rounded before its resize


def test_the_file_has_the_format_size_and_profile_asked_for(
    engine: Engine, scene: Scene, encoded: Encoded, tmp_path: Path
) -> None:
    data = encoded(scene(20, 10), icc_profile=b"")
    for format, kind in (("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")):
        engine.upscale(data, quick(scale=2.5, output_format=format)).save(tmp_path / "out")
        image = Image.open(BytesIO((tmp_path / "out").read_bytes()))
        assert (image.format, image.size) == (kind, (50, 25))


def test_the_same_input_gives_the_same_bytes_in_any_engine(
    engine: Engine, scene: Scene, encoded: Encoded, tmp_path: Path
) -> None:
    data, files = encoded(scene(47, 31, 4)), []
    for one in (engine, engine, Engine()):
        one.upscale(data, Options(model=COMPACT, scale=2.7)).save(tmp_path / "out.png")
        files.append((tmp_path / "out.png").read_bytes())
    assert files[0] == files[1] == files[2]


def test_a_canvas_in_a_mapped_file_gives_the_same_pixels(
    engine: Engine, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = scene(47, 31, 4)
    in_memory = engine.upscale(Picture.from_array(pixels), quick(scale=2.7))
    monkeypatch.setattr(picture_module, "IN_MEMORY_BYTES", 0)
    mapped = Engine(scratch=tmp_path).upscale(Picture.from_array(pixels), quick(scale=2.7))
    assert isinstance(mapped.pixels, np.memmap)
    for result, name in ((in_memory, "memory.png"), (mapped, "mapped.png")):
        result.save(tmp_path / name)
    assert (tmp_path / "memory.png").read_bytes() == (tmp_path / "mapped.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"memory.png", "mapped.png"}


def test_the_report_says_what_was_done(
    engine: Engine, scene: Scene, encoded: Encoded, tmp_path: Path
) -> None:
    work = engine.prepare(encoded(scene(40, 30)), quick(scale=2.5))
    result = engine.compute(work)
    result.save(tmp_path / "out.png")
    timings = result.report.pop("timings_ms")
    assert set(timings) == {"decode", "load", "prepare", "network", "resize", "encode"}
    assert all(milliseconds >= 0 for milliseconds in timings.values())
    assert result.report == {
        "engine": version("enlarger"),
        "fingerprint": work.fingerprint,
        "model": COMPACT,
        "weights_sha256": MODELS[COMPACT].files[-1].sha256,
        "runtime": "openvino",
        "device": "cpu",
        "precision": "f32",
        "input": [40, 30],
        "output": [100, 75],
        "depth": 8,
        "passes": 1,
        "tile_mode": "fast",
        "tiles": 1,
        "window": [40, 30],
        "overlap": 0,
        "work_ratio": 1.0,
        "strength": 1.0,
        "colour_lock": False,
        "faces": None,
        "choices": [],
        "conversions": [],
        "fallbacks": [],
        "resumed": None,
    }


def test_the_report_tells_of_tiles(scene: Scene) -> None:
    small = Engine(max_tile_pixels=60 * 60)
    report = small.upscale(Picture.from_array(scene(120, 90)), quick()).report
    (plan,) = small.plan(Size(120, 90), quick()).passes
    assert (report["tiles"], report["window"]) == (plan.tiles, list(plan.window))
    assert report["tiles"] >= 4
    assert report["overlap"] == MODELS[COMPACT].overlap_fast
    assert report["work_ratio"] == pytest.approx(plan.work_ratio, abs=1e-4)
    assert report["work_ratio"] > 1


def test_a_plan_depends_on_size_options_and_engine_only() -> None:
    size, options = Size(2560, 1440), Options(precision="f32")
    assert Engine().plan(size, options) == Engine().plan(size, options)
    exact = Engine().plan(size, Options(precision="f32", tile_mode="exact"))
    assert exact.passes[0].overlap == 96
    assert exact.passes != Engine().plan(size, options).passes


def test_progress_rises_to_the_whole(scene: Scene) -> None:
    seen: list[tuple[int, int]] = []
    Engine(max_tile_pixels=60 * 60).upscale(
        Picture.from_array(scene(120, 90)),
        quick(),
        watch=Watch(finished=lambda tile: seen.append((tile.done, tile.total))),
    )
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) >= 4
    assert seen[-1] == (120 * 90, 120 * 90)


def test_cancelled_between_tiles_nothing_more_is_computed(scene: Scene) -> None:
    seen: list[int] = []
    small = Engine(max_tile_pixels=60 * 60)
    pixels = Picture.from_array(scene(120, 90))
    watch = Watch(finished=lambda tile: seen.append(tile.done), cancelled=lambda: len(seen) == 1)
    with pytest.raises(Cancelled):
        small.upscale(pixels, quick(), watch=watch)
    assert len(seen) == 1
    assert small.upscale(pixels, quick()).size == (480, 360)


@pytest.mark.parametrize(
    ("limits", "scale", "said"),
    [
        (Limits(max_input_pixels=99), 1, r"the picture is 10×10, 0\.0 megapixels; the limit is"),
        (Limits(max_input_pixels=10_000, max_output_pixels=399), 2, r"the result is 20×20"),
    ],
)
def test_limits_are_refused_with_their_numbers(
    limits: Limits, scale: float, said: str, scene: Scene, encoded: Encoded
) -> None:
    for picture in (encoded(scene(10, 10)), Picture.from_array(scene(10, 10))):
        with pytest.raises(PictureTooLarge, match=said):
            Engine(limits=limits).upscale(picture, quick(scale=scale))
    exactly = Limits(max_input_pixels=100, max_output_pixels=400)
    assert Engine(limits=exactly).upscale(encoded(scene(10, 10)), quick(scale=2)).size == (20, 20)


def test_a_giant_header_is_refused_before_a_pixel_is_decoded(engine: Engine, encoded: Encoded) -> None:
    data = bytearray(encoded(np.zeros((50, 50), np.uint8)))
    data[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height of the first chunk
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    # Decoding first would say that the file is incomplete.
    with pytest.raises(PictureTooLarge, match=r"60000×60000, 3600\.0 megapixels; the limit is 64;"):
        engine.upscale(bytes(data), quick())


@pytest.mark.parametrize(("format", "longest"), [("webp", 16_383), ("jpeg", 65_500)])
def test_a_result_its_format_cannot_hold_is_refused_before_it_is_computed(
    format: str, longest: int, engine: Engine
) -> None:
    width = longest // 10 + 1
    with pytest.raises(PictureTooLarge, match=f"does not fit into {format}, whose longest side is {longest}"):
        engine.plan(Size(width, 1), quick(scale=10, output_format=format))
    engine.plan(Size(width, 1), quick(scale=10, output_format="png"))


def test_damaged_bytes_are_an_invalid_picture_and_never_a_result(
    engine: Engine, scene: Scene, encoded: Encoded
) -> None:
    for format in ("PNG", "JPEG", "WEBP"):
        data = encoded(scene(60, 50), format)
        with pytest.raises(InvalidPicture):
            engine.upscale(data[: len(data) * 3 // 4], quick())


def test_threads_take_turns_and_get_their_own_results(scene: Scene) -> None:
    shared = Engine()
    pictures = [Picture.from_array(scene(30 + n, 20)) for n in range(4)]
    results: dict[int, np.ndarray] = {}

    def work(n: int) -> None:
        results[n] = shared.upscale(pictures[n], quick(scale=2)).pixels

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, picture in enumerate(pictures):
        np.testing.assert_array_equal(results[n], shared.upscale(picture, quick(scale=2)).pixels)


def test_a_closed_engine_loads_again(scene: Scene) -> None:
    one = Engine()
    before = one.upscale(Picture.from_array(scene(20, 20)), quick()).pixels
    one.close()
    np.testing.assert_array_equal(one.upscale(Picture.from_array(scene(20, 20)), quick()).pixels, before)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Engine(device="tpu"), "tpu"),
        (lambda: Engine(runtime="abacus").plan(Size(1, 1), Options()), "no runtime 'abacus'; choose one of"),
    ],
)
def test_what_this_machine_cannot_run_is_refused(made: Callable[[], object], said: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=said):
        made()


def test_a_precision_is_what_was_asked_or_an_error(engine: Engine) -> None:
    able = OpenVino().precisions()
    for precision in ("f32", "bf16"):
        options = quick(precision=precision)
        if precision in able:
            assert engine.plan(Size(8, 8), options).precision == precision
        else:
            with pytest.raises(RuntimeUnavailable, match=f"not in {precision}; use precision=auto"):
                engine.plan(Size(8, 8), options)
    assert Engine(runtime="openvino").plan(Size(8, 8), quick(precision="auto")).precision == able[0]
    assert issubclass(RuntimeUnavailable, EnlargerError)
