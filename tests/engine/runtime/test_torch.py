"""The torch runtime where no other runtime has anything alike: memory, process-wide settings, devices."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enlarger.engine import machine
from enlarger.engine.networks.ops import Net, Stage
from enlarger.engine.runtime import Session, open_runtime
from enlarger.errors import OutOfMemory, RuntimeUnavailable

pytestmark = pytest.mark.torch

PIXELS = np.full((1, 3, 4, 4), 0.5, np.float32)


def session_of(forward: Callable[[Any, Any, Any], Any], threads: int = 0) -> Session:
    """A session of a network of one stage that has no weights."""
    net = Net(
        name="test",
        stages=(Stage(name="net", forward=forward, channels=lambda hyper: 3),),
        shapes=lambda hyper: {},
        upscale=lambda hyper: 1,
        multiple=lambda hyper: 1,
    )
    return open_runtime("torch").open_session(net, {}, {}, precision="f32", threads=threads)


def failing(words: str) -> Callable[[Any, Any, Any], Any]:
    def forward(_ops: Any, _x: Any, _hyper: Any) -> Any:
        raise RuntimeError(words)

    return forward


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "HIP out of memory. Tried to allocate 2.00 GiB",
        "MPS backend out of memory (MPS allocated: 6.04 GB, max allowed: 6.77 GB)",
        "Invalid buffer size: 12.00 GB",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 68719476736 bytes.",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 68719476736 bytes.",
    ],
)
def test_lack_of_memory_is_told_from_other_failures_by_its_words(words: str) -> None:
    with pytest.raises(OutOfMemory):
        session_of(failing(words)).run("net", PIXELS)


def test_any_other_failure_is_told_with_its_words() -> None:
    with pytest.raises(RuntimeUnavailable, match="no kernel image is available"):
        session_of(failing("CUDA error: no kernel image is available")).run("net", PIXELS)


def test_a_failed_run_holds_no_memory_while_its_error_is_kept() -> None:
    import torch

    held: list[weakref.ref[Any]] = []

    def forward(ops: Any, x: Any, _hyper: Any) -> Any:
        large = ops.nearest(x, 2)
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory) as caught:
        session_of(forward).run("net", PIXELS)
    assert caught.value.__cause__ is not None
    assert held[0]() is None


def test_settings_of_the_process_hold_during_a_run_and_are_given_back() -> None:
    import torch

    def settings() -> tuple[Any, ...]:
        cudnn = torch.backends.cudnn
        return torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32

    during: list[tuple[Any, ...]] = []

    def forward(_ops: Any, x: Any, _hyper: Any) -> Any:
        during.append((*settings(), torch.is_inference_mode_enabled()))
        return x

    before = settings()
    session_of(forward, threads=1).run("net", PIXELS)
    assert during == [(1, True, False, False, True)]
    assert settings() == before


@pytest.mark.parametrize("device", ["cuda:0", "mps", "cuda:63"])
def test_a_device_that_is_not_there_is_refused_with_the_reason(device: str) -> None:
    if (seen := machine.sight(device)).is_usable:
        pytest.skip(f"this machine has {device}")
    with pytest.raises(RuntimeUnavailable) as caught:
        open_runtime("torch", device)
    assert seen.text in caught.value.message


@pytest.mark.parametrize(("runtime", "device"), [("numpy", "cuda:0"), ("openvino", "mps"), ("torch", "gpu")])
def test_a_runtime_refuses_a_kind_of_device_it_does_not_drive(runtime: str, device: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"the runtime {runtime} computes on .* not on '{device}'"):
        open_runtime(runtime, device)


def test_it_needs_torch_and_numpy_alone() -> None:
    code = (
        "import sys; from enlarger.engine.runtime import open_runtime; open_runtime('torch');"
        "sys.exit(', '.join({'openvino', 'pyvips', 'PIL', 'torchvision'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_torch_the_way_to_get_it_is_told(root: Path, tmp_path: Path) -> None:
    installed = Path(np.__file__).parent.parent
    for name in ("numpy", "numpy.libs"):  # an environment with NumPy and nothing else
        (tmp_path / name).symlink_to(installed / name)
    code = f"""
import sys
sys.path[:0] = [{str(root / "src")!r}, {str(tmp_path)!r}]
from enlarger.engine import machine
from enlarger.engine.runtime import open_runtime
from enlarger.errors import RuntimeUnavailable
print(machine.sight("cuda:0").text)
try:
    open_runtime("torch")
except RuntimeUnavailable as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.count("pip install 'enlarger[torch]'") == 2, done.stderr
