"""The native session against its peers: on portable tiles, which give the bytes of AMX, and on vectors."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from enlarger.engine import bands as bands_module
from enlarger.engine import machine
from enlarger.engine.bands import Bands
from enlarger.engine.geometry import Size, plan_tiles
from enlarger.engine.machine import Device
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.ops import Array, Weights
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.pictures.picture import Canvas, Picture, Pixels, open_canvas
from enlarger.engine.runtime import Session, WindowSession, native, open_runtime
from enlarger.engine.runtime.choice import Runtimes, kernel_on
from enlarger.engine.runtime.native.library import AMX, AVX512, NAMES, PORTABLE, Library, open_library
from enlarger.engine.runtime.native.session import NativeSession
from enlarger.engine.runtime.numpy import round_to_bf16
from enlarger.engine.tiles import Outcome, Pass, Tile, Watch, run_tiles
from enlarger.errors import Cancelled, RuntimeUnavailable

from . import oracles
from .oracles import decibels, printed, rounded, seeded

NET = ARCHITECTURES["rrdbnet"]
X4 = {"blocks": 1, "features": 32, "growth": 32, "unshuffle": 1}
X2 = X4 | {"unshuffle": 2}
X1 = {"blocks": 2, "features": 64, "growth": 32, "unshuffle": 4}
CPU = Device(name="cpu", runtime="openvino", reason="")

every_form = pytest.mark.parametrize("hyper", [X4, X2, X1], ids=["x4", "x2", "x1"])


def random_weights(hyper: dict[str, int]) -> dict[str, Array]:
    """Seeded weights that keep values near 1 from layer to layer."""
    random = np.random.default_rng(7)
    return {
        name: (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else 100)).astype(
            np.float32
        )
        for name, shape in NET.shapes(hyper).items()
    }


def opened(
    library: Library,
    hyper: dict[str, int],
    weights: Weights | None = None,
    threads: int = 2,
    tiles: int = PORTABLE,
) -> NativeSession:
    return native.open_session(
        library, NET, hyper, weights or random_weights(hyper), threads=threads, tiles=tiles
    )


def exact(hyper: dict[str, int], weights: Weights | None = None) -> Session:
    return oracles.exact(NET, hyper, weights or random_weights(hyper))


class Staged:
    """The session with its stages alone: what run_tiles makes of those is what a window must be."""

    def __init__(self, session: Session) -> None:
        self.precision = session.precision
        self.run = session.run


def enlarged(
    session: Session,
    pixels: Pixels,
    hyper: dict[str, int],
    *,
    overlap: int = 8,
    max_pixels: int = 10**9,
    watch: Watch | None = None,
    safe: Session | None = None,
    bands: Bands | None = None,
) -> tuple[Pixels, Outcome]:
    picture = Picture.from_array(pixels)
    unit = hyper["unshuffle"]
    plan = plan_tiles(picture.size, overlap=overlap, max_pixels=max_pixels, unit=unit)
    scale = NET.upscale(hyper)
    canvas = open_canvas(
        Size(scale * picture.size.width, scale * picture.size.height), picture.colours, picture.depth
    )
    run = Pass(session=session, safe_session=lambda: safe or session, net=NET, scale=scale, plan=plan)
    pixels_in = picture.size.pixels
    kept = bands.of_pass(0, canvas, input_pixels=pixels_in, is_last=True) if bands else nullcontext()
    with kept as pass_bands:
        outcome = run_tiles(run, picture, canvas, watch or Watch(), pass_bands)
    return canvas.array, outcome


class Emulated:
    """RRDBNet as the kernel promises it, in torch's f64: bf16 weights and maps, conv_first and the skip exact."""

    def __init__(self, hyper: dict[str, int], weights: Weights) -> None:
        import torch

        self._torch = torch
        self._hyper = hyper
        self._weights = {name: torch.from_numpy(tensor).double() for name, tensor in weights.items()}

    def _conv(self, x: Any, name: str) -> Any:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return self._torch.nn.functional.conv2d(x, printed(weight), bias, padding=1)

    def _activated(self, x: Any) -> Any:
        return rounded(self._torch.nn.functional.leaky_relu(x, 0.2))

    def trunk(self, x_nchw: Array) -> Array:
        functional = self._torch.nn.functional
        x = functional.pixel_unshuffle(self._torch.from_numpy(x_nchw).double(), self._hyper["unshuffle"])
        first = self._weights["conv_first.weight"], self._weights["conv_first.bias"]
        shallow = functional.conv2d(x, *first, padding=1)
        skip, deep = shallow, rounded(shallow)
        for index in range(3 * self._hyper["blocks"]):
            out = self._dense(deep, f"body.{index // 3}.rdb{index % 3 + 1}")
            if index % 3 == 2:
                skip = out = skip + 0.2 * out
            deep = rounded(out)
        return rounded(shallow + self._conv(deep, "conv_body")).float().numpy()

    def _dense(self, x: Any, name: str) -> Any:
        grown = [x]
        for index in (1, 2, 3, 4):
            grown.append(self._activated(self._conv(self._torch.cat(grown, 1), f"{name}.conv{index}")))
        return x + 0.2 * self._conv(self._torch.cat(grown, 1), f"{name}.conv5")

    def tail(self, features: Array) -> Array:
        x = self._doubled(self._torch.from_numpy(features).double(), "conv_up1")
        x = self._activated(self._conv(self._doubled(x, "conv_up2"), "conv_hr"))
        return self._conv(x, "conv_last").float().numpy()

    def _doubled(self, x: Any, name: str) -> Any:
        """Enlarged and convolved, the weights that fall on one source pixel summed before they are rounded."""
        torch, weight = self._torch, self._weights[f"{name}.weight"]
        merge = {
            0: torch.tensor([[1.0, 0, 0], [0, 1, 1]]).double(),
            1: torch.tensor([[1.0, 1, 0], [0, 0, 1]]).double(),
        }
        out = x.new_empty(1, x.shape[1], 2 * x.shape[2], 2 * x.shape[3])
        for down in (0, 1):
            for across in (0, 1):
                summed = printed(merge[down] @ weight @ merge[across].T)
                padded = torch.nn.functional.pad(x, (1 - across, across, 1 - down, down))
                phase = torch.nn.functional.conv2d(padded, summed, self._weights[f"{name}.bias"])
                out[:, :, down::2, across::2] = phase
        return self._activated(out)


