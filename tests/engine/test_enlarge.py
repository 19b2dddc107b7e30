"""enlarge(): what becomes of depth, gray, alpha, strength, passes and crops.

A compact net with zero weights is exactly enlargement by repetition: with it most answers are known without a
network of ours having to compute them.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.enlarge import Enlarged, Means, enlarge, pixels_to_run
from enlarger.engine.geometry import Size
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.options import Options
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine
from enlarger.engine.plan import Ability, Limits, Subject, make_plan
from enlarger.engine.runtime import Session, open_runtime
from enlarger.engine.tiles import Tile, Watch
from enlarger.errors import UnsupportedFormat

COMPACT = MODELS["realesr-animevideov3"]
NET = ARCHITECTURES["compact"]


def repeated(pixels: np.ndarray, times: int) -> np.ndarray:
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


@pytest.fixture(scope="module")
def zero() -> Session:
    weights = {name: np.zeros(shape, np.float32) for name, shape in NET.shapes(COMPACT.hyper).items()}
    return open_runtime("openvino").open_session(NET, COMPACT.hyper, weights, precision="f32", threads=0)


def enlarged(session: Session, pixels: np.ndarray, watch: Watch | None = None, **options: object) -> Enlarged:
    chosen = Options(model=COMPACT.name, **options)
    picture = Picture.from_array(pixels)
    ability = Ability(
        runtime="openvino",
        precisions=("f32",),
        gflops=lambda model, precision: 100.0,
        is_present=lambda spec: True,
        max_tile_pixels=3000,
    )
    subject = Subject(size=picture.size, depth=picture.depth, has_alpha=picture.has_alpha)
    plan = make_plan(subject, chosen, models=MODELS, limits=Limits(), ability=ability)
    means = Means(session=session, safe_session=lambda: session, scratch=None)
    return enlarge(picture, plan, chosen, means, watch or Watch(), {})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (61, 83), (7, 5)])
def test_zero_weights_enlarge_by_repetition_in_every_mode_and_size(zero, channels, dtype, size):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(1).integers(0, top + 1, (*size, channels), dtype)
    found = enlarged(zero, pixels).pixels
    assert found.dtype == dtype
    assert np.array_equal(found, repeated(pixels, 4))


def test_passes_repeat_the_network_over_its_own_result(zero):
    pixels = np.random.default_rng(2).integers(0, 256, (5, 6, 3), np.uint8)
    # ×16 shrunk to ×8 by averaging pairs is ×8 again
    found = enlarged(zero, pixels, passes=2, scale=8).pixels
    assert np.abs(found.astype(int) - repeated(pixels, 8)).mean() < 4
    assert found.shape == (40, 48, 3)


def test_cover_keeps_the_middle(zero):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 200
    found = enlarged(zero, pixels, width=40, height=40, fit="cover").pixels
    assert found.shape == (40, 40, 3)
    assert (found == 200).all()


def test_eight_bits_asked_to_be_sixteen_use_them(zero):
    ramp = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (8, 1, 3))
    found = enlarged(zero, ramp, scale=3.3, bit_depth=16).pixels
    assert found.dtype == np.uint16
    assert (found % 257 != 0).any(), "a resize to sixteen bits gives values between the eight-bit ones"


def test_strength_zero_is_the_plain_resize_of_pillow(zero, scene):
    pixels = scene(40, 30)
    found = enlarged(zero, pixels, scale=2.5, strength=0.0).pixels
    planes = [
        np.asarray(
            Image.fromarray(pixels[:, :, c].astype(np.float32)).resize((100, 75), Image.Resampling.LANCZOS)
        )
        for c in range(3)
    ]
    assert np.abs(found - np.clip(np.stack(planes, 2), 0, 255)).max() <= 1


def test_strength_mixes_light_not_numbers(zero):
    # One column black, one white: repetition keeps them, the plain resize of a constant row is that constant.
    pixels = np.full((6, 6, 3), 255, np.uint8)
    dark = np.zeros((6, 6, 3), np.uint8)
    half = enlarged(zero, pixels, strength=0.5).pixels
    assert (half == 255).all()
    assert (enlarged(zero, dark, strength=0.5).pixels == 0).all()
    edge = np.concatenate([dark, pixels], axis=1)
    network, plain = repeated(edge, 4), enlarged(zero, edge, strength=0.0).pixels
    mixed = enlarged(zero, edge, strength=0.5).pixels

    def linear(values: np.ndarray) -> np.ndarray:  # IEC 61966-2-1
        s = values / 255
        return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)

    assert np.abs(linear(mixed) - (linear(network) + linear(plain)) / 2).max() < 0.01


def test_alpha_keeps_its_own_values_whatever_the_colour_does(zero, scene):
    pixels = scene(30, 20, 4)
    by_resize = enlarged(zero, pixels, scale=4).pixels
    assert np.array_equal(by_resize[:, :, :3], repeated(pixels[:, :, :3], 4))
    plane = Image.fromarray(pixels[:, :, 3].astype(np.float32)).resize((120, 80), Image.Resampling.LANCZOS)
    assert np.abs(by_resize[:, :, 3] - np.clip(np.asarray(plane), 0, 255)).max() <= 1
    by_network = enlarged(zero, pixels, scale=4, alpha="network").pixels
    assert np.array_equal(by_network[:, :, 3], repeated(pixels[:, :, 3], 4))


def test_colour_hidden_under_full_transparency_does_not_reach_the_edge(zero):
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:, :10] = (200, 40, 10, 255)  # the other half is transparent black
    found = enlarged(zero, pixels, scale=2).pixels
    assert (found[:, :22, 0] > 190).all()


def test_progress_counts_all_passes_and_the_alpha(zero, scene):
    seen: list[Tile] = []
    options = Options(model=COMPACT.name, scale=2, passes=2, alpha="network")
    enlarged(zero, scene(20, 10, 4), Watch(finished=seen.append), scale=2, passes=2, alpha="network")
    plan = Engine().plan(Subject(size=Size(20, 10), has_alpha=True), options)
    assert seen[-1].done == pixels_to_run(plan, options, has_alpha=True) == 2 * (200 + 200 * 16)
    assert all(tile.left >= 0 and tile.left + tile.width <= 40 for tile in seen)
    assert all(tile.top >= 0 and tile.top + tile.height <= 20 for tile in seen)


# Through the whole engine


def png16(pixels: np.ndarray, folder) -> bytes:
    path = folder / "ramp.png"
    codec.encode(pixels, path, codec.Encoding(format="png"))
    return path.read_bytes()


def test_a_sixteen_bit_ramp_keeps_its_steps_and_follows_the_f32_network(engine, tmp_path):
    # 252 steps of a fine 16-bit ramp: bf16 would leave 18 of them.
    values = (20_000 + 40 * np.arange(252)).astype(np.uint16)
    ramp = np.tile(values[None, :, None], (24, 1, 3))
    ramp[:, :, 2] += 900  # a colour: gray would be one channel
    result = engine.upscale(png16(ramp, tmp_path), Options(model=COMPACT.name, scale=1))
    assert result.pixels.dtype == np.uint16
    assert result.report["precision"] == "f32"
    assert len(np.unique(result.pixels[12, :, 1])) >= 200
    reference = open_runtime("numpy").open_session(
        NET, COMPACT.hyper, load_weights(COMPACT).tensors, precision="f32", threads=0
    )
    x_nchw = (ramp.astype(np.float32) / 65535).transpose(2, 0, 1)[None]
    expected = np.clip(reference.run("net", x_nchw), 0, 1)[0].transpose(1, 2, 0)
    found = engine.upscale(png16(ramp, tmp_path), Options(model=COMPACT.name)).pixels / 65535
    assert -10 * np.log10(np.square(found - expected).mean()) >= 80


FLAT = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 200, 200), (230, 180, 150), (20, 60, 200)]


def flat_result(engine: Engine, colour: tuple[int, int, int], model: str, **options: object) -> np.ndarray:
    flat = np.full((48, 48, 3), colour, np.uint8)
    chosen = Options(model=model, scale=2, **options)
    return engine.upscale(Picture.from_array(flat), chosen).pixels.astype(int)


@pytest.mark.parametrize("colour", FLAT)
@pytest.mark.parametrize("model", [COMPACT.name, "RealESRGAN_x4plus_anime_6B"])
def test_flat_colour_survives_within_one_level_under_the_colour_lock(engine, colour, model):
    off = flat_result(engine, colour, model, colour_lock=True)[8:-8, 8:-8] - colour
    assert np.abs(off.mean(axis=(0, 1))).max() <= 0.5
    # What is left is the grain of the network itself.
    assert (np.abs(off) <= 1).mean() >= 0.99
    assert np.abs(off).max() <= 2


@pytest.mark.parametrize("colour", [(128, 128, 128), (230, 180, 150), (20, 60, 200)])
def test_the_default_network_shifts_flat_colour_and_the_lock_takes_that_back(engine, colour):
    free, locked = (
        np.abs(
            (flat_result(engine, colour, "RealESRGAN_x4plus", colour_lock=lock)[8:-8, 8:-8] - colour).mean(
                (0, 1)
            )
        )
        for lock in (False, True)
    )
    assert free.max() > 1
    assert locked.max() <= 0.5


@pytest.mark.parametrize("colour", FLAT)
def test_the_pipeline_around_the_network_moves_no_flat_colour(zero, colour):
    flat = np.full((20, 30, 3), colour, np.uint8)
    for options in ({"scale": 2.3}, {"scale": 7.1}, {"strength": 0.5}, {"colour_lock": True}):
        assert np.abs(enlarged(zero, flat, **options).pixels.astype(int) - colour).max() == 0


def test_gray_stays_one_channel_and_sixteen_bits_stay_sixteen(engine):
    gray = np.random.default_rng(3).integers(0, 65536, (12, 17), np.uint16)
    result = engine.upscale(Picture.from_array(gray), Options(model=COMPACT.name, scale=1.7))
    assert result.pixels.shape == (20, 29, 1)
    assert result.pixels.dtype == np.uint16


@pytest.mark.parametrize("format", ["webp", "gif"])
def test_every_frame_of_an_animation_is_enlarged_with_its_timing(engine, tmp_path, format):
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=[100, 200, 300], loop=2)
    seen: list[Tile] = []
    result = engine.upscale(
        file.getvalue(),
        Options(model=COMPACT.name, scale=2, output_format=format, lossless=format == "webp"),
        watch=Watch(finished=seen.append),
    )
    assert seen[-1].done == seen[-1].total == 3 * 24 * 16
    result.save(tmp_path / f"out.{format}")
    with Image.open(tmp_path / f"out.{format}") as found:
        assert (found.size, found.n_frames) == ((48, 32), 3)
        found.seek(1)
        found.load()
        red, green, blue = found.convert("RGB").getpixel((24, 16))
        assert green > 200
        assert max(red, blue) < 60


def test_an_animation_that_the_format_cannot_hold_is_refused_unless_a_frame_is_chosen(engine):
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=50)
    with pytest.raises(UnsupportedFormat, match="holds no animation"):
        engine.upscale(file.getvalue(), Options(model=COMPACT.name, output_format="png"))
    one = engine.upscale(file.getvalue(), Options(model=COMPACT.name, output_format="png", frame=1))
    assert len(one.frames) == 1
    assert one.pixels.mean() > 240


def test_the_same_plan_gives_the_same_bytes_in_another_engine(engine, scene):
    picture = Picture.from_array(scene(50, 37, 4))
    options = Options(model=COMPACT.name, scale=2.7, strength=0.8)
    again = Engine().upscale(picture, options)
    assert np.array_equal(engine.upscale(picture, options).pixels, again.pixels)


def test_the_report_tells_what_was_done(engine, scene):
    options = Options(model=COMPACT.name, scale=2, precision="f32")
    report = engine.upscale(Picture.from_array(scene(50, 37)), options).report
    assert report["model"] == COMPACT.name
    assert report["weights_sha256"] == COMPACT.files[-1].sha256
    assert (report["runtime"], report["precision"]) == ("openvino", "f32")
    assert (report["input"], report["output"]) == ([50, 37], [100, 74])
    assert report["passes"] == report["tiles"] == 1
    assert report["fallbacks"] == report["conversions"] == []
    assert {"network", "resize"} <= set(report["timings_ms"])
