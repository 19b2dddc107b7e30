"""ParseNet in each runtime against facexlib's class, which is the official one and expects [-1, 1]."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.checkpoints import check_shapes
from enlarger.engine.networks.ops import Array, Hyper
from enlarger.engine.networks.torch_files import read_checkpoint
from enlarger.engine.runtime import open_runtime, precision_for
from enlarger.errors import WeightsCorrupt

from .synthetic import GENERAL, PARSENET, face_weights, save_face_checkpoint

NET = ARCHITECTURES["parsenet"]
SMALL = {"features": 64, "features_max": 64, "blocks": 1, "levels": 2, "classes": 5}


def parsed(runtime: str, hyper: Hyper, face: Array, *, precision: str = "f32") -> Array:
    tensors = face_weights("parsenet", hyper)
    session = open_runtime(runtime).open_session(NET, hyper, tensors, precision=precision, threads=0)
    return session.run("parse", face)


def face_of(height: int, width: int) -> Array:
    return np.random.default_rng(4).random((1, 3, height, width), np.float32)


@pytest.fixture(scope="module")
def official_class() -> Callable[[Hyper], Any]:
    """The class in the size that `hyper` tells, without numbers: its weights are to be assigned.

    Its file is read alone, as the package imports OpenCV and numba.
    """
    import torch

    package = find_spec("facexlib")
    assert package is not None
    assert package.origin is not None
    spec = spec_from_file_location("parsenet", Path(package.origin).parent / "parsing" / "parsenet.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)

    def made(hyper: Hyper) -> Any:
        side = 32 << hyper["levels"]
        with torch.device("meta"):
            return module.ParseNet(
                in_size=side,
                out_size=side,
                parsing_ch=hyper["classes"],
                res_depth=hyper["blocks"],
                base_ch=hyper["features"],
                ch_range=[32, hyper["features_max"]],
            )

    return made


# 256×256 gets the graph of fixed shape that OpenVINO makes for large windows, as 512×512 does.
@pytest.mark.torch
@pytest.mark.parametrize(
    ("hyper", "height", "width", "runtimes"),
    [
        (PARSENET, 64, 96, GENERAL),
        (PARSENET, 256, 256, ("openvino",)),
        (SMALL, 8, 24, GENERAL),  # two pixels are left at its deepest
    ],
)
def test_every_runtime_scores_classes_as_the_official_class_does(
    hyper: Hyper, height: int, width: int, runtimes: tuple[str, ...], official_class: Callable[[Hyper], Any]
) -> None:
    import torch

    model, face = official_class(hyper).eval(), face_of(height, width)
    state = {name: torch.from_numpy(x) for name, x in face_weights("parsenet", hyper).items()}
    model.load_state_dict(state, strict=True, assign=True)
    with torch.inference_mode():
        answer = model(torch.from_numpy(face) * 2 - 1)[0].numpy()
    assert answer.shape == (1, hyper["classes"], height, width)
    assert answer.std() > 0.3  # else agreement would mean nothing
    for runtime in runtimes:
        np.testing.assert_allclose(parsed(runtime, hyper, face), answer, rtol=0, atol=1e-4, err_msg=runtime)


@pytest.mark.torch
def test_tensors_are_the_official_ones_by_name_shape_and_order(
    official_class: Callable[[Hyper], Any],
) -> None:
    official = official_class(PARSENET).state_dict()
    assert [(name, tuple(tensor.shape)) for name, tensor in official.items()] == list(
        NET.shapes(PARSENET).items()
    )


@pytest.mark.torch
def test_a_checkpoint_loads_strictly_under_its_official_names(tmp_path: Path) -> None:
    save_face_checkpoint(tmp_path / "parts.pth", "parsenet", SMALL)
    tensors = read_checkpoint((tmp_path / "parts.pth").read_bytes())
    check_shapes(tensors, NET.shapes(SMALL))
    name = "body.0.conv1.norm.norm.running_var"
    with pytest.raises(WeightsCorrupt, match=rf"{name} of shape \(64,\) is missing"):
        check_shapes({key: x for key, x in tensors.items() if key != name}, NET.shapes(SMALL))
    with pytest.raises(WeightsCorrupt, match=r"body\.1\.weight does not belong"):
        check_shapes({**tensors, "body.1.weight": tensors[name]}, NET.shapes(SMALL))


def test_bf16_holds_to_f32_as_the_table_claims() -> None:
    face = face_of(64, 64)
    exact, rounded = (parsed("numpy", PARSENET, face, precision=precision) for precision in ("f32", "bf16"))
    assert precision_for(NET, "bf16") == "bf16"
    noise = np.mean((rounded - exact) ** 2)
    assert 45 < 10 * np.log10(np.abs(exact).max() ** 2 / noise) < 75  # NumPy rounds to bf16 on any machine
    assert precision_for(NET, "f16") == "f32"
