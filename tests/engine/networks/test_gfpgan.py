"""GFPGAN in each runtime against spandrel's class, which is the official one and expects and gives [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import FACE_MODELS
from enlarger.engine.networks.checkpoints import check_shapes, parameter_count
from enlarger.engine.networks.ops import Array, Hyper
from enlarger.engine.networks.safetensors import read_safetensors
from enlarger.engine.networks.torch_files import read_checkpoint
from enlarger.engine.networks.weights import is_present, load_weights
from enlarger.engine.runtime import open_runtime, precision_for
from enlarger.errors import WeightsCorrupt

from .synthetic import GENERAL, GFPGAN, face_weights, picture, save_face_checkpoint

NET = ARCHITECTURES["gfpgan"]
SMALL = {"size": 32, "features": 64, "channel_multiplier": 2}

Tensors = dict[str, Array]


def restored(runtime: str, hyper: Hyper, tensors: Tensors, face: Array, *, precision: str = "f32") -> Array:
    session = open_runtime(runtime).open_session(NET, hyper, tensors, precision=precision, threads=0)
    return session.run("restore", face)


def decibels(a: Array, b: Array) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


@pytest.fixture(scope="module")
def official_class(spandrel: ModuleType) -> Callable[[Hyper], Any]:
    """The class in the size that `hyper` tells, without numbers: its weights are to be assigned."""
    import torch

    def made(hyper: Hyper) -> Any:
        with torch.device("meta"):
            return spandrel.architectures.GFPGAN.GFPGAN(
                out_size=hyper["size"],
                num_style_feat=hyper["features"],
                channel_multiplier=hyper["channel_multiplier"],
                narrow=hyper["features"] / 512,
            )

    return made


@pytest.fixture(scope="module")
def expected(official_class: Callable[[Hyper], Any]) -> Callable[[Hyper, Tensors, Array], Array]:
    """What the official class makes of a face in [0, 1] with the stored noise, in [0, 1]."""
    import torch

    def compute(hyper: Hyper, tensors: Tensors, face: Array) -> Array:
        model = official_class(hyper).eval()
        state = {name: torch.from_numpy(x) for name, x in tensors.items()}
        model.load_state_dict(state, strict=True, assign=True)
        with torch.inference_mode():
            result, _ = model(torch.from_numpy(face) * 2 - 1, randomize_noise=False)
        return (result.numpy() + 1) / 2

    return compute


@pytest.fixture(scope="module")
def full_size(expected: Callable[[Hyper, Tensors, Array], Array]) -> tuple[Tensors, Array, Array]:
    """Seeded weights of the official size, a face, and the official class's answer: made once."""
    tensors, face = face_weights("gfpgan", GFPGAN), picture(512)
    return tensors, face, expected(GFPGAN, tensors, face)


@pytest.mark.torch
@pytest.mark.parametrize("runtime", GENERAL)
def test_every_runtime_restores_a_face_as_the_official_class_does(
    runtime: str, full_size: tuple[Tensors, Array, Array]
) -> None:
    tensors, face, answer = full_size
    assert answer.shape == (1, 3, 512, 512)
    assert answer.std() > 0.15  # else agreement would mean nothing
    found = restored(runtime, GFPGAN, tensors, face)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, answer, rtol=0, atol=1e-4)


@pytest.mark.torch
def test_another_size_of_it_is_the_official_class_too(
    expected: Callable[[Hyper, Tensors, Array], Array],
) -> None:
    hyper = {"size": 64, "features": 64, "channel_multiplier": 1}  # has fewer channels at 64 than at 32
    tensors, face = face_weights("gfpgan", hyper), picture(64)
    answer = expected(hyper, tensors, face)
    for runtime in GENERAL:
        found = restored(runtime, hyper, tensors, face)
        np.testing.assert_allclose(found, answer, rtol=0, atol=1e-4, err_msg=runtime)


