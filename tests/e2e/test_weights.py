"""A job whose network has to be downloaded first, computed by the real device from what came."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from enlarger.assembly import Outside, Role, assembled
from enlarger.engine.child import ChildConfig, DeviceChild
from enlarger.engine.networks import compact
from enlarger.engine.networks.cards import models
from enlarger.engine.networks.catalogue import ModelSpec
from enlarger.engine.networks.imports import import_model
from enlarger.engine.networks.safetensors import write_safetensors
from enlarger.engine.networks.weights_folder import WeightsFolder
from enlarger.engine.options import Options
from enlarger.jobs.job import State
from enlarger.settings import Settings

from ..publisher import Publisher
from .conftest import DEADLINE_SECONDS, inline

HYPER = {"convs": 1, "features": 4, "scale": 2}
NOTHING = {name: np.zeros(shape, np.float32) for name, shape in compact.shapes(HYPER).items()}
"""With these weights a compact network repeats pixels: the result is known."""


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A model `small` whose card is in the weights folder and whose weights are not."""
    (tmp_path / "small.safetensors").write_bytes(write_safetensors(NOTHING))
    spec = import_model(tmp_path / "small.safetensors", tmp_path / "weights")
    path = tmp_path / "weights" / spec.files[0].name
    content = path.read_bytes()
    path.unlink()
    return content


def rows_of(publisher: Publisher) -> Callable[[Path], dict[str, ModelSpec]]:
    def rows(weights_dir: Path) -> dict[str, ModelSpec]:
        spec = models(weights_dir)["small"]
        file = spec.files[0]
        return {"small": replace(spec, files=(publisher.published(file, file.name),))}

    return rows


def test_a_job_downloads_its_network_and_runs_it(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    publisher = Publisher(content)
    publisher.gate.set()
    weights = WeightsFolder(tmp_path / "weights", rows=rows_of(publisher))
    settings = Settings(
        data_dir=tmp_path / "data",
        weights_dir=tmp_path / "weights",
        auto_download=True,
        min_free_bytes=0,
    )

    async def run() -> bytes:
        device = DeviceChild(ChildConfig(weights_dir=tmp_path / "weights"))
        try:
            outside = Outside(devices={"cpu": device}, weights=weights)
            async with assembled(settings, Role.SERVE, outside) as parts:
                (key,) = await parts.store.keys()
                job = await parts.service.submit(
                    key,
                    model="wavespeed-ai/real-esrgan",
                    image=inline(file.getvalue()),
                    options=Options(model="small", scale=2.0, output_format="png", precision="f32"),
                    echo={},
                )
                done = await parts.service.wait(key, job.id, DEADLINE_SECONDS)
                assert (done.state, done.error_message) == (State.COMPLETED, "")
                return (settings.data_dir / "blobs" / done.outputs[0].blob_key).read_bytes()
        finally:
            await device.close()

    try:
        with Image.open(io.BytesIO(asyncio.run(run()))) as made:
            result = np.asarray(made)
    finally:
        publisher.stop()
    np.testing.assert_array_equal(result, pixels.repeat(2, 0).repeat(2, 1))
    assert publisher.starts == [0]
