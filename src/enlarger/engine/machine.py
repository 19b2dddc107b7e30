"""What this machine offers: devices, cores, memory, and a first guess of its speed.

Readers of /proc, /sys and /dev take their roots as an argument. Packages that drive a device are imported only
when that device is asked after.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from enlarger.errors import RuntimeUnavailable

TORCH_INSTALL = "pip install 'enlarger[torch]'"
_DEVICE = re.compile(r"auto|cpu|mps|(cuda|gpu)(:\d{1,2})?")
_AUTO = ("cuda:0", "mps", "cpu")
_GPU_NODES = ("nvidiactl", "nvidia0", "nvmap", "kfd", "dxg")
"""What the drivers of NVIDIA, NVIDIA Jetson, AMD, and Windows' Linux put under /dev."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Where the kernel's files are."""

    cgroup: Path = Path("/sys/fs/cgroup")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")


ROOTS = Roots()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A device that was looked for: `text` is what it is, or why it cannot be used."""

    name: str
    runtime: str
    text: str
    is_usable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The device to compute on. `name` is cpu, cuda:N, mps, gpu or gpu:N; `runtime` one of RUNTIMES."""

    name: str
    runtime: str
    reason: str


@dataclass(frozen=True, slots=True)
class Bound:
    """How much there is, and what sets that limit."""

    value: int
    by: str


def sight(name: str, roots: Roots = ROOTS) -> Sighting:
    """Look for one device: cpu, cuda:N, mps, gpu or gpu:N."""
    kind, _, index = name.partition(":")
    look = {"cuda": _sight_cuda, "mps": _sight_mps, "gpu": _sight_gpu, "cpu": _sight_cpu}[kind]
    return look(name, int(index or 0), roots)


def choose_device(asked: str, look: Callable[[str], Sighting] = sight) -> Device:
    """The device `asked` means; auto is the first usable one of CUDA, MPS and the CPU.

    Raises RuntimeUnavailable, with the reason, when there is no such device or it cannot be used.
    """
    if not _DEVICE.fullmatch(asked):
        raise RuntimeUnavailable(f"device must be auto, cpu, cuda:N, mps, gpu or gpu:N, not {asked!r}")
    if asked == "auto":
        return _first_usable(look)
    seen = look("cuda:0" if asked == "cuda" else asked)
    if not seen.is_usable:
        raise RuntimeUnavailable(f"device {seen.name} cannot be used: {seen.text}; device=auto takes another")
    return Device(name=seen.name, runtime=seen.runtime, reason="as asked")


def usable_cores(roots: Roots = ROOTS, *, affinity: int | None = None) -> Bound:
    """Cores this process may keep busy: its CPU affinity, or less where a control group has a quota.

    A part of a core counts as one. `affinity` stands for the number the system gives.
    """
    cores = Bound(_affinity() if affinity is None else affinity, "the cores of this machine")
    for folder in _cgroup_folders(roots, "cpu"):
        quota = _cpu_quota(folder)
        if quota is not None and max(1, math.ceil(quota)) < cores.value:
            cores = Bound(max(1, math.ceil(quota)), f"the CPU quota of its control group ({quota:g} cores)")
    return cores


def default_threads(roots: Roots = ROOTS, *, affinity: int | None = None) -> int:
    """Threads to compute with when none are asked: 0, the runtime's own choice, unless a quota allows fewer."""
    # Runtimes count cores and know affinity, but not quotas: more threads than those would be paused in turn.
    available = _affinity() if affinity is None else affinity
    usable = usable_cores(roots, affinity=available).value
    return usable if usable < available else 0