@pytest.mark.torch
@every_form
def test_each_stage_is_what_its_roundings_make_of_it(
    hyper: dict[str, int], library: Library, tiles: int
) -> None:
    session, emulated = opened(library, hyper, tiles=tiles), Emulated(hyper, random_weights(hyper))
    expected = emulated.trunk(seeded(32, 40))
    # Sums in f32 here and in f64 there round apart now and then, by one step of bf16, and that spreads a little:
    # against f32 the same values have 50 to 60 dB.
    found = session.run("trunk", seeded(32, 40))
    assert decibels(found, expected) > 66
    assert (found == expected).mean() > 0.7
    assert np.array_equal(found, round_to_bf16(found))
    np.testing.assert_allclose(session.run("tail", expected), emulated.tail(expected), atol=4e-3)


@every_form
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 19), (17, 2), (9, 33)])
def test_any_size_stays_close_to_f32(
    height: int, width: int, hyper: dict[str, int], library: Library, tiles: int
) -> None:
    session, other = opened(library, hyper, tiles=tiles), exact(hyper)
    values = seeded(height * hyper["unshuffle"], width * hyper["unshuffle"])
    found = session.run("tail", session.run("trunk", values))
    expected = other.run("tail", other.run("trunk", values))
    assert found.shape == expected.shape
    assert decibels(found, expected) > 45


@every_form
def test_vectors_are_within_two_steps_of_bf16_of_the_portable_tiles(
    hyper: dict[str, int], library: Library
) -> None:
    if reason := library.why_not(AVX512):
        pytest.skip(reason)
    # Dense blocks that add nothing leave conv_body as the one layer between the exact ones and what is read.
    weights = {
        name: np.zeros_like(tensor) if name.startswith("body.") else tensor
        for name, tensor in random_weights(hyper).items()
    }
    vectors, portable = (
        opened(library, hyper, weights, tiles=tiles).run("trunk", seeded(36, 44))
        for tiles in (AVX512, PORTABLE)
    )
    step = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(portable), 1e-30))) - 7)
    assert (np.abs(vectors - portable) <= 2 * step + 1e-6).all()  # sums of 1 that cancel are 1e-7 apart
    assert (vectors != 0).mean() > 0.9
    whole = [opened(library, hyper, tiles=tiles).run("trunk", seeded(36, 44)) for tiles in (AVX512, PORTABLE)]
    assert decibels(*whole) > 60


