"""The doctor's findings on the machine that runs the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from enlarger.doctor import findings
from enlarger.engine.networks.catalogue import DEFAULT_MODEL, FACE_MODELS, MODELS


def test_a_healthy_machine_gets_a_good_line_for_every_subject(tmp_path: Path) -> None:
    found = {finding.subject: finding for finding in findings(weights_dir=tmp_path)}
    assert [subject for subject, finding in found.items() if not finding.is_good] == []
    assert {
        "cpu",
        "cores",
        "memory",
        "device cuda:0",
        "device cpu",
        "chosen",
        "native kernel",
        "sandbox",
        *MODELS,
    } <= set(found)
    assert found["native kernel"].text.startswith(("not used: ", "computes RRDBNet "))
    assert FACE_MODELS.keys() <= found.keys()
    assert "enlarger models pull faces" in found["GFPGANv1.4"].text
    assert "self-test off by" in found[DEFAULT_MODEL].text
    assert "models pull RealESRGAN_x2plus" in found["RealESRGAN_x2plus"].text


def test_a_face_model_that_is_here_is_verified(tmp_path: Path) -> None:
    for name in ("YuNet", "ParseNet"):
        (tmp_path / FACE_MODELS[name].files[0].name).write_bytes(b"damaged")
    found = {finding.subject: finding for finding in findings(weights_dir=tmp_path)}
    bad = {subject: finding.text for subject, finding in found.items() if not finding.is_good}
    assert bad.keys() == {"YuNet", "ParseNet"}
    assert "remove it and get it again" in bad["YuNet"]


@pytest.mark.skipif(sys.platform == "darwin", reason="has the device this test wants absent")
def test_a_device_that_is_not_there_is_a_bad_finding_and_the_last() -> None:
    *_, last = findings("mps")
    assert not last.is_good
    assert last.text.startswith("device mps cannot be used: only Apple computers")