def available_memory(roots: Roots = ROOTS, *, address_space: int | None = None) -> Bound | None:
    """Bytes this process may still take, and what ends them; None where the system does not tell.

    `address_space` stands for the limit of RLIMIT_AS in bytes.
    """
    limit = _address_space() if address_space is None else address_space
    bounds: list[Bound] = []
    if (free := _field(roots.proc / "meminfo", "MemAvailable:")) is not None:
        bounds.append(Bound(free * 1024, "the memory of this machine"))
    lefts = map(_cgroup_memory_left, _cgroup_folders(roots, "memory"))
    bounds += [Bound(left, "the memory limit of its control group") for left in lefts if left is not None]
    if limit is not None and (taken := _field(roots.proc / "self" / "status", "VmSize:")) is not None:
        bounds.append(Bound(max(0, limit - taken * 1024), "the address space limit (RLIMIT_AS)"))
    return min(bounds, key=lambda bound: bound.value, default=None)


def cpu_flags(roots: Roots = ROOTS) -> frozenset[str]:
    """The instruction sets of the CPU by the kernel's names; empty where the system does not tell."""
    line = _cpuinfo(roots, "flags") or _cpuinfo(roots, "Features")
    return frozenset(line.split())


def cpu_name(roots: Roots = ROOTS) -> str:
    return _cpuinfo(roots, "model name") or platform.processor() or "unknown CPU"


_GFLOPS_A_CORE = (
    ("amx_bf16", ("bf16",), 850),
    ("avx512_bf16", ("bf16",), 95),
    ("avx512f", ("f32",), 135),
    ("avx2", ("f32",), 65),
)
_GFLOPS_ANY_CORE = 20
_GFLOPS_A_CORE_OF_THE_KERNEL = {"AVX-512 BF16": 460}
"""By what it multiplies with. With AMX it was never measured, and is taken for no quicker than OpenVINO."""
_GFLOPS_DEVICE = {"cuda": 10_000, "mps": 2_000, "gpu": 1_000}


def nominal_gflops(
    precision: str,
    *,
    kind: str = "cpu",
    products: str = "",
    flags: frozenset[str] | None = None,
    cores: int | None = None,
) -> float:
    """A guess of the speed on the networks, in 10⁹ operations a second, for use before anything is measured.

    CPU: RealESRGAN_x4plus was measured on two cores each with AVX2, AVX-512 and AMX, and is taken to grow with
    the cores, which flatters many-core machines. Other kinds (cuda, mps, gpu) are round numbers of the right
    size for a common device, not measurements. `products` are those of the native kernel, where that computes.
    `flags` and `cores` are this machine's when not given.
    """
    if kind != "cpu":
        return float(_GFLOPS_DEVICE[kind])
    has = cpu_flags() if flags is None else flags
    a_core = (speed for flag, precisions, speed in _GFLOPS_A_CORE if flag in has and precision in precisions)
    speed = _GFLOPS_A_CORE_OF_THE_KERNEL.get(products) or next(a_core, _GFLOPS_ANY_CORE)
    return float(speed * (usable_cores().value if cores is None else cores))


def _first_usable(look: Callable[[str], Sighting]) -> Device:
    missing: list[str] = []
    for name in _AUTO:
        seen = look(name)
        if seen.is_usable:
            found = f"{seen.text}, the first usable of {', '.join(_AUTO)}"
            return Device(name=name, runtime=seen.runtime, reason="; ".join([found, *missing]))
        missing.append(f"{name}: {seen.text}")
    raise RuntimeUnavailable(f"no device can be used: {'; '.join(missing)}")


def _sight_cpu(name: str, index: int, roots: Roots) -> Sighting:
    del index
    return Sighting(name=name, runtime="openvino", text=cpu_name(roots))


def _sight_cuda(name: str, index: int, roots: Roots) -> Sighting:
    def no(text: str) -> Sighting:
        return Sighting(name=name, runtime="torch", text=text, is_usable=False)

    if find_spec("torch") is None:
        return no(f"PyTorch is not installed ({TORCH_INSTALL})")
    # Importing torch takes seconds: not where no GPU can be.
    if platform.system() == "Darwin" or (
        platform.system() == "Linux" and not any((roots.dev / node).exists() for node in _GPU_NODES)
    ):
        return no("this machine has no driver of an NVIDIA or AMD GPU")
    torch = _imported("torch")
    if torch is None:
        return no("PyTorch is installed but cannot be imported")
    if not torch.cuda.is_available():
        return no(f"PyTorch {torch.__version__} finds no GPU it can use")
    if index >= torch.cuda.device_count():
        return no(f"there are {torch.cuda.device_count()} GPUs, counted from 0")
    return Sighting(name=name, runtime="torch", text=str(torch.cuda.get_device_name(index)))


