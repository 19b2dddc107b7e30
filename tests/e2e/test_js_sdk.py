"""The vendor's own JavaScript client, unmodified, against `enlarger serve` on default settings."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from .conftest import DEADLINE_SECONDS, Server, inline, png

PACKAGE = "wavespeed@0.3.2"
MODEL = "wavespeed-ai/real-esrgan"
QUICK = {"model": "realesr-animevideov3"}

PROGRAM = """
const { Client } = require("wavespeed");
const { url, key, model, fields, path, options } = JSON.parse(process.env.GIVEN);
const client = new Client(key, { baseUrl: url, retryInterval: 0.2 });
const errorOf = (error) => ({ name: error.name, message: error.message, taskId: error.taskId });
(async () => { %s })().then(
  (value) => console.log("\\nANSWER " + JSON.stringify(value)),
  (error) => console.log("\\nANSWER " + JSON.stringify({ error: errorOf(error) })),
);
"""


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder in which Node finds the client; filled once for this environment."""
    npm = shutil.which("npm")
    assert npm, "the tests of the JavaScript client need Node and npm (tests/apt.txt)"
    folder = Path(sys.prefix) / "npm" / PACKAGE
    if not (folder / "node_modules" / "wavespeed").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE],
            check=True,
            capture_output=True,
        )
    return folder / "node_modules"


@pytest.fixture
def ask(modules: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run a piece of JavaScript with a `client` of the server, in a home of its own; what it returns."""

    def run(server: Server, body: str, **given: Any) -> Any:
        given = {"url": server.url, "key": server.key, "model": MODEL, "options": {}, **given}
        environment = {
            **os.environ,
            "HOME": str(tmp_path),
            "NODE_PATH": str(modules),
            "GIVEN": json.dumps(given),
        }
        done = subprocess.run(
            [shutil.which("node") or "node", "-e", PROGRAM % body],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE_SECONDS,
        )
        return json.loads(done.stdout.rpartition("ANSWER ")[2])

    return run


RUN = "return await client.run(model, fields, { pollInterval: 0.05, ...options })"
RUN_NO_THROW = """
const told = await client.runNoThrow(model, fields, { pollInterval: 0.05, ...options });
return { ...told, detail: { ...told.detail, error: told.detail.error && errorOf(told.detail.error) } }
"""


def size_of(output: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(requests.get(output, timeout=30).content)) as picture:
        return picture.size


@pytest.mark.parametrize("options", [{}, {"enableSyncMode": True}], ids=["polling", "sync"])
def test_run_returns_a_link_to_the_picture(
    by_default: Server, ask: Callable[..., Any], options: dict[str, Any]
) -> None:
    told = ask(by_default, RUN, fields={"image": inline(png(9, 6)), "scale": 2, **QUICK}, options=options)
    assert size_of(told["outputs"][0]) == (18, 12)


def test_upload_then_run_works(by_default: Server, ask: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(9, 6))
    body = "fields.image = await client.upload(path); " + RUN
    told = ask(by_default, body, path=str(path), fields={"scale": 2, **QUICK})
    assert size_of(told["outputs"][0]) == (18, 12)


@pytest.mark.parametrize("options", [{}, {"enableSyncMode": True}], ids=["polling", "sync"])
def test_failed_run_is_told_and_not_tried_again(
    by_default: Server, ask: Callable[..., Any], options: dict[str, Any]
) -> None:
    fields = {"image": inline(b"certainly not a picture")}
    told = ask(by_default, RUN_NO_THROW, fields=fields, options={"maxRetries": 3, **options})
    assert (told["outputs"], told["detail"]["status"]) == (None, "failed")
    assert len(told["detail"]["taskId"]) == 32
    assert told["detail"]["error"]["name"] == "WavespeedPredictionException"
    listed = requests.post(
        f"{by_default.url}/api/v3/predictions",
        headers={"Authorization": f"Bearer {by_default.key}"},
        json={"status": "failed"},
        timeout=30,
    ).json()["data"]["items"]
    assert listed[0]["id"] == told["detail"]["taskId"]
    if not options:
        assert ask(by_default, RUN, fields=fields)["error"]["message"].startswith("Prediction failed")


def test_sync_wait_that_ends_early_is_told_as_such(
    launch: Callable[..., Server], ask: Callable[..., Any]
) -> None:
    server = launch(ENLARGER_SYNC_WAIT_SECONDS="0.01")
    fields = {"image": inline(png(64, 64)), **QUICK}
    told = ask(server, RUN_NO_THROW, fields=fields, options={"enableSyncMode": True})
    assert (told["outputs"], told["detail"]["status"]) == (None, "processing")
    assert told["detail"]["error"]["name"] == "WavespeedSyncTimeoutException"
    assert told["detail"]["resultUrl"].endswith(f"/api/v3/predictions/{told['detail']['taskId']}/result")


def test_bad_request_is_told_with_its_reason(by_default: Server, ask: Callable[..., Any]) -> None:
    told = ask(by_default, RUN, fields={"image": inline(png(4, 4)), "scale": 11})
    assert "HTTP 400" in told["error"]["message"]
    assert "scale must be" in told["error"]["message"]


def test_wrong_key_is_refused(by_default: Server, ask: Callable[..., Any]) -> None:
    told = ask(by_default, RUN, key="wsk_wrong", fields={"image": inline(png(4, 4))})
    assert "HTTP 401" in told["error"]["message"]
