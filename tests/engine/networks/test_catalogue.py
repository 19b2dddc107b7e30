"""The facts of the catalogue, against counts of their own and what was published."""

from __future__ import annotations

import re

import pytest

from enlarger.engine.networks.architectures import ARCHITECTURES
from enlarger.engine.networks.catalogue import DEFAULT_MODEL, MODELS, ModelSpec
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


def test_no_file_stands_for_two_networks() -> None:
    hashes = [file.sha256 for spec in MODELS.values() for file in (*spec.files, *spec.denoise_files)]
    assert len(hashes) == len(set(hashes))
