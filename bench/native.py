"""The native kernel against its peers and against what the processor can do, all in one run, alternated.

Ceilings of the products, of AMX or AVX-512 BF16, on zeros and on random data. Of a large and of a compact model:
tiles by the native kernel, OpenVINO in bf16 and f32, and eager PyTorch in f32; a picture of 512² and, once and each
in a process of its own, of 2560×1440, PNG to PNG; PSNR to f32 on real pictures. Where this machine cannot do a thing,
its line says why. `--portable` also measures the kernel on portable tiles, which is slow.

TFLOP/s count the network's nominal work. Aims on two cores with AMX, and held against AVX-512 as well: a tile of 192²
at 83 % of the ceiling on random data; 512² three times as fast as OpenVINO and at 70 % of the ceiling counted on
input pixels, 2560×1440 at 62 %; 53 dB; two cores 1.9 times one; 1.2 GiB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from PIL import Image

import record
from enlarger.engine import machine
from enlarger.engine.geometry import Size, plan_tiles
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import DEFAULT_MODEL, MODELS, ModelSpec
from enlarger.engine.networks.ops import Array, Net
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture, open_canvas
from enlarger.engine.pipeline import Engine
from enlarger.engine.plan import NATIVE_TILE_PIXELS
from enlarger.engine.runtime import Session, WindowSession, native, open_runtime
from enlarger.engine.runtime.choice import kernel_on
from enlarger.engine.runtime.native.blocks import CHAIN, DENSE_BLOCK, grid_of
from enlarger.engine.runtime.native.library import PORTABLE, open_library
from enlarger.engine.tiles import Pass, Watch, run_tiles

HERE = Path(__file__).parent
SOURCES = record.ROOT / "src" / "enlarger" / "engine" / "runtime" / "native" / "cpp"

CEILINGS = {"AMX": "amx", "AVX-512 BF16": "avx512"}
UNUSABLE = "unmeasured: the kernel cannot be used here"
SIDES = {"rrdbnet": (128, 192, 256), "compact": (256, 512)}
LARGE_PIXELS = 1_000_000
"""Of a picture that is computed once, in a process of its own."""
ALONE = """
import json, re, sys, time
from pathlib import Path
from enlarger.engine.options import Options
from enlarger.engine.pipeline import Engine
source, runtime, model, threads = Path(sys.argv[1]), *sys.argv[2:]
started = time.perf_counter()
engine = Engine(device="cpu", runtime=runtime, threads=int(threads))
engine.upscale(source.read_bytes(), Options(model=model)).save(source.with_name("result.png"))
seconds = round(time.perf_counter() - started, 3)
# Not what getrusage says: a process that was forked starts with the peak of its parent.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20
print(json.dumps({"seconds": seconds, "peak_rss_gib": round(peak, 2)}))
"""

Call = Callable[[], object]


def ceilings(threads: int) -> dict[str, float] | str:
    """TFLOP/s of the products by the data they are of."""
    products, reason = kernel_on("cpu")
    if not products:
        return f"unmeasured: {reason}"
    compiler = shutil.which("g++")
    if compiler is None:
        return "unmeasured: there is no g++ here"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "product_ceiling"
        words = ["-std=c++17", "-O2", "-pthread", "-Wno-psabi", f"-I{SOURCES}"]
        subprocess.run([compiler, *words, HERE / "product_ceiling.cpp", "-o", program], check=True)

        def measured(data: str) -> float:
            asked = [program, CEILINGS[products], str(threads), data]
            return float(subprocess.run(asked, capture_output=True, check=True).stdout)

        return {data: measured(data) for data in ("zero", "random")}


def sessions(spec: ModelSpec, threads: int, *, portable: bool) -> dict[str, Session | str]:
    """By runtime and precision; or why there is none."""
    net, weights = ARCHITECTURES[spec.net], load_weights(spec).tensors

    def opened(runtime: str, precision: str) -> Session:
        return open_runtime(runtime).open_session(
            net, spec.hyper, weights, precision=precision, threads=threads
        )

    products, reason = kernel_on("cpu")
    has_bf16 = "bf16" in open_runtime("openvino").precisions()
    found: dict[str, Session | str] = {
        "native_bf16": opened("native", "bf16") if products else f"unmeasured: {reason}",
        "openvino_bf16": opened("openvino", "bf16") if has_bf16 else "unmeasured: this CPU has no bf16",
        "openvino_f32": opened("openvino", "f32"),
    }
    if portable:
        found["native_portable"] = native.open_session(
            open_library(), net, spec.hyper, weights, threads=threads, tiles=PORTABLE
        )
    return found


def whole(net: Net, session: Session, values: Array) -> Call:
    """One tile through the network."""
    if isinstance(session, WindowSession):
        into = np.empty((4 * values.shape[2], 4 * values.shape[3], 3), np.uint8)
        return lambda: session.run_window(values, (0, 0), into, lambda share: None)

    def staged() -> None:
        result = values
        for stage in net.stages:
            result = session.run(stage.name, result)

    return staged


def eager(spec: ModelSpec, values: Array, threads: int) -> Call | str:
    try:
        import torch

        from torch_reference import reference_net
    except ImportError:
        return "unmeasured: torch is not installed"
    net, tensor = reference_net(spec), torch.from_numpy(values)
    torch.set_num_threads(threads)

    def run() -> None:
        with torch.inference_mode():
            net(tensor)

    return run


def alternated(runs: dict[str, Call | str], rounds: int) -> dict[str, list[float] | str]:
    """Seconds of each, taken in turns after one run that is not counted."""
    able = {name: run for name, run in runs.items() if not isinstance(run, str)}
    for run in able.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in able}
    for _ in range(rounds):
        for name, run in able.items():
            taken[name].append(round(record.seconds(run), 4))
    return {name: taken.get(name, run if isinstance(run, str) else []) for name, run in runs.items()}


def rated(seconds: dict[str, list[float] | str], gigaflop: float, ceiling: float | None) -> dict[str, Any]:
    """Median seconds with TFLOP/s, the share of the ceiling, and how many times quicker than each peer."""
    median = {name: statistics.median(taken) for name, taken in seconds.items() if not isinstance(taken, str)}
    speed = {name: gigaflop / 1e3 / taken for name, taken in median.items()}
    ours = next((name for name in ("native_bf16", "native_portable") if name in median), None)
    return {
        "seconds": seconds,
        "tflops": {name: round(value, 4) for name, value in speed.items()},
        "share_of_ceiling": {name: round(value / ceiling, 3) for name, value in speed.items()}
        if ceiling
        else UNUSABLE,
        "times_quicker_than": {
            name: round(taken / median[ours], 2) for name, taken in median.items() if name != ours
        }
        if ours
        else UNUSABLE,
    }


def tile(
    spec: ModelSpec,
    side: int,
    opened: dict[str, Session | str],
    rounds: int,
    ceiling: float | None,
    threads: int,
) -> dict[str, Any]:
    values = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    runs: dict[str, Call | str] = {
        name: session if isinstance(session, str) else whole(ARCHITECTURES[spec.net], session, values)
        for name, session in opened.items()
    }
    runs["torch_eager_f32"] = eager(spec, values, threads)
    return rated(alternated(runs, rounds), spec.mflops_per_pixel * side * side / 1e3, ceiling)


def one_thread(spec: ModelSpec, side: int, rounds: int) -> dict[str, Any]:
    """One tile by one core, and by all of them, in turns."""
    values = np.random.default_rng(0).random((1, 3, side, side), np.float32)
    net, weights, cores = ARCHITECTURES[spec.net], load_weights(spec).tensors, machine.usable_cores().value

    def run(threads: int) -> Call:
        session = open_runtime("native").open_session(
            net, spec.hyper, weights, precision="bf16", threads=threads
        )
        return whole(net, session, values)

    one, all_cores = "one", f"all {cores}"
    seconds = alternated({one: run(1), all_cores: run(cores)}, rounds)
    ratio = statistics.median(map(float, seconds[one])) / statistics.median(map(float, seconds[all_cores]))
    return {"side": side, "seconds": seconds, "times_quicker_with_all_cores": round(ratio, 2)}


def picture(spec: ModelSpec, size: Size, rounds: int, ceiling: float | None, threads: int) -> dict[str, Any]:
    """PNG bytes to a PNG file through the engine, by each runtime that this machine has."""
    data = photo(size)
    options = Options(model=spec.name)

    def run(runtime: str) -> Call:
        engine = Engine(device="cpu", runtime=runtime, threads=threads)

        def call() -> None:
            with tempfile.TemporaryDirectory() as folder:
                engine.upscale(data, options).save(Path(folder) / "result.png")

        return call

    products, reason = kernel_on("cpu")
    runs: dict[str, Call | str] = {
        "native_bf16": run("native") if products else f"unmeasured: {reason}",
        "openvino": run("openvino"),
    }
    return rated(alternated(runs, rounds), spec.mflops_per_pixel * size.pixels / 1e3, ceiling)


def large_picture(spec: ModelSpec, size: Size, ceiling: float | None, threads: int) -> dict[str, Any]:
    """The same, once, each runtime in a process of its own, whose peak memory then is that of one picture."""
    seconds: dict[str, list[float] | str] = {}
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "picture.png"
        source.write_bytes(photo(size))
        if not kernel_on("cpu").products:
            seconds["native_bf16"] = UNUSABLE
        for name, runtime in (("native_bf16", "native"), ("openvino", "openvino")):
            if name in seconds:
                continue
            words = [sys.executable, "-c", ALONE, source, runtime, spec.name, str(threads)]
            told = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
            seconds[name], memory[name] = [told["seconds"]], told["peak_rss_gib"]
    found = rated(seconds, spec.mflops_per_pixel * size.pixels / 1e3, ceiling)
    return found | {"peak_rss_gib": memory}


def work_ratio(spec: ModelSpec, size: Size, threads: int) -> float:
    """Products the native kernel computes ÷ products of the picture."""
    plan = plan_tiles(
        size, overlap=spec.overlap_fast, max_pixels=NATIVE_TILE_PIXELS * spec.unit**2, unit=spec.unit
    )
    repeated = DENSE_BLOCK if spec.net == "rrdbnet" else CHAIN
    return round(plan.work_ratio * grid_of(plan.window, threads, repeated).work_ratio, 4)


def photo(size: Size) -> bytes:
    """A real photograph cut or repeated to the size, or noise without the sample pictures."""
    source = record.PHOTOS / "OST_009.png"
    if source.exists():
        pixels = np.asarray(Image.open(source).convert("RGB"))
        repeats = (-(-size.height // pixels.shape[0]), -(-size.width // pixels.shape[1]), 1)
        pixels = np.tile(pixels, repeats)[: size.height, : size.width]
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    return pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).pngsave_buffer(compression=1)


def decibels(net: Net, opened: dict[str, Session | str], side: int) -> dict[str, Any]:
    """PSNR to OpenVINO's f32 of the middle of every sample picture, in 8 bits."""
    exact = opened["openvino_f32"]
    assert not isinstance(exact, str)
    found: dict[str, Any] = {}
    for path in sorted(record.PHOTOS.glob("*.[jp][pn]g")):
        whole_picture = Image.open(path).convert("RGB")
        width, height = min(side, whole_picture.width), min(side, whole_picture.height)
        left, top = (whole_picture.width - width) // 2, (whole_picture.height - height) // 2
        crop = np.asarray(whole_picture.crop((left, top, left + width, top + height)))
        expected = enlarged(net, exact, crop)
        found[path.name] = {
            label: round(
                float(10 * np.log10(255**2 / np.square(enlarged(net, session, crop) - expected).mean())), 2
            )
            for label, session in opened.items()
            if not isinstance(session, str) and session is not exact
        }
    return found or {"unmeasured": "the sample pictures are not beside this checkout"}