@pytest.mark.shared
@pytest.mark.parametrize("model", ["RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B"])
def test_the_real_weights_give_the_official_picture(
    model: str, library: Library, tiles: int, goldens: Path, psnr: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    hyper = MODELS[model].hyper
    session = opened(library, hyper, load_weights(MODELS[model]).tensors, tiles=tiles)
    picture, golden = (
        np.asarray(Image.open(goldens / f"{name}-16x16.png").convert("RGB")) for name in ("input", model)
    )
    assert psnr(enlarged(session, picture, hyper)[0], golden) >= 52


@pytest.mark.shared
def test_tiles_are_no_worse_than_the_whole(
    library: Library, samples: Path, psnr: Callable[[np.ndarray, np.ndarray], float]
) -> None:
    spec = MODELS["RealESRGAN_x4plus_anime_6B"]
    weights = load_weights(spec).tensors
    session = opened(library, spec.hyper, weights)
    pixels = np.asarray(Image.open(samples / "00003.png").convert("RGB").crop((40, 30, 232, 46)))
    golden, _ = enlarged(exact(spec.hyper, weights), pixels, spec.hyper)
    whole, _ = enlarged(session, pixels, spec.hyper)
    tiled, _ = enlarged(session, pixels, spec.hyper, overlap=spec.overlap_fast, max_pixels=2_600)
    assert psnr(tiled, golden) >= psnr(whole, golden) - 0.3
    beside = slice(4 * (96 - 8), 4 * (96 + 8))  # the one cut is in the middle
    off = np.abs(tiled.astype(int) - golden)
    assert off[:, beside].mean() <= np.delete(off, beside, axis=1).mean()


@every_form
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_window_is_its_stages_one_after_the_other(
    dtype: type, hyper: dict[str, int], library: Library
) -> None:
    session = opened(library, hyper)
    assert isinstance(session, WindowSession)
    assert not isinstance(Staged(session), WindowSession)
    # No multiple of the unit, and tiles.
    pixels = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (41, 35, 3)).astype(dtype)
    for most in (10**9, 900):
        whole, _ = enlarged(session, pixels, hyper, max_pixels=most)
        staged, _ = enlarged(Staged(session), pixels, hyper, max_pixels=most)
        np.testing.assert_array_equal(whole, staged)


def test_gray_and_pictures_with_alpha_are_written_in_place(library: Library) -> None:
    session = opened(library, X4)
    gray = np.random.default_rng(1).integers(0, 256, (9, 12), np.uint8)
    found, _ = enlarged(session, gray, X4)
    staged, _ = enlarged(Staged(session), gray, X4)
    assert np.abs(found.astype(int) - staged).max() <= 1  # BLAS may round the luma's last bit otherwise

    canvas = Canvas(np.full((36, 48, 4), 77, np.uint8))
    picture = Picture.from_array(np.repeat(gray[:, :, None], 3, axis=2))
    plan = plan_tiles(picture.size, overlap=8, max_pixels=10**9)
    run = Pass(session=session, safe_session=lambda: session, net=NET, scale=4, plan=plan)
    run_tiles(run, picture, canvas.layer(0, 3), Watch())
    assert (canvas.array[:, :, 3] == 77).all()
    assert (canvas.array[:, :, :3] != 77).any()


def test_threads_do_not_show_in_the_result(library: Library, tiles: int) -> None:
    values = seeded(40, 61)
    one = opened(library, X4, threads=1, tiles=tiles)
    many = opened(library, X4, threads=5, tiles=tiles)
    assert one.grid(Size(61, 40)) != many.grid(Size(61, 40))
    for stage in ("trunk", "tail"):
        expected = one.run(stage, values)
        np.testing.assert_array_equal(many.run(stage, values), expected)
        values = expected


def test_a_run_tells_how_far_it_is(library: Library) -> None:
    tiles: list[Tile] = []
    watch = Watch(finished=tiles.append)
    pixels = np.zeros((100, 110, 3), np.uint8)  # long enough for several ticks, whatever the machine
    enlarged(opened(library, X4), pixels, X4, watch=watch)
    done = [tile.done for tile in tiles]
    assert done == sorted(done)
    assert len(tiles) > 3
    assert {(tile.width, tile.height) for tile in tiles[:-1]} == {(0, 0)}
    assert (tiles[-1].width, tiles[-1].height, tiles[-1].done) == (440, 400, 100 * 110)
    assert {tile.total for tile in tiles} == {100 * 110}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@every_form
