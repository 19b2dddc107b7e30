"""OpenVINO where no other runtime has anything alike: which precision suits the CPU, and what is compiled when."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import openvino
import pytest

from enlarger.engine import machine
from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.runtime import Session, choose_precision
from enlarger.engine.runtime.openvino import KEPT_SHAPES, STATIC_FROM_PIXELS, OpenVino

NET, HYPER = ARCHITECTURES["compact"], {"convs": 1, "features": 4, "scale": 2}


@pytest.mark.parametrize(
    ("capabilities", "flags", "suits"),
    [
        (["FP32", "BF16"], {"avx512f", "avx512_bf16", "amx_bf16"}, "bf16"),
        # 0.19 against 0.27 TFLOP/s.
        (["FP32", "BF16"], {"avx512f", "avx512_bf16"}, "f32"),
        (["FP32"], {"avx2"}, "f32"),
    ],
)
def test_bf16_is_chosen_where_the_cpu_has_amx_and_can_be_forced_where_it_has_bf16(
    capabilities: list[str], flags: set[str], suits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: capabilities)
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    cpu = OpenVino("cpu")
    assert choose_precision(cpu, "auto") == suits
    assert choose_precision(cpu, "f32") == "f32"
    assert ("bf16" in cpu.precisions()) == ("BF16" in capabilities)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(height, width) of every graph that OpenVINO has compiled, -1 for any."""
    shapes: list[tuple[int, int]] = []
    compile_model = openvino.Core.compile_model

    def noted(core: Any, model: Any, *rest: Any) -> Any:
        _, _, height, width = (
            side.get_length() if side.is_static else -1 for side in model.input().partial_shape
        )
        shapes.append((height, width))
        return compile_model(core, model, *rest)

    monkeypatch.setattr(openvino.Core, "compile_model", noted)
    return shapes


def run(session: Session, height: int, width: int) -> None:
    session.run("net", np.zeros((1, 3, height, width), np.float32))


def session() -> Session:
    weights = {name: np.zeros(shape, np.float32) for name, shape in NET.shapes(HYPER).items()}
    return OpenVino("cpu").open_session(NET, HYPER, weights, precision="f32", threads=1)


def test_small_pictures_of_any_size_share_one_compiled_graph(compiled: list[tuple[int, int]]) -> None:
    opened = session()
    for size in ((1, 1), (1, 300), (17, 23), (101, 67), (255, 257), (STATIC_FROM_PIXELS - 1, 1)):
        run(opened, *size)
    assert compiled == [(-1, -1)]


def test_graphs_of_large_windows_are_kept_and_the_one_not_used_for_longest_goes(
    compiled: list[tuple[int, int]],
) -> None:
    opened = session()
    sizes = [(256, 256 + more) for more in range(KEPT_SHAPES)]
    for size in (*sizes, *sizes):
        run(opened, *size)
    assert compiled == sizes
    one_more = (256, 400)
    for size in (sizes[0], one_more, sizes[0], sizes[2]):
        run(opened, *size)
    assert compiled == [*sizes, one_more]
    run(opened, *sizes[1])
    assert compiled == [*sizes, one_more, sizes[1]]


STACKS = """
import ctypes, gc, io
from PIL import Image
from enlarger.engine.options import Options
from enlarger.engine.pipeline import Engine

class Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

def handlers_stack():
    found = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.sp

file, stacks = io.BytesIO(), set()
Image.new("RGB", (8, 8)).save(file, "png")
engines = []
for _ in range(3):
    engines.append(Engine())
    engines[-1].upscale(file.getvalue(), Options(model="realesr-animevideov3"))
    stacks.add(handlers_stack())
while engines:
    engines.pop(0)
    gc.collect()
    stacks.add(handlers_stack())
print(len(stacks))
"""


def test_stack_of_signal_handlers_is_none_that_went_with_an_engine() -> None:
    """Cores that went in the order they came left a freed one to the handlers, and Ctrl-C ended in a crash."""
    done = subprocess.run([sys.executable, "-c", STACKS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
