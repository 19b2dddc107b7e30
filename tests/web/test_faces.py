"""The faces of a result: outlined, listed, restored again in another strength. The restorer has seeded weights."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import expect

from enlarger.engine.networks.imports import import_model

from ..e2e.conftest import Server
from ..engine.networks.synthetic import save_face_checkpoint
from .conftest import QUICK, RUN_MS, Tab, called, row_of

pytestmark = pytest.mark.shared

SUBMIT = "wavespeed-ai/real-esrgan"


@pytest.fixture(scope="module")
def restoring(
    launch: Callable[..., Server], samples: Path, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A server with the detector's file and a restorer that was imported as `mine`."""
    folder = tmp_path_factory.mktemp("weights")
    checkpoint = tmp_path_factory.mktemp("imported") / "mine.safetensors"
    save_face_checkpoint(checkpoint, layout="safetensors")
    import_model(checkpoint, folder)
    shutil.copy(samples.parent / "weights" / "face_detection_yunet_2023mar.onnx", folder)
    return launch(ENLARGER_WEIGHTS_DIR=str(folder))


def uploaded(server: Server, picture: Path) -> str:
    """The link of an upload."""
    with picture.open("rb") as file:
        answer = requests.post(
            f"{server.url}/api/v3/media/upload/binary",
            headers={"Authorization": f"Bearer {server.key}"},
            files={"file": (picture.name, file)},
            timeout=60,
        )
    return str(answer.json()["data"]["download_url"])


def restored(server: Server, image: str, **options: Any) -> str:
    """Id of a finished prediction."""
    asked = {
        "image": image,
        "model": QUICK,
        "scale": 2,
        "face_enhance": True,
        "face_model": "mine",
        **options,
    }
    data = called(server, SUBMIT, "POST", enable_sync_mode=True, **asked)
    assert data["status"] == "completed", data["error"]
    return str(data["id"])


def test_faces_are_outlined_listed_and_restored_again_in_another_strength(
    restoring: Server, open_tab: Callable[..., Tab], samples: Path
) -> None:
    first = restored(restoring, uploaded(restoring, samples / "children-alpha.png"), faces="0")
    found = called(restoring, f"predictions/{first}/report")["report"]["faces"]["faces"]
    assert [face["index"] for face in found if face["used"]] == [0]
    assert len(found) > 1
    tab = open_tab(restoring).open(f"p={first}")
    tab.viewer()
    expect(tab.page.locator(".face-mark")).to_have_count(len(found))
    expect(tab.page.locator(".face-mark.unused")).to_have_count(len(found) - 1)
    boxes = tab.page.locator(".faces [data-face] input")
    expect(boxes).to_have_count(len(found))
    assert [box.is_checked() for box in boxes.all()] == [face["used"] for face in found]
    pane = tab.page.locator(".pane").first.bounding_box()
    mark = tab.page.locator(".face-mark").first.bounding_box()
    assert pane
    assert mark
    assert pane["x"] <= mark["x"] < mark["x"] + mark["width"] <= pane["x"] + pane["width"]

    tab.page.locator(".faces input[type=range]").fill("0.5")
    tab.page.locator(".faces button.wide").click()
    tab.page.wait_for_function(
        "first => location.hash.length > 3 && !location.hash.includes(first)", arg=first
    )
    tab.page.locator(".faces").wait_for(timeout=RUN_MS)
    tab.viewer()
    again = tab.prediction_id()
    options = json.loads(row_of(restoring, again)["options"])
    assert (options["face_enhance"], options["faces"], options["face_strength"]) == (True, "0", 0.5)
    [face] = [
        face
        for face in called(restoring, f"predictions/{again}/report")["report"]["faces"]["faces"]
        if face["used"]
    ]
    assert face["index"] == 0


def test_a_picture_without_faces_says_so(
    restoring: Server, open_tab: Callable[..., Tab], samples: Path
) -> None:
    inline = base64.b64encode((samples / "wolf_gray.jpg").read_bytes()).decode()
    job = restored(restoring, inline, scale=1, strength=0)
    tab = open_tab(restoring).open(f"p={job}")
    tab.viewer()
    note = called(restoring, f"predictions/{job}/report")["report"]["faces"]["note"]
    assert note
    expect(tab.page.locator(".faces")).to_contain_text(note)
    expect(tab.page.locator(".face-mark")).to_have_count(0)
    # A picture that came inside the request cannot be sent again from here.
    expect(tab.page.locator(".faces button")).to_have_count(0)