def test_a_run_that_was_cut_short_goes_on_with_the_same_bytes(
    dtype: type, hyper: dict[str, int], library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands_module, "BAND_PIXELS", 1)
    session, top = opened(library, hyper), int(np.iinfo(dtype).max)
    pixels = np.random.default_rng(5).integers(0, top + 1, (97, 30, 3)).astype(dtype)
    expected, _ = enlarged(session, pixels, hyper, max_pixels=1200)
    seen: list[Tile] = []
    watch = Watch(finished=seen.append, cancelled=lambda: sum(tile.height > 0 for tile in seen) == 2)
    with pytest.raises(Cancelled):
        enlarged(session, pixels, hyper, max_pixels=1200, watch=watch, bands=Bands(tmp_path, "same"))
    bands = Bands(tmp_path, "same")
    found, _ = enlarged(opened(library, hyper), pixels, hyper, max_pixels=1200, bands=bands)
    np.testing.assert_array_equal(found, expected)
    assert 0 < bands.told()["rows"] < bands.told()["of"]


def test_a_cancelled_run_stops_inside_the_window(library: Library) -> None:
    hyper = X4 | {"blocks": 23}
    session = opened(library, hyper)
    pixels = np.zeros((400, 500, 3), np.uint8)  # minutes of work
    asked: list[float] = []

    def cancelled() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 2

    with pytest.raises(Cancelled):
        enlarged(session, pixels, hyper, watch=Watch(cancelled=cancelled))
    assert len(asked) == 3
    small = seeded(3, 4)
    np.testing.assert_array_equal(session.run("trunk", small), opened(library, hyper).run("trunk", small))


def test_values_that_are_no_numbers_are_computed_again_in_f32(library: Library) -> None:
    weights = random_weights(X4)
    huge = weights | {"conv_hr.bias": np.full_like(weights["conv_hr.bias"], np.inf)}
    pixels = np.random.default_rng(1).integers(0, 256, (20, 12, 3), np.uint8)
    found, outcome = enlarged(opened(library, X4, huge), pixels, X4, safe=exact(X4))
    expected, _ = enlarged(exact(X4), pixels, X4)
    assert outcome.precision == "f32"
    assert "in bf16 at x=0, y=0" in outcome.notes[0]
    np.testing.assert_array_equal(found, expected)


def test_an_input_of_another_form_is_refused_and_harms_nothing(library: Library) -> None:
    session = opened(library, X2)
    before = session.run("trunk", seeded(8, 6))
    for shape in ((1, 5, 8, 6), (2, 3, 8, 6), (1, 3, 7, 6), (1, 3, 0, 6)):
        with pytest.raises(ValueError, match=r"must be \(1, 3, h, w\) with sides divisible by 2"):
            session.run("trunk", np.zeros(shape, np.float32))
    np.testing.assert_array_equal(session.run("trunk", seeded(8, 6)), before)


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.runtime import native
from enlarger.engine.runtime.native.library import PORTABLE, Library
from enlarger.errors import OutOfMemory

net, hyper = ARCHITECTURES["rrdbnet"], {"blocks": 1, "features": 64, "growth": 32, "unshuffle": 1}
weights = {name: np.full(shape, 0.01, np.float32) for name, shape in net.shapes(hyper).items()}
session = native.open_session(Library(Path(sys.argv[1])), net, hyper, weights, threads=2, tiles=PORTABLE)
small, large = np.ones((1, 3, 8, 8), np.float32), np.ones((1, 3, 2000, 2000), np.float32)
into = np.empty((8000, 8000, 3), np.uint8)
before = session.run("trunk", small).copy()
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, resource.RLIM_INFINITY))
try:
    session.run_window(large, (0, 0), into, lambda share: None)  # 2 GB
