from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from enlarger.engine.faces.face import Array
from enlarger.engine.faces.restorer import NetworkMasker, NetworkRestorer, restored_planes
from enlarger.engine.networks import gfpgan
from enlarger.engine.networks.imports import import_model
from enlarger.engine.networks.weights import load_weights
from enlarger.engine.options import Options
from enlarger.engine.pictures.picture import Picture
from enlarger.engine.pipeline import Engine
from enlarger.engine.runtime.openvino import OpenVino
from enlarger.errors import NumericFault

from ..networks.synthetic import GFPGAN, save_face_checkpoint
from .stand_ins import waves


@dataclass
class Answering:
    """A session that always gives the same."""

    answer: Array
    precision: str = "f32"

    def run(self, stage: str, x_nchw: Array) -> Array:
        assert x_nchw.shape == (1, 3, 512, 512)
        return self.answer


FACE = waves().transpose(2, 0, 1)[None]
BROKEN = np.full_like(FACE, np.nan)


def test_a_network_sees_channels_first_and_answers_channels_last() -> None:
    restored = NetworkRestorer(Answering(FACE)).restore(np.zeros((512, 512, 3), np.float32))
    np.testing.assert_array_equal(restored, waves())


def test_values_that_are_no_numbers_are_computed_again_in_f32_and_so_is_what_follows() -> None:
    opened: list[int] = []

    def safe() -> Answering:
        opened.append(1)
        return Answering(FACE)

    restorer = NetworkRestorer(Answering(BROKEN, "bf16"), safe)
    for _ in range(2):
        assert np.isfinite(restorer.restore(waves())).all()
    assert (restorer.precision, len(opened)) == ("f32", 1)
    with pytest.raises(NumericFault, match="no numbers"):
        restored_planes(NetworkRestorer(Answering(BROKEN), safe), FACE[0])


def test_values_beyond_the_range_are_cut_off() -> None:
    planes = restored_planes(NetworkRestorer(Answering(FACE * 4 - 1)), FACE[0])
    assert (planes.min(), planes.max()) == (0, 1)


def test_class_scores_become_a_mask() -> None:
    scores = np.zeros((1, 19, 512, 512), np.float32)
    scores[:, 1, 100:400, 100:400] = 1
    mask = NetworkMasker(Answering(scores)).mask(waves())
    assert mask.shape == (512, 512)
    assert (mask[250, 250] > 0.99, mask[20, 20] < 0.01) == (True, True)


def test_imported_weights_restore_as_their_network_does(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_face_checkpoint(file, layout="safetensors")
    folder = tmp_path / "weights"
    spec = import_model(file, folder)
    pixels = np.rint(waves(100.0) * 255).astype(np.uint8)
    pixels[:, :, 2] //= 2  # a picture in gray would be restored in gray

    session = OpenVino().open_session(
        gfpgan.NET, GFPGAN, load_weights(spec, folder).tensors, precision="f32", threads=0
    )
    x_nchw = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / 255
    wanted = np.clip(session.run("restore", x_nchw)[0].transpose(1, 2, 0), 0, 1) * 255

    options = Options(
        model="realesr-animevideov3",
        scale=1,
        face_enhance=True,
        aligned=True,
        face_model="mine",
        precision="f32",
    )
    engine = Engine(weights_dir=folder)
    before = engine.plan((512, 512), options).seconds
    result = engine.upscale(Picture.from_array(pixels), options)
    assert engine.plan((512, 512), options).seconds != before  # measured, no longer guessed
    # Where the network changed next to nothing the picture stays.
    assert np.percentile(np.abs(result.pixels - wanted), 99) <= 1
    report = result.report["faces"]
    assert (report["model"], report["weights_sha256"]) == ("mine", spec.files[0].sha256)
    assert report["precision"] == "f32"
