"""The files of the face models: official ones by their sha256, a user's by their shapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.cards import face_models, models, read_card
from enlarger.engine.networks.catalogue import FACE_MODELS, MODELS
from enlarger.engine.networks.imports import import_model
from enlarger.engine.networks.ops import Array
from enlarger.engine.networks.safetensors import write_safetensors
from enlarger.engine.networks.weights import (
    find_weights,
    load_onnx,
    load_weights,
    place,
    pull_weights,
    remove_weights,
    verify_weights,
)
from enlarger.errors import InvalidOption, ModelUnavailable, WeightsCorrupt

from .conftest import Site, send

YUNET = FACE_MODELS["YuNet"]
LAST = "out_mask_conv.conv2d"  # of ParseNet


def zeros(net: str) -> dict[str, Array]:
    """Weights of the right shapes that cost no time to make."""
    spec = next(row for row in FACE_MODELS.values() if row.net == net)
    return {
        name: np.zeros(shape, np.float32) for name, shape in ARCHITECTURES[net].shapes(spec.hyper).items()
    }


def write(path: Path, tensors: dict[str, Array]) -> Path:
    path.write_bytes(write_safetensors(tensors))
    return path


@pytest.fixture
def yunet(root: Path) -> bytes:
    return (root.parent / "shared" / "weights" / YUNET.files[0].name).read_bytes()


@pytest.mark.shared
def test_the_official_detector_is_known_by_its_sha256_whatever_its_name(tmp_path: Path, yunet: bytes) -> None:
    (tmp_path / "from a stick.bin").write_bytes(yunet)
    folder = tmp_path / "weights"
    assert import_model(tmp_path / "from a stick.bin", folder) == YUNET
    assert find_weights(YUNET, folder) == folder / "face_detection_yunet_2023mar.onnx"
    assert load_onnx(YUNET, folder) == yunet
    assert verify_weights(YUNET, folder) == [find_weights(YUNET, folder)]
    assert place(YUNET, folder) == "pulled"
    assert remove_weights(YUNET, folder) == [folder / "face_detection_yunet_2023mar.onnx"]
    assert place(YUNET, folder) == "missing"


@pytest.mark.shared
def test_the_official_detector_is_pulled_from_a_mirror(tmp_path: Path, yunet: bytes, site: Site) -> None:
    site["/face_detection_yunet_2023mar.onnx"] = [send(yunet)]
    assert pull_weights(YUNET, tmp_path, mirrors=[site.url]) == [tmp_path / YUNET.files[0].name]
    assert load_onnx(YUNET, tmp_path) == yunet


def test_a_changed_detector_is_never_handed_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / YUNET.files[0].name).write_bytes(b"something else")
    for check in (load_onnx, verify_weights):
        with pytest.raises(WeightsCorrupt, match=r"YuNet: .*remove it and get it again"):
            check(YUNET, tmp_path)


@pytest.mark.parametrize("name", ["GFPGANv1.4", "YuNet", "ParseNet"])
def test_what_is_missing_is_told_with_the_command_for_all_three(tmp_path: Path, name: str) -> None:
    load = load_onnx if name == "YuNet" else load_weights
    with pytest.raises(ModelUnavailable, match=rf"{name}: .*with: enlarger models pull faces$"):
        load(FACE_MODELS[name], tmp_path)


def test_a_version_nobody_published_the_size_of_cannot_be_pulled_and_the_way_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"TencentARC.*enlarger models import GFPGANv1\.2\.pth"):
        pull_weights(FACE_MODELS["GFPGANv1.2"], tmp_path)
    with pytest.raises(ModelUnavailable, match="enlarger models import"):
        load_weights(FACE_MODELS["GFPGANv1.2"], tmp_path)


@pytest.mark.parametrize(("net", "role"), [("gfpgan", "restorer"), ("parsenet", "mask")])
def test_a_checkpoint_of_known_shapes_becomes_a_model_of_that_role(
    tmp_path: Path, net: str, role: str
) -> None:
    spec = import_model(write(tmp_path / "mine.safetensors", zeros(net)), tmp_path, licence="CC0-1.0")
    assert (spec.name, spec.net, spec.licence) == ("mine", net, "CC0-1.0")
    assert face_models(tmp_path) == {**FACE_MODELS, "mine": spec}
    assert face_models(tmp_path)["mine"].role == role
    assert models(tmp_path) == MODELS
    loaded = load_weights(spec, tmp_path).tensors
    assert {name: tensor.shape for name, tensor in loaded.items()} == {
        name: tensor.shape for name, tensor in zeros(net).items()
    }
    with pytest.raises(InvalidOption, match="leave denoise at 1"):
        load_weights(spec, tmp_path, denoise=0.5)
    assert len(remove_weights(spec, tmp_path)) == 2


@pytest.mark.parametrize(
    ("net", "change", "told"),
    [
        ("gfpgan", {"final_linear.weight": None}, r"tensor final_linear\.weight of shape .* is missing"),
        ("parsenet", {f"{LAST}.weight": None}, rf"tensor {LAST}\.weight of shape .* is missing"),
        ("parsenet", {f"{LAST}.bias": np.zeros(11, np.float32)}, r"bias has shape \(11,\), the network"),
        ("parsenet", {"surplus": np.zeros(1, np.float32)}, "surplus does not belong"),
        ("parsenet", {f"{LAST}.bias": np.full(19, np.nan, np.float32)}, f"{LAST}.bias holds values"),
    ],
)
def test_a_relative_is_refused_with_the_tensor_that_differs(
    tmp_path: Path, net: str, change: dict[str, Array | None], told: str
) -> None:
    changed = {name: tensor for name, tensor in (zeros(net) | change).items() if tensor is not None}
    with pytest.raises(WeightsCorrupt, match=told):
        import_model(write(tmp_path / "relative.safetensors", changed), tmp_path)
    assert not (tmp_path / "imported").exists()


def test_an_onnx_file_that_is_not_the_official_one_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "retinaface.onnx").write_bytes(b"\x08\x06\x12\x07pytorch")
    with pytest.raises(WeightsCorrupt, match="of ONNX files only the official YuNet is known"):
        import_model(tmp_path / "retinaface.onnx", tmp_path)


@pytest.mark.parametrize("name", ["YuNet", "gfpganv1.4", "faces"])
def test_names_of_the_catalogue_and_words_of_commands_are_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidOption, match="choose another"):
        import_model(write(tmp_path / "mine.safetensors", {}), tmp_path, name=name)


def test_a_card_of_faces_of_another_size_is_no_card(tmp_path: Path) -> None:
    import_model(write(tmp_path / "mine.safetensors", zeros("parsenet")), tmp_path)
    card = tmp_path / "imported" / "mine.json"
    row = json.loads(card.read_text())
    card.write_text(json.dumps({**row, "hyper": {**row["hyper"], "classes": 20}}))
    with pytest.raises(WeightsCorrupt, match="no proper hyper"):
        read_card(card)
    assert face_models(tmp_path) == FACE_MODELS
