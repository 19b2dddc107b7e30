from __future__ import annotations

import pytest

from enlarger.jobs.routes import PictureSize, Route, route_of, served


def test_jobs_of_a_model_go_to_its_pool_and_all_others_to_any() -> None:
    pools = {"big-net": "gpu"}
    assert [str(route_of(model, pools)) for model in ("big-net", "other")] == ["gpu.small", "any.small"]


@pytest.mark.parametrize("text", ["any.small", "lab-2.large"])
def test_route_is_read_as_it_is_written(text: str) -> None:
    assert str(Route.parse(text)) == text


@pytest.mark.parametrize(
    ("devices", "pools", "sizes", "expected"),
    [
        (["auto"], [], ["small", "large"], "any.small cpu.small any.large cpu.large"),
        (["cuda:0", "cuda:1"], ["lab"], ["small"], "any.small gpu.small lab.small"),
        (["cpu", "cuda:0"], [], ["large"], "any.large cpu.large gpu.large"),
    ],
)
def test_worker_serves_any_the_kinds_of_its_devices_and_its_pools(
    devices: list[str], pools: list[str], sizes: list[str], expected: str
) -> None:
    assert " ".join(map(str, served(devices, pools, sizes))) == expected


def test_sizes_are_those_of_the_setting() -> None:
    assert [size.value for size in PictureSize] == ["small", "large"]
