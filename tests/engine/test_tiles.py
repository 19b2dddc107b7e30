"""Tiled against whole: what cutting a picture changes, for every kind of network, size and precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.geometry import Size, plan_tiles
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.pictures.picture import Picture, Pixels, open_canvas
from enlarger.engine.runtime import Session, open_runtime
from enlarger.engine.runtime.openvino import OpenVino
from enlarger.engine.tiles import STRIP_PIXELS, Pass, Watch, run_tiles
from enlarger.errors import Cancelled, NumericFault

Scene = Callable[..., np.ndarray]
Psnr = Callable[[np.ndarray, np.ndarray], float]

HAS_BF16 = "bf16" in OpenVino().precisions()
X4PLUS, ANIME, COMPACT = "RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B", "realesr-animevideov3"


@cache
def session_of(model: str, runtime: str = "openvino", precision: str = "f32") -> Session:
    spec = MODELS[model]
    weights = load_weights(spec).tensors
    opened = open_runtime(runtime)
    return opened.open_session(ARCHITECTURES[spec.net], spec.hyper, weights, precision=precision, threads=0)


@pytest.fixture(scope="module", autouse=True)
def _forget_sessions() -> object:
    yield
    session_of.cache_clear()


@cache
def blank_session(runtime: str) -> Session:
    """A compact network of zero weights: exactly the enlargement by repetition."""
    hyper = MODELS[COMPACT].hyper | {"convs": 1, "features": 4}
    net = ARCHITECTURES["compact"]
    weights = {name: np.zeros(shape, np.float32) for name, shape in net.shapes(hyper).items()}
    return open_runtime(runtime).open_session(net, hyper, weights, precision="f32", threads=0)


def enlarged(
    session: Session,
    pixels: Pixels,
    *,
    model: str = COMPACT,
    overlap: int = 18,
    max_tile_pixels: int = 10**9,
    strip_pixels: int = STRIP_PIXELS,
    watch: Watch | None = None,
) -> Pixels:
    """The colour of the picture, four times as large, whole or in tiles of at most `max_tile_pixels`."""
    picture = Picture.from_array(pixels)
    plan = plan_tiles(picture.size, overlap=overlap, max_pixels=max_tile_pixels)
    assert (plan.tiles > 1) == (picture.size.pixels > max_tile_pixels)
    size = Size(4 * picture.size.width, 4 * picture.size.height)
    canvas = open_canvas(size, picture.colours, picture.depth)
    net = ARCHITECTURES[MODELS[model].net]
    run = Pass(
        session=session,
        safe_session=lambda: session,
        net=net,
        scale=4,
        plan=plan,
        strip_pixels=strip_pixels,
    )
    run_tiles(run, picture, canvas, watch or Watch())
    return canvas.array


def levels(a: Pixels, b: Pixels) -> np.ndarray:
    return np.abs(a.astype(int) - b)


@pytest.fixture(scope="module")
def photo(samples: Path) -> Callable[[str, tuple[int, int, int, int]], np.ndarray]:
    return lambda name, box: np.asarray(Image.open(samples / name).convert("RGB").crop(box))


@pytest.mark.parametrize("size", [(97, 61), (54, 91), (54, 54), (72, 17), (300, 1), (1, 300)])
@pytest.mark.parametrize(
    ("runtime", "precision"),
    # NumPy rounds to bf16 on any machine; OpenVINO is here where the CPU has bf16.
    [("openvino", "f32"), ("numpy", "bf16"), *([("openvino", "bf16")] if HAS_BF16 else [])],
)
def test_tiles_of_a_compact_network_change_nothing(
    runtime: str, precision: str, size: tuple[int, int], scene: Scene
) -> None:
    session, pixels = session_of(COMPACT, runtime, precision), scene(*size)
    whole = enlarged(session, pixels)
    tiled = enlarged(session, pixels, max_tile_pixels=size[0] * size[1] * 2 // 3)
    np.testing.assert_array_equal(tiled, whole)


def test_many_small_tiles_of_a_compact_network_change_nothing(scene: Scene) -> None:
    session, pixels = session_of(COMPACT), scene(157, 143)
    np.testing.assert_array_equal(
        enlarged(session, pixels, max_tile_pixels=60 * 60), enlarged(session, pixels)
    )


@pytest.mark.shared
@pytest.mark.parametrize(("model", "name", "most"), [(X4PLUS, "OST_009.png", 1), (ANIME, "00003.png", 0)])
def test_exact_tiles_are_the_whole_picture(
    model: str, name: str, most: int, photo: Callable[..., np.ndarray]
) -> None:
    pixels = photo(name, (100, 100, 391, 115))
    whole = enlarged(session_of(model), pixels, model=model)
    tiled = enlarged(session_of(model), pixels, model=model, overlap=96, max_tile_pixels=4_000)
    assert levels(tiled, whole).max() <= most


@pytest.mark.shared
@pytest.mark.parametrize(
    ("model", "name", "box"),
    [
        (X4PLUS, "OST_009.png", (100, 100, 301, 123)),
        (X4PLUS, "jpeg-15.jpg", (20, 60, 221, 79)),
        (ANIME, "00003.png", (40, 30, 241, 223)),
    ],
)
def test_fast_tiles_are_the_whole_picture_to_the_eye(
    model: str, name: str, box: tuple[int, int, int, int], photo: Callable[..., np.ndarray]
) -> None:
    pixels = photo(name, box)
    whole = enlarged(session_of(model), pixels, model=model)
    tiled = enlarged(
        session_of(model), pixels, model=model, overlap=64, max_tile_pixels=pixels[:, :, 0].size * 5 // 6
    )
    off = levels(tiled, whole)
    assert (off <= 1).mean() >= 0.999
    assert off.max() <= 8


@pytest.mark.shared
@pytest.mark.parametrize(
    ("runtime", "model", "name", "box"),
    [
        ("numpy", ANIME, "00003.png", (40, 30, 232, 46)),
        *(
            [
                ("openvino", ANIME, "00003.png", (40, 30, 232, 46)),
                ("openvino", X4PLUS, "OST_009.png", (100, 100, 292, 116)),
            ]
            if HAS_BF16
            else []
        ),
    ],
)
def test_tiles_in_bf16_are_no_worse_than_bf16_is(
    runtime: str,
    model: str,
    name: str,
    box: tuple[int, int, int, int],
    photo: Callable[..., np.ndarray],
    psnr: Psnr,
) -> None:
    pixels = photo(name, box)
    exact = enlarged(session_of(model), pixels, model=model)
    rounded = session_of(model, runtime, "bf16")
    whole = enlarged(rounded, pixels, model=model)
    tiled = enlarged(rounded, pixels, model=model, overlap=64, max_tile_pixels=2_600)
    assert psnr(tiled, exact) >= psnr(whole, exact) - 0.3
    beside = slice(4 * (96 - 8), 4 * (96 + 8))  # the one cut is in the middle
    off, off_untiled = levels(tiled, exact), levels(whole, exact)
    assert off[:, beside].mean() <= np.delete(off, beside, axis=1).mean()
    assert off[:, beside].mean() <= 1.1 * off_untiled[:, beside].mean()


def test_strips_of_the_tail_change_nothing(scene: Scene) -> None:
    pixels = scene(45, 61)
    whole = enlarged(session_of(ANIME), pixels, model=ANIME)
    for strip_pixels in (1, 45 * 9, 45 * 40):
        strips = enlarged(session_of(ANIME), pixels, model=ANIME, strip_pixels=strip_pixels)
        np.testing.assert_array_equal(strips, whole)


@pytest.mark.parametrize("model", [X4PLUS, ANIME, COMPACT])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (2, 3)])
def test_the_smallest_pictures_agree_with_the_reference_runtime(
    model: str, size: tuple[int, int], scene: Scene
) -> None:
    pixels = scene(*size)
    got = enlarged(session_of(model), pixels, model=model)
    wanted = enlarged(session_of(model, "numpy"), pixels, model=model)
    assert levels(got, wanted).max() <= 1


@pytest.mark.parametrize("runtime", ["openvino", "numpy"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (101, 67), (200, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_zero_weights_repeat_every_pixel_in_any_tiling(
    runtime: str, channels: int, size: tuple[int, int], dtype: type
) -> None:
    width, height = size
    top = int(np.iinfo(dtype).max)
    pixels = np.random.default_rng(1).integers(0, top + 1, (height, width, channels)).astype(dtype)
    wanted = pixels[:, :, : 1 if channels <= 2 else 3].repeat(4, axis=0).repeat(4, axis=1)
    for overlap, most in ((18, 10**6), (18, width * height - 1), (3, 150), (0, 170)):
        if width * height > 1 or most > 1:
            got = enlarged(blank_session(runtime), pixels, overlap=overlap, max_tile_pixels=max(1, most))
            np.testing.assert_array_equal(got, wanted)


def test_progress_counts_every_pixel_once(scene: Scene) -> None:
    seen: list[tuple[int, int]] = []
    watch = Watch(finished=lambda tile: seen.append((tile.done, tile.total)))
    enlarged(blank_session("openvino"), scene(101, 67), overlap=5, max_tile_pixels=900, watch=watch)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {101 * 67}
    assert seen[-1] == (101 * 67, 101 * 67)
    assert len(seen) > 8


@pytest.mark.parametrize("model", [COMPACT, ANIME])
def test_a_cancelled_run_stops_before_the_next_part(model: str, scene: Scene) -> None:
    seen: list[int] = []
    watch = Watch(finished=lambda tile: seen.append(tile.done), cancelled=lambda: len(seen) == 2)
    with pytest.raises(Cancelled):
        # Six tiles of the compact network; one tile and many strips of the other.
        enlarged(
            session_of(model), scene(60, 40), model=model, overlap=5, watch=watch, strip_pixels=60 * 10,
            max_tile_pixels=900 if model == COMPACT else 10**6,
        )  # fmt: skip
    assert len(seen) == 2


def test_values_that_are_no_numbers_are_a_fault_and_no_picture(scene: Scene) -> None:
    hyper = MODELS[COMPACT].hyper | {"convs": 1}
    net = ARCHITECTURES["compact"]
    weights = {name: np.zeros(shape, np.float32) for name, shape in net.shapes(hyper).items()}
    weights["body.4.bias"][5] = np.nan
    for runtime in ("openvino", "numpy"):
        session = open_runtime(runtime).open_session(net, hyper, weights, precision="f32", threads=0)
        with pytest.raises(NumericFault, match="even in f32"):
            enlarged(session, scene(20, 10))
