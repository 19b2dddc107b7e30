"""Predictions whose weights are not on the server, as a client sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enlarger.engine.networks.catalogue import MODELS
from enlarger.engine.networks.weights_folder import WeightsFolder

from ..publisher import Publisher
from .conftest import SUBMIT, picture, running
from .test_events import events_of, watch

MODEL = "RealESRGAN_x2plus"
CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    publisher = Publisher(CONTENT)
    yield publisher
    publisher.stop()


def lacking(tmp_path: Path, publisher: Publisher) -> WeightsFolder:
    """An empty folder of weights, and a catalogue of one model."""
    spec = MODELS[MODEL]
    row = replace(spec, files=(publisher.published(spec.files[0]),))
    return WeightsFolder(tmp_path / "weights", rows=lambda _: {MODEL: row})


def test_weights_that_are_not_fetched_end_the_prediction_with_code_5003_and_the_command(
    tmp_path: Path, publisher: Publisher
) -> None:
    with running(tmp_path / "data", lacking(tmp_path, publisher)) as server:
        data = server.finished(server.submit(model=MODEL))
        preflight = server.http.post(f"{SUBMIT}/preflight", json={"image": picture(), "model": MODEL})
    assert (data["status"], data["code"], data["stage"]) == ("failed", 5003, "")
    assert data["error"].endswith(f"get them with: enlarger models pull {MODEL}")
    assert (preflight.status_code, preflight.json()["error_code"]) == (503, "model_unavailable")
    assert preflight.json()["message"] == data["error"]


def test_poll_and_stream_tell_how_far_the_weights_are(tmp_path: Path, publisher: Publisher) -> None:
    with running(tmp_path / "data", lacking(tmp_path, publisher), auto_download=True) as server:
        preflight = server.http.post(f"{SUBMIT}/preflight", json={"image": picture(), "model": MODEL})
        assert preflight.json()["data"]["download_bytes"] == len(CONTENT)
        job_id = server.submit(model=MODEL).json()["data"]["id"]
        stages: list[str] = []
        with watch(server, job_id) as answer:
            for event in events_of(answer):
                data = json.loads(event["data"])
                if "fetching weights" in data.get("stage", ""):
                    stages.append(data["stage"])
                    assert data["progress"] == 0
                    assert data["eta_seconds"] > 0
                if "0.5 of 1.0 MB" in data.get("stage", ""):
                    assert server.poll(job_id).json()["data"]["stage"] == data["stage"]
                    publisher.gate.set()
        assert stages[-1] == "fetching weights: weights.pth, 0.5 of 1.0 MB"
        ended = server.poll(job_id).json()["data"]
    assert (ended["status"], ended["stage"]) == ("completed", "")


def test_a_face_model_that_is_none_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        for name in ("Nobody", "YuNet"):
            answer = server.submit(face_model=name)
            assert answer.status_code == 400
            assert "GFPGANv1.4, GFPGANv1.3, GFPGANv1.2" in answer.json()["message"]