except OutOfMemory as error:
    assert np.array_equal(session.run("trunk", small), before)
    print("told:", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_lack_of_memory_is_told_and_the_session_stays_usable(guarded_kernel: Path) -> None:
    words = [sys.executable, "-c", SHORT_OF_MEMORY, str(guarded_kernel / "kernel.so")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("told: ")


def test_memory_is_two_maps_of_bf16_and_one_of_f32(library: Library) -> None:
    session = opened(library, {**X4, "features": 64})
    size = Size(1344, 784)  # a window of a picture of 2560×1440
    assert 512 * size.pixels <= session.memory_bytes(size) <= 1.05 * 512 * size.pixels


def test_the_kernel_is_chosen_where_it_is_made_for_the_model_and_the_machine_multiplies_bf16() -> None:
    usable = bool(kernel_on("cpu").products)
    x4plus, compact = MODELS["RealESRGAN_x4plus"], MODELS["realesr-animevideov3"]

    def chosen(model: Any, precision: str, runtimes: Runtimes) -> str:
        return runtimes.name_for(ARCHITECTURES[model.net], model.hyper, precision)

    assert chosen(x4plus, "bf16", Runtimes(CPU)) == ("native" if usable else "openvino")
    assert chosen(x4plus, "f32", Runtimes(CPU)) == "openvino"
    with_vectors = kernel_on("cpu").products == "AVX-512 BF16"
    assert chosen(compact, "bf16", Runtimes(CPU)) == ("native" if with_vectors else "openvino")
    assert chosen(x4plus, "bf16", Runtimes(CPU, "openvino")) == "openvino"
    assert "not on gpu" in kernel_on("gpu").reason
    for tiles in (AMX, AVX512):
        assert native.computes(NET, X4, "bf16", tiles)
        assert not native.computes(NET, X4 | {"features": 16}, "bf16", tiles)
        assert not native.computes(NET, X4 | {"growth": 16}, "bf16", tiles)


def test_a_model_is_computed_in_bf16_where_the_kernel_computes_it_or_the_cpu_has_amx() -> None:
    products = kernel_on("cpu").products
    x4plus, compact = MODELS["RealESRGAN_x4plus"], MODELS["realesr-animevideov3"]

    def quickest(model: Any, asked: str = "") -> str:
        return Runtimes(CPU, asked).quickest_for(ARCHITECTURES[model.net], model.hyper)

    openvinos = "bf16" if "amx_bf16" in machine.cpu_flags() else "f32"
    assert quickest(x4plus) == ("bf16" if products else openvinos)
    assert quickest(compact) == ("bf16" if products == "AVX-512 BF16" else openvinos)
    assert quickest(x4plus, "openvino") == openvinos


def test_what_multiplies_is_told_where_the_kernel_computes() -> None:
    hyper, products = MODELS["RealESRGAN_x4plus"].hyper, kernel_on("cpu").products
    assert Runtimes(CPU).products_for(NET, hyper, "bf16") == products
    assert Runtimes(CPU).products_for(NET, hyper, "f32") == ""
    assert Runtimes(CPU, "openvino").products_for(NET, hyper, "bf16") == ""


def test_products_are_those_of_the_cpu_the_quickest_first(library: Library) -> None:
    flags = machine.cpu_flags()
    has = {"AMX": {"amx_tile", "amx_bf16"} <= flags, "AVX-512 BF16": "avx512_bf16" in flags}
    for tiles, name in NAMES.items():
        assert has[name] or "this CPU does not have it" in library.why_not(tiles)
    assert not library.why_not(PORTABLE)
    choice = native.chosen()
    if choice.tiles is None:
        assert all(name in choice.reason for name in NAMES.values()) or "not built" in choice.reason
    elif choice.tiles == AVX512:
        assert choice.reason.startswith("AMX: ")


def test_asked_for_by_name_it_computes_or_says_why_it_cannot() -> None:
    products, reason = kernel_on("cpu")
    if products:
        assert open_runtime("native").precisions() == ("bf16",)
        assert Runtimes(CPU, "native").own.precisions()[0] in ("bf16", "f32")
        return
    for ask in (lambda: open_runtime("native"), lambda: Runtimes(CPU, "native").own):
        with pytest.raises(RuntimeUnavailable) as caught:
            ask()
        assert reason.partition(";")[0] in caught.value.message or "g++" in caught.value.message


@pytest.mark.skipif(
    kernel_on("cpu").products != "AMX", reason="AMX itself; emulated in test_native_kernel.py"
)
@every_form
def test_amx_gives_the_bytes_of_the_portable_tiles(hyper: dict[str, int]) -> None:
    values = seeded(40, 60)
    amx, portable = (opened(open_library(), hyper, tiles=tiles) for tiles in (AMX, PORTABLE))
    np.testing.assert_array_equal(
        amx.run("tail", amx.run("trunk", values)), portable.run("tail", portable.run("trunk", values))
    )


def test_a_file_that_is_no_kernel_is_told_from_one(tmp_path: Path) -> None:
    (tmp_path / "none.so").write_bytes(b"no library")
    with pytest.raises(RuntimeUnavailable, match="cannot be loaded"):
        Library(tmp_path / "none.so")
