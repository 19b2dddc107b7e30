"""Devices, cores and memory, read from trees that look like the kernel's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enlarger.engine import machine
from enlarger.engine.machine import Roots, Sighting
from enlarger.errors import RuntimeUnavailable

MIB = 2**20


@pytest.fixture
def roots(tmp_path: Path) -> Roots:
    """A machine with 8 GiB available and no control groups."""
    files = {"meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n", "self/cgroup": ""}
    write(tmp_path / "proc", files)
    return Roots(cgroup=tmp_path / "cgroup", proc=tmp_path / "proc", dev=tmp_path / "dev")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def looks(*usable: str):
    """What a machine with these devices answers."""

    def look(name: str) -> Sighting:
        runtime = "openvino" if name in ("cpu", "gpu") else "torch"
        return Sighting(name=name, runtime=runtime, text=f"about {name}", is_usable=name in usable)

    return look


@pytest.mark.parametrize(
    ("usable", "name", "runtime"),
    [
        (("cpu",), "cpu", "openvino"),
        (("cpu", "gpu"), "cpu", "openvino"),
        (("cpu", "mps"), "mps", "torch"),
        (("cpu", "mps", "cuda:0"), "cuda:0", "torch"),
    ],
)
def test_auto_takes_cuda_then_mps_then_the_cpu(usable: tuple[str, ...], name: str, runtime: str) -> None:
    device = machine.choose_device("auto", looks(*usable))
    assert (device.name, device.runtime) == (name, runtime)


def test_auto_says_why_it_passed_others_over() -> None:
    reason = machine.choose_device("auto", looks("cpu")).reason
    assert "cuda:0: about cuda:0" in reason
    assert "mps: about mps" in reason


def test_cuda_alone_means_the_first_one() -> None:
    assert machine.choose_device("cuda", looks("cuda:0")).name == "cuda:0"


@pytest.mark.parametrize("asked", ["cuda:1", "mps", "gpu"])
def test_an_absent_device_that_is_asked_for_is_refused_with_the_reason(asked: str) -> None:
    with pytest.raises(RuntimeUnavailable, match=f"{asked} cannot be used: about {asked}"):
        machine.choose_device(asked, looks("cpu"))


@pytest.mark.parametrize("asked", ["", "tpu", "CPU", "cuda:", "cuda:x", "cpu:1", "cuda:0 "])
def test_a_word_that_is_no_device_is_refused_by_name(asked: str) -> None:
    with pytest.raises(RuntimeUnavailable, match="must be auto, cpu, cuda:N"):
        machine.choose_device(asked, looks("cpu"))


def test_choosing_the_cpu_imports_no_runtime() -> None:
    code = (
        "import sys; from enlarger.engine import machine; machine.choose_device('cpu');"
        "sys.exit(len({'torch', 'openvino'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_gpu_driver_torch_is_not_even_imported(roots: Roots) -> None:
    seen = machine.sight("cuda:0", roots)
    assert not seen.is_usable
    assert "driver" in seen.text or "not installed" in seen.text


def test_without_control_groups_all_cores_count(roots: Roots) -> None:
    assert machine.usable_cores(roots, affinity=6).value == 6
    assert machine.default_threads(roots, affinity=6) == 0


VERSION_2 = "0::/pod/box\n"
VERSION_1 = "5:cpu,cpuacct:/pod/box\n4:memory:/pod/box\n0::/elsewhere\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        (VERSION_2, {"pod/box/cpu.max": "200000 100000\n"}, 2),
        (VERSION_2, {"pod/box/cpu.max": "150000 100000\n"}, 2),
        (VERSION_2, {"pod/box/cpu.max": "20000 100000\n"}, 1),
        (VERSION_2, {"pod/box/cpu.max": "max 100000\n"}, 8),
        (VERSION_2, {"pod/box/cpu.max": "1600000 100000\n"}, 8),
        (VERSION_2, {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "300000 100000\n"}, 3),
        (VERSION_2, {"cpu.max": "300000 100000\n"}, 3),  # the path of the host, seen from inside
        ("0::/../../box\n", {"cpu.max": "300000 100000\n"}, 3),
        (VERSION_1, {"cpu,cpuacct/pod/box/cpu.cfs_quota_us": "400000"}, 8),  # half a quota is none
        (
            VERSION_1,
            {
                "cpu,cpuacct/pod/box/cpu.cfs_quota_us": "400000\n",
                "cpu,cpuacct/pod/box/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (VERSION_1, {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "50000\n"}, 5),
        (VERSION_1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
    ],
)
def test_the_lowest_cpu_quota_above_a_process_bounds_its_threads(
    roots: Roots, groups: str, files: dict[str, str], cores: int
) -> None:
    write(roots.proc, {"self/cgroup": groups})
    write(roots.cgroup, files)
    assert machine.usable_cores(roots, affinity=8).value == cores
    assert machine.default_threads(roots, affinity=8) == (cores if cores < 8 else 0)


def test_affinity_below_the_quota_wins(roots: Roots) -> None:
    write(roots.proc, {"self/cgroup": VERSION_2})
    write(roots.cgroup, {"cpu.max": "400000 100000\n"})
    assert machine.usable_cores(roots, affinity=2).value == 2


@pytest.mark.parametrize(
    ("groups", "files", "mebibytes"),
    [
        ("", {}, 8192),
        (
            VERSION_2,
            {
                "pod/box/memory.max": f"{1024 * MIB}\n",
                "pod/box/memory.current": f"{600 * MIB}\n",
                "pod/box/memory.stat": f"anon {100 * MIB}\ninactive_file {400 * MIB}\n",
            },
            824,
        ),
        (VERSION_2, {"pod/box/memory.max": "max\n", "pod/box/memory.current": f"{600 * MIB}\n"}, 8192),
        (VERSION_2, {"pod/memory.max": f"{512 * MIB}\n", "pod/memory.current": f"{600 * MIB}\n"}, 0),
        (
            VERSION_1,
            {
                "memory/memory.limit_in_bytes": f"{2048 * MIB}\n",
                "memory/memory.usage_in_bytes": f"{1024 * MIB}\n",
                "memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {24 * MIB}\n",
            },
            1048,
        ),
        (
            VERSION_1,
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/memory.usage_in_bytes": f"{1024 * MIB}\n",
            },
            8192,
        ),
    ],
)
def test_memory_is_the_least_that_any_limit_leaves(
    roots: Roots, groups: str, files: dict[str, str], mebibytes: int
) -> None:
    write(roots.proc, {"self/cgroup": groups})
    write(roots.cgroup, files)
    found = machine.available_memory(roots)
    assert found is not None
    assert found.value == mebibytes * MIB


def test_the_address_space_limit_counts_what_is_taken(roots: Roots) -> None:
    write(roots.proc, {"self/status": "Name:\tx\nVmSize:\t  102400 kB\n"})
    found = machine.available_memory(roots, address_space=300 * MIB)
    assert found is not None
    assert found.value == 200 * MIB
    assert "RLIMIT_AS" in found.by


def test_where_nothing_is_told_nothing_is_claimed(tmp_path: Path) -> None:
    empty = Roots(cgroup=tmp_path, proc=tmp_path, dev=tmp_path)
    assert machine.available_memory(empty) is None
    assert machine.cpu_flags(empty) == frozenset()
    assert machine.usable_cores(empty, affinity=4).value == 4


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's own files")
def test_this_machine_is_read_as_the_system_tells_it() -> None:
    found = machine.available_memory()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert found is not None
    assert 0 < found.value <= total
    assert 1 <= machine.usable_cores().value <= (os.cpu_count() or 1)


def test_flags_are_read_on_intel_and_arm(roots: Roots) -> None:
    write(roots.proc, {"cpuinfo": "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 amx_bf16\n"})
    assert machine.cpu_flags(roots) >= {"avx2", "amx_bf16"}
    assert machine.cpu_name(roots) == "Some CPU"
    write(roots.proc, {"cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\n"})
    assert "asimd" in machine.cpu_flags(roots)


@pytest.mark.parametrize(
    ("flags", "precision", "a_core"),
    [
        ({"avx2"}, "f32", 65),
        ({"avx2", "avx512f"}, "f32", 135),
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, "f32", 135),
        ({"avx2", "avx512f", "avx512_bf16", "amx_bf16"}, "bf16", 850),
        ({"avx2", "avx512f", "avx512_bf16"}, "bf16", 95),
        (set(), "f32", 20),
    ],
)
def test_the_guessed_speed_follows_flags_precision_and_cores(
    flags: set[str], precision: str, a_core: float
) -> None:
    assert machine.nominal_gflops(precision, flags=frozenset(flags), cores=3) == 3 * a_core


def test_the_guess_knows_the_kernel_where_its_speed_was_measured() -> None:
    flags = frozenset({"avx512f", "avx512_bf16"})
    told = machine.nominal_gflops("bf16", flags=flags, cores=2, products="AVX-512 BF16")
    assert told > 3 * machine.nominal_gflops("f32", flags=flags, cores=2)
    with_amx = flags | {"amx_bf16"}
    assert machine.nominal_gflops("bf16", flags=with_amx, cores=2, products="AMX") == 2 * 850


def test_without_more_said_the_guess_is_for_this_machine() -> None:
    flags, cores = machine.cpu_flags(), machine.usable_cores().value
    assert machine.nominal_gflops("f32") == machine.nominal_gflops("f32", flags=flags, cores=cores) > 0
    assert machine.nominal_gflops("bf16", kind="cuda") > machine.nominal_gflops("f32")
