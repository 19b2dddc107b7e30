from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.ops import Array
from enlarger.engine.runtime import RUNTIMES, RuntimeRow, Session, choose_precision, open_runtime
from enlarger.engine.runtime.choice import NATIVE
from enlarger.engine.runtime.numpy import NumPy, round_to_bf16
from enlarger.errors import RuntimeUnavailable

HYPER = {"convs": 1, "features": 8, "scale": 2}
NET = ARCHITECTURES["compact"]
GENERAL = [
    name for name in RUNTIMES if name != NATIVE
]  # which computes one network, and has tests of its own


def small_weights() -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in NET.shapes(HYPER).items()}


@pytest.mark.torch
def test_rounding_to_bf16_is_that_of_torch() -> None:
    import torch

    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    ties = (np.arange(1, 1000, dtype=np.uint32) << 16) | 0x8000  # halfway between two
    values = np.concatenate([bits, ties]).view(np.float32)
    values = np.concatenate([values[~np.isnan(values)], np.array([0.0, -0.0, np.inf, -np.inf], np.float32)])
    wanted = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(round_to_bf16(values)[finite], wanted[finite])
    assert not np.isfinite(round_to_bf16(values)[~finite]).any()
    assert np.isnan(round_to_bf16(np.array([np.nan], np.float32))).all()


@pytest.mark.parametrize("runtime", GENERAL)
def test_a_session_runs_any_size_and_leaves_its_input_alone(runtime: str) -> None:
    session: Session = open_runtime(runtime).open_session(
        NET, HYPER, small_weights(), precision="f32", threads=1
    )
    assert session.precision == "f32"
    for height, width in ((3, 5), (40, 1), (3, 5)):
        x = np.random.default_rng(2).random((1, 3, height, width), np.float32)
        before = x.copy()
        y = session.run("net", x)
        assert (y.shape, y.dtype) == ((1, 3, 2 * height, 2 * width), np.float32)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("runtime", GENERAL)
def test_a_result_is_not_overwritten_by_the_next_run(runtime: str) -> None:
    session = open_runtime(runtime).open_session(NET, HYPER, small_weights(), precision="f32", threads=0)
    rng = np.random.default_rng(3)
    first = session.run("net", rng.random((1, 3, 6, 6), np.float32))
    kept = first.copy()
    session.run("net", rng.random((1, 3, 6, 6), np.float32))
    np.testing.assert_array_equal(first, kept)


WITH_LITTLE_MEMORY = """
import resource
from pathlib import Path
import numpy as np
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine
from enlarger.errors import OutOfMemory

engine, options = Engine(), Options(model="RealESRGAN_x4plus_anime_6B", precision="f32")
small, large = (Picture.from_array(np.zeros((side, side), np.uint8)) for side in (32, 1200))
engine.upscale(small, options)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
try:
    engine.upscale(large, options)
except OutOfMemory as error:
    print(error.code)
print(*engine.upscale(small, options).size)
engine.upscale(Picture.from_array(np.zeros((200, 330), np.uint8)), options)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_too_little_memory_is_an_error_after_which_the_session_works() -> None:
    words = [sys.executable, "-c", WITH_LITTLE_MEMORY]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["out_of_memory", "128", "128"], run.stderr


def test_an_unknown_runtime_or_precision_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeUnavailable, match="no runtime 'abacus'; choose one of openvino, torch, numpy"):
        open_runtime("abacus")
    with pytest.raises(RuntimeUnavailable, match="computes in bf16 and f32, not in f64; use precision=auto"):
        choose_precision(NumPy(), "f64")
    assert choose_precision(NumPy(), "auto") == NumPy().precisions()[0]
    row = RuntimeRow(
        module="m", cls="C", kinds=("cpu",), package="no_such_package", install="pip install no-such-package"
    )
    monkeypatch.setitem(RUNTIMES, "missing", row)  # type: ignore[arg-type]
    with pytest.raises(
        RuntimeUnavailable, match="missing needs a package that is missing: pip install no-such"
    ):
        open_runtime("missing")