@pytest.mark.torch
def test_tensors_are_the_official_ones_by_name_shape_and_order(
    official_class: Callable[[Hyper], Any],
) -> None:
    import torch

    with torch.device("meta"):  # names and shapes, no number is held
        model = official_class(GFPGAN)
    shapes = NET.shapes(GFPGAN)
    assert [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()] == list(
        shapes.items()
    )
    assert len(shapes) == 285
    learned = {name: shape for name, shape in shapes.items() if ".noises." not in name}
    assert parameter_count(learned) == 86_444_252


@pytest.mark.torch
@pytest.mark.parametrize("layout", ["torch", "safetensors"])
def test_a_checkpoint_loads_strictly_under_its_official_names(tmp_path: Path, layout: str) -> None:
    save_face_checkpoint(tmp_path / "face", hyper=SMALL, layout=layout)
    data = (tmp_path / "face").read_bytes()
    tensors = read_checkpoint(data, "params_ema") if layout == "torch" else read_safetensors(data)
    check_shapes(tensors, NET.shapes(SMALL))
    for name, tensor in face_weights("gfpgan", SMALL).items():
        np.testing.assert_array_equal(tensors[name], tensor)


def test_a_missing_and_an_extra_tensor_are_named() -> None:
    shapes, noise = NET.shapes(SMALL), "stylegan_decoder.noises.noise3"
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(WeightsCorrupt, match=rf"{noise} of shape \(1, 1, 16, 16\) is missing"):
        check_shapes({name: x for name, x in tensors.items() if name != noise}, shapes)
    with pytest.raises(WeightsCorrupt, match=r"conv_body_up\.9\.skip\.bias does not belong"):
        check_shapes({**tensors, "conv_body_up.9.skip.bias": np.zeros(8, np.float32)}, shapes)


def test_the_noise_is_that_of_the_checkpoint() -> None:
    tensors, face = face_weights("gfpgan", SMALL), picture(32)
    first = restored("openvino", SMALL, tensors, face)
    assert np.array_equal(restored("openvino", SMALL, tensors, face), first)
    name = "stylegan_decoder.noises.noise6"
    other = restored("openvino", SMALL, {**tensors, name: -tensors[name]}, face)
    assert np.abs(other - first).max() > 0.01


def test_bf16_holds_to_f32_as_the_table_claims() -> None:
    # NumPy rounds to bf16 on any machine. At 512 and all features: 52 dB (docs/decisions.md).
    hyper = {"size": 64, "features": 256, "channel_multiplier": 2}
    tensors, face = face_weights("gfpgan", hyper), picture(64)
    exact = restored("numpy", hyper, tensors, face)
    assert precision_for(NET, "bf16") == "bf16"
    assert 45 < decibels(restored("numpy", hyper, tensors, face, precision="bf16"), exact) < 75
    assert precision_for(NET, "f16") == "f32"


@pytest.mark.shared
def test_official_weights_give_the_golden(samples: Path, goldens: Path) -> None:
    spec = FACE_MODELS["GFPGANv1.4"]
    if not is_present(spec):
        pytest.skip("not compared with the golden: get the weights by `enlarger models pull GFPGANv1.4`")
    face = np.asarray(Image.open(samples / "blurry-face.jpg").convert("RGB"), np.float32) / 255
    golden = np.asarray(Image.open(goldens / "GFPGANv1.4-blurry-face.png").convert("RGB"), np.float32) / 255
    tensors = dict(load_weights(spec).tensors)
    # The golden's program took [0, 1] for the network's own range and drew its noise: hence the shift, and 25 dB.
    shifted = (face.transpose(2, 0, 1)[None] + 1) / 2
    results = {
        precision: restored(runtime, spec.hyper, tensors, shifted, precision=precision) * 2 - 1
        for runtime, precision in (("openvino", "f32"), ("numpy", "bf16"))
    }
    assert decibels(results["f32"].clip(0, 1)[0].transpose(1, 2, 0), golden) >= 25
    assert decibels(results["bf16"].clip(0, 1), results["f32"].clip(0, 1)) >= 45
