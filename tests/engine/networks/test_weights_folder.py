"""Which files options need, of which rows, and how they come."""

from __future__ import annotations

import threading
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.downloads import Pace
from enlarger.engine.networks.weights_folder import WeightsFolder
from enlarger.engine.options import Options
from enlarger.errors import Cancelled

from .conftest import Site, send, send_part

GENERAL = "realesr-general-x4v3"
FACES = ["GFPGANv1.4.pth", "face_detection_yunet_2023mar.onnx", "parsing_parsenet.pth"]
BODY = bytes(range(256)) * 1000


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, []),
        ({"model": "auto"}, []),
        ({"model": "of-nobody"}, []),
        ({"model": "RealESRGAN_x2plus"}, ["RealESRGAN_x2plus.pth"]),
        ({"model": GENERAL}, ["realesr-general-x4v3.pth"]),
        ({"model": GENERAL, "denoise": 0.0}, ["realesr-general-wdn-x4v3.pth"]),
        (
            {"model": GENERAL, "denoise": 0.5},
            ["realesr-general-x4v3.pth", "realesr-general-wdn-x4v3.pth"],
        ),
        ({"face_enhance": True}, FACES),
        ({"face_enhance": True, "aligned": True}, FACES[:1]),
        ({"face_enhance": True, "face_model": "GFPGANv1.3"}, ["GFPGANv1.3.pth", *FACES[1:]]),
        ({"face_model": "GFPGANv1.3"}, []),
    ],
)
def test_options_need_the_files_of_what_they_run(
    tmp_path: Path, options: dict[str, Any], names: list[str]
) -> None:
    chosen, folder = Options(**options), WeightsFolder(tmp_path)
    assert [file.name for file in folder.missing(chosen)] == names
    for name in names:
        (tmp_path / name).touch()
    assert folder.missing(chosen) == ()


def test_a_missing_file_tells_the_command_and_whether_it_can_be_fetched(tmp_path: Path) -> None:
    options = Options(model="RealESRGAN_x2plus", face_enhance=True, face_model="GFPGANv1.2")
    told = {
        file.name: (file.command, file.is_needed, file.is_published, file.bytes)
        for file in WeightsFolder(tmp_path).missing(options)
    }
    assert told == {
        "RealESRGAN_x2plus.pth": ("enlarger models pull RealESRGAN_x2plus", True, True, 67_061_725),
        "GFPGANv1.2.pth": ("enlarger models import", True, False, 0),
        "face_detection_yunet_2023mar.onnx": ("enlarger models pull faces", True, True, 232_589),
        "parsing_parsenet.pth": ("enlarger models pull faces", False, True, 85_331_193),
    }


def folder_of(site: Site, tmp_path: Path) -> WeightsFolder:
    spec = MODELS["RealESRGAN_x2plus"]
    file = replace(
        spec.files[0], url=f"{site.url}/none", sha256=sha256(BODY).hexdigest(), bytes=len(BODY), name="x2.pth"
    )
    row = replace(spec, files=(file,))
    pace = Pace(attempts=1, pause_seconds=0.0, silence_seconds=5.0)
    return WeightsFolder(
        tmp_path, mirrors=[f"{site.url}/mirror/"], rows=lambda _: {spec.name: row}, pace=pace
    )


def test_a_file_comes_from_the_mirror_and_is_missing_no_more(site: Site, tmp_path: Path) -> None:
    folder, options = folder_of(site, tmp_path), Options(model="RealESRGAN_x2plus")
    site["/mirror/x2.pth"] = [send(BODY)]
    seen: list[tuple[int, int]] = []
    (missing,) = folder.missing(options)
    folder.fetch(missing, lambda done, total: seen.append((done, total)), threading.Event())
    assert (tmp_path / "x2.pth").read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert folder.missing(options) == ()
    # Asked again it asks nobody.
    folder.fetch(missing, lambda done, total: None, threading.Event())
    assert site.ranges == [""]


def test_a_fetch_that_is_stopped_keeps_what_came_for_the_next(site: Site, tmp_path: Path) -> None:
    folder, stopped = folder_of(site, tmp_path), threading.Event()
    site["/mirror/x2.pth"] = [send_part(BODY)]
    (missing,) = folder.missing(Options(model="RealESRGAN_x2plus"))
    with pytest.raises(Cancelled, match=r"x2\.pth"):
        folder.fetch(missing, lambda done, total: stopped.set(), stopped)
    kept = (tmp_path / "x2.pth.part").stat().st_size
    assert 0 < kept < len(BODY)
    folder.fetch(missing, lambda done, total: None, threading.Event())
    assert site.ranges == ["", f"bytes={kept}-"]
    assert (tmp_path / "x2.pth").read_bytes() == BODY
