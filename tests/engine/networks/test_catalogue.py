"""The facts of the catalogue, against counts of their own and what was published."""

from __future__ import annotations

import re

import pytest

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import (
    DEFAULT_FACE_MODEL,
    DEFAULT_MODEL,
    FACE_MODELS,
    FACE_SET,
    MODELS,
    FaceModelSpec,
    ModelSpec,
)
from enlarger.engine.networks.checkpoints import parameter_count
from enlarger.engine.networks.imports import mflops_per_pixel

EVERY = pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.name)

PARAMETERS = {
    "RealESRGAN_x4plus": 16_697_987,
    "RealESRGAN_x2plus": 16_703_171,
    "RealESRNet_x4plus": 16_697_987,
    "RealESRGAN_x4plus_anime_6B": 4_467_779,
    "realesr-general-x4v3": 1_213_296,
    "realesr-animevideov3": 621_424,
}
"""As counted in the official programs."""


def test_the_models_are_those_of_the_official_releases() -> None:
    assert MODELS.keys() == PARAMETERS.keys()
    assert DEFAULT_MODEL in MODELS


@EVERY
def test_a_row_describes_the_network_it_names(spec: ModelSpec) -> None:
    net = ARCHITECTURES[spec.net]
    assert parameter_count(net.shapes(spec.hyper)) == PARAMETERS[spec.name]
    assert net.upscale(spec.hyper) == spec.scale
    assert net.multiple(spec.hyper) == spec.unit
    assert mflops_per_pixel(spec.net, spec.hyper) == pytest.approx(spec.mflops_per_pixel, rel=2e-3)


@EVERY
def test_a_row_says_where_its_files_are_from_and_what_they_are(spec: ModelSpec) -> None:
    for file in (*spec.files, *spec.denoise_files):
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert bool(file.package) != bool(file.url)
        if file.url:
            assert file.url.startswith("https://github.com/xinntao/Real-ESRGAN/releases/download/v0.")
            assert file.url.endswith(f"/{file.name}")
            # Four bytes a parameter, and names and shapes: a wrong size would be far off.
            assert 4 * PARAMETERS[spec.name] < file.bytes < 4 * PARAMETERS[spec.name] * 1.02
    assert spec.licence
    assert spec.has_denoise == (spec.name == "realesr-general-x4v3")


@EVERY
def test_a_pulled_file_comes_before_the_copy_in_the_data_wheel(spec: ModelSpec) -> None:
    assert [bool(file.package) for file in spec.files] in ([False], [False, True])


FACE_SIZES = {
    "GFPGANv1.4": 348_632_874,
    "GFPGANv1.3": 348_632_874,
    "YuNet": 232_589,
    "ParseNet": 85_331_193,
}
"""Bytes of the files as published."""


@pytest.mark.parametrize("spec", FACE_MODELS.values(), ids=lambda spec: spec.name)
def test_a_row_of_faces_says_what_its_file_is_and_under_which_terms(spec: FaceModelSpec) -> None:
    (file,) = spec.files
    assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
    assert file.bytes == FACE_SIZES.get(spec.name, 0)
    # What has no size that anybody published cannot be pulled.
    assert bool(file.url) == (file.bytes > 0)
    assert not file.url or (file.url.startswith("https://") and file.url.endswith(f"/{file.name}"))
    assert spec.licence
    assert spec.origin.startswith("https://github.com/")
    if spec.net != "yunet":
        # Four bytes a number; names, shapes and counters beside them.
        numbers = parameter_count(ARCHITECTURES[spec.net].shapes(spec.hyper))
        assert not file.bytes or 4 * numbers < file.bytes < 4 * numbers * 1.02


def test_faces_need_one_of_each_role_by_default() -> None:
    assert [FACE_MODELS[name].role for name in FACE_SET] == ["restorer", "detector", "mask"]
    assert DEFAULT_FACE_MODEL in FACE_SET
    assert not FACE_MODELS.keys() & MODELS.keys()


def test_no_file_stands_for_two_networks() -> None:
    specs = (*MODELS.values(), *FACE_MODELS.values())
    hashes = [file.sha256 for spec in specs for file in spec.every_file]
    assert len(hashes) == len(set(hashes))