def _sight_mps(name: str, index: int, roots: Roots) -> Sighting:
    del index, roots
    if platform.system() != "Darwin":
        text = "only Apple computers have it"
    elif find_spec("torch") is None:
        text = f"PyTorch is not installed ({TORCH_INSTALL})"
    elif (torch := _imported("torch")) is None or not torch.backends.mps.is_available():
        text = "PyTorch finds no Metal device"
    else:
        return Sighting(name=name, runtime="torch", text=f"Metal on {platform.processor()}")
    return Sighting(name=name, runtime="torch", text=text, is_usable=False)


def _sight_gpu(name: str, index: int, roots: Roots) -> Sighting:
    del roots
    if _imported("openvino") is None:
        return Sighting(name=name, runtime="openvino", text="OpenVINO cannot be imported", is_usable=False)
    from enlarger.engine.runtime.openvino_core import openvino_core

    core = openvino_core()
    found = [device for device in core.available_devices if device.startswith("GPU")]
    if index >= len(found):
        text = f"OpenVINO finds {len(found)} Intel GPUs"
        return Sighting(name=name, runtime="openvino", text=text, is_usable=False)
    return Sighting(
        name=name, runtime="openvino", text=str(core.get_property(found[index], "FULL_DEVICE_NAME"))
    )


def _imported(package: str) -> Any:
    """The package, or None: a broken installation must not keep the CPU from being used."""
    try:
        return import_module(package)
    except (ImportError, OSError):
        return None


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _address_space() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _cgroup_folders(roots: Roots, controller: str) -> Iterator[Path]:
    """Every control group that bounds this process for `controller`: its own and those above it.

    Version 1 has a tree a controller, version 2 one tree. Inside a container the path is often that of the
    host, which is not there; the top of the tree is then the container's own group.
    """
    for line in _lines(roots.proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tops = [roots.cgroup, roots.cgroup / "unified"]
        elif controller in controllers.split(","):
            tops = [roots.cgroup / controllers, roots.cgroup / controller]
        else:
            continue
        parts = [] if ".." in path else [part for part in path.split("/") if part]
        for top in dict.fromkeys(tops):
            yield from (top.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _cpu_quota(folder: Path) -> float | None:
    """Cores a control group may keep busy; None without a quota."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    if not words:
        words = _lines(folder / "cpu.cfs_quota_us") + _lines(folder / "cpu.cfs_period_us")
    if len(words) != 2 or words[0] in ("max", "-1"):
        return None
    return int(words[0]) / int(words[1])


def _cgroup_memory_left(folder: Path) -> int | None:
    """Bytes below the limit of a control group, its file cache counted as free; None without a limit."""
    for limit_file, used_file, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _lines(folder / limit_file), _lines(folder / used_file)
        if limit and used and limit[0].isdigit():
            reclaimable = _field(folder / "memory.stat", cache) or 0
            return max(0, int(limit[0]) - int(used[0]) + reclaimable)
    return None


def _field(path: Path, name: str) -> int | None:
    """The number behind `name` at the start of a line."""
    found = (line.split() for line in _lines(path))
    return next((int(words[1]) for words in found if len(words) > 1 and words[0] == name), None)


def _cpuinfo(roots: Roots, key: str) -> str:
    pairs = (line.partition(":") for line in _lines(roots.proc / "cpuinfo"))
    return next((value.strip() for name, _, value in pairs if name.strip() == key), "")


def _lines(path: Path) -> list[str]:
    """The lines of a file of the kernel; none where it does not exist or may not be read."""
    try:
        return path.read_text("utf-8").splitlines()
    except OSError:
        return []