def enlarged(net: Net, session: Session, pixels: np.ndarray) -> np.ndarray:
    source = Picture.from_array(pixels)
    plan = plan_tiles(source.size, overlap=64, max_pixels=NATIVE_TILE_PIXELS)
    canvas = open_canvas(Size(4 * source.size.width, 4 * source.size.height), 3, 8)
    run_tiles(
        Pass(session=session, safe_session=lambda: session, net=net, scale=4, plan=plan),
        source,
        canvas,
        Watch(),
    )
    return canvas.array.astype(float)


def model(spec: ModelSpec, asked: argparse.Namespace, ceiling: float | None, threads: int) -> dict[str, Any]:
    """Everything that is measured of a model."""
    opened = sessions(spec, threads, portable=asked.portable)
    rounds, sides = asked.rounds, asked.sides or SIDES[spec.net]
    usual = ["512x512", "2560x1440"] if ceiling else ["512x512"]  # the larger one would take an hour
    pictures = usual if asked.pictures is None else asked.pictures
    sizes = [Size(*map(int, text.split("x"))) for text in pictures]

    def of_picture(size: Size) -> dict[str, Any]:
        found = (
            large_picture(spec, size, ceiling, threads)
            if size.pixels > LARGE_PIXELS
            else picture(spec, size, rounds, ceiling, threads)
        )
        return found | {"native_work_ratio": work_ratio(spec, size, threads)}

    return {
        "tiles": {f"{side}²": tile(spec, side, opened, rounds, ceiling, threads) for side in sides},
        "one_thread": one_thread(spec, sides[-1], rounds) if ceiling else UNUSABLE,
        "pictures": {f"{size.width}×{size.height}": of_picture(size) for size in sizes},
        "psnr_to_f32": decibels(ARCHITECTURES[spec.net], opened, asked.crop),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=[DEFAULT_MODEL, "realesr-animevideov3"])
    parser.add_argument("--sides", type=int, nargs="*")
    parser.add_argument("--pictures", nargs="*", metavar="WIDTHxHEIGHT")
    parser.add_argument("--crop", type=int, default=96, help="side of the crops whose PSNR is taken")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--portable", action="store_true")
    asked = parser.parse_args()
    kernel, threads = kernel_on("cpu"), machine.usable_cores().value
    print(f"native kernel: {kernel.products or kernel.reason}", file=sys.stderr)
    most = ceilings(threads)
    ceiling = most["random"] if isinstance(most, dict) else None
    record.write(
        "native",
        {
            "threads": threads,
            "products": kernel.products,
            "ceiling_tflops": most,
            "models": {name: model(MODELS[name], asked, ceiling, threads) for name in asked.models},
        },
    )


if __name__ == "__main__":
    main()
