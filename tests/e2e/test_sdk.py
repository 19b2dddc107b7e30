"""The vendor's own Python client, unmodified, against `enlarger serve`: real process, real network, real weights."""

from __future__ import annotations

import http.server
import io
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import wavespeed
from PIL import Image

from .conftest import DEADLINE_SECONDS, Server, eventually, inline, png

MODEL = "wavespeed-ai/real-esrgan"
QUICK = {"model": "realesr-animevideov3"}

Psnr = Callable[[np.ndarray, np.ndarray], float]


class Pictures(http.server.BaseHTTPRequestHandler):
    """Somebody's picture server."""

    def do_GET(self) -> None:
        found = self.path == "/photo.png"
        body = png(9, 6) if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_address[1]}"
        site.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client keeps nothing of one test for the next."""
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def client(by_default: Server) -> wavespeed.Client:
    return client_of(by_default)


@pytest.fixture(scope="module")
def nobody() -> Iterator[str]:
    """An address at which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(scope="module")
def fetching(launch: Callable[..., Server], pictures: str, nobody: str) -> wavespeed.Client:
    """Of a server that may fetch from this machine, from the ports of `pictures` and `nobody` only."""
    ports = ",".join(site.rpartition(":")[2] for site in (pictures, nobody))
    return client_of(launch(ENLARGER_ALLOW_PRIVATE_NETWORKS="127.0.0.0/8", ENLARGER_ALLOW_PORTS=ports))


def client_of(server: Server) -> wavespeed.Client:
    return wavespeed.Client(api_key=server.key, base_url=server.url, retry_interval=0.2)


def run(client: wavespeed.Client, **fields: Any) -> str:
    """The one output of a run."""
    (output,) = client.run(MODEL, fields, poll_interval=0.05)["outputs"]
    return str(output)


def failure(client: wavespeed.Client, **fields: Any) -> tuple[str, dict[str, Any]]:
    """What the client tells of a run that fails, and the prediction as the server shows it."""
    told = client.run_no_throw(MODEL, fields, poll_interval=0.05)
    assert (told["status"], told["outputs"]) == ("failed", None)
    return told["error"], client.get_result(told["task_id"])["data"]


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"scale": 4}, (64, 64)),
        ({"scale": 2.5, **QUICK}, (40, 40)),
        ({"guidance_scale": 1, **QUICK}, (16, 16)),
    ],
)
def test_run_returns_a_link_to_a_picture_of_the_right_size(
    client: wavespeed.Client, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    output = run(client, image=inline(png(16, 16)), **fields)
    assert output.endswith(".png")
    answer = requests.get(output, timeout=30)
    assert answer.headers["content-type"] == "image/png"
    large = Image.open(io.BytesIO(answer.content))
    assert (large.format, large.size, large.mode) == ("PNG", size, "RGB")
    # A picture of one colour stays that colour.
    middle = large.getpixel((size[0] // 2, size[1] // 2))
    assert middle == pytest.approx((200, 80, 40), abs=8)


@pytest.mark.shared
@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("model", ["RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B"])
def test_run_in_f32_gives_the_official_result(
    model: str, side: int, client: wavespeed.Client, goldens: Path, psnr: Psnr
) -> None:
    image = inline((goldens / f"input-{side}x{side}.png").read_bytes())
    pixels, golden = (
        pixels_of(run(client, image=image, model=model, precision="f32")),
        official(goldens, model, side),
    )
    assert psnr(pixels, golden) >= 57
    assert np.abs(pixels.astype(int) - golden).max() <= 4


@pytest.mark.shared
def test_run_without_a_field_of_ours_gives_the_official_result_of_x4plus(
    client: wavespeed.Client, goldens: Path, psnr: Psnr
) -> None:
    output = run(client, image=inline((goldens / "input-32x32.png").read_bytes()))
    assert output.endswith(".png")
    # In whatever precision suits this machine.
    assert psnr(pixels_of(output), official(goldens, "RealESRGAN_x4plus", 32)) >= 48


def pixels_of(output: str) -> np.ndarray:
    with Image.open(io.BytesIO(requests.get(output, timeout=30).content)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def official(goldens: Path, model: str, side: int) -> np.ndarray:
    return np.asarray(Image.open(goldens / f"{model}-{side}x{side}.png").convert("RGB"))


def test_picture_is_fetched_from_its_url(fetching: wavespeed.Client, pictures: str) -> None:
    output = run(fetching, image=f"{pictures}/photo.png", scale=2, **QUICK)
    assert size_of(output) == (18, 12)


def size_of(output: str) -> tuple[int, int]:
    with Image.open(io.BytesIO(requests.get(output, timeout=30).content)) as picture:
        return picture.size


@pytest.mark.parametrize("as_stream", [False, True], ids=["path", "stream"])
def test_upload_then_run_works_on_default_settings(
    client: wavespeed.Client, tmp_path: Path, as_stream: bool
) -> None:
    path = tmp_path / "photo of mine.png"
    path.write_bytes(png(9, 6))
    url = client.upload(io.BytesIO(path.read_bytes()) if as_stream else str(path))
    assert requests.get(url, timeout=30).content == path.read_bytes()
    assert size_of(run(client, image=url, scale=2, **QUICK)) == (18, 12)


def test_stream_of_unknown_length_is_uploaded_too(client: wavespeed.Client) -> None:
    class Pipe(io.RawIOBase):
        """Cannot be rewound."""

        def __init__(self) -> None:
            self._rest = png(9, 6)

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self._rest, given = b"", self._rest[: size if size >= 0 else None]
            return given

    url = client.upload(Pipe())
    assert requests.get(url, timeout=30).content == png(9, 6)


def test_sync_run_takes_one_request(client: wavespeed.Client) -> None:
    fields = {"image": inline(png(9, 6)), "scale": 2, **QUICK}
    (output,) = client.run(MODEL, fields, enable_sync_mode=True)["outputs"]
    assert size_of(output) == (18, 12)


def test_sync_run_that_fails_says_why(client: wavespeed.Client) -> None:
    fields = {"image": inline(b"certainly not a picture")}
    with pytest.raises(RuntimeError, match=r"Prediction failed \(task_id: [0-9a-f]{32}\): "):
        client.run(MODEL, fields, enable_sync_mode=True)
    told = client.run_no_throw(MODEL, fields, enable_sync_mode=True)
    assert (told["status"], told["outputs"]) == ("failed", None)
    assert len(told["task_id"]) == 32


def test_sync_wait_that_ends_early_leaves_the_result_to_be_asked_for(launch: Callable[..., Server]) -> None:
    client = client_of(launch(ENLARGER_SYNC_WAIT_SECONDS="0.01"))
    fields = {"image": inline(png(64, 64)), **QUICK}
    with pytest.raises(RuntimeError, match=r"Sync mode timed out \(task_id: [0-9a-f]{32}\).*/result"):
        client.run(MODEL, fields, enable_sync_mode=True)
    told = client.run_no_throw(MODEL, fields, enable_sync_mode=True)
    assert (told["status"], told["outputs"]) == ("processing", None)
    assert "Sync mode timed out" in told["error"]

    def finished() -> dict[str, Any] | None:
        data: dict[str, Any] = client.get_result(told["task_id"])["data"]
        return data if data["status"] == "completed" else None

    assert size_of(eventually(finished, "the result")["outputs"][0]) == (256, 256)


def test_failure_for_good_is_submitted_once_however_many_retries_are_allowed(
    client: wavespeed.Client, by_default: Server
) -> None:
    def count() -> int:
        headers = {"Authorization": f"Bearer {by_default.key}"}
        asked = {"page_size": 100}
        listed = requests.post(
            f"{by_default.url}/api/v3/predictions", headers=headers, json=asked, timeout=30
        )
        return len(listed.json()["data"]["items"])

    before = count()
    with pytest.raises(RuntimeError, match="Prediction failed"):
        client.run(MODEL, {"image": inline(b"certainly not a picture")}, poll_interval=0.05, max_retries=3)
    assert count() == before + 1


def test_client_that_polls_outlives_a_restart_of_the_server(launch: Callable[..., Server]) -> None:
    server = launch()
    # Patient enough for a start on a busy machine.
    client = wavespeed.Client(
        api_key=server.key, base_url=server.url, max_connection_retries=30, retry_interval=0.2
    )
    told: list[dict[str, Any]] = []

    def work() -> None:
        fields = {"image": inline(png(96, 96)), **QUICK}
        told.append(client.run_no_throw(MODEL, fields, poll_interval=0.05))

    waiting = threading.Thread(target=work)
    waiting.start()
    eventually(server.device, "the device to start")
    server.kill()
    server.start()
    waiting.join(DEADLINE_SECONDS)
    assert told[0]["status"] == "completed", told
    assert size_of(told[0]["outputs"][0]) == (384, 384)


def test_bad_scale_fails_at_submit_and_is_named(client: wavespeed.Client) -> None:
    with pytest.raises(RuntimeError, match=r"Failed to submit prediction: HTTP 400: .*1401.*scale must be"):
        client.run(MODEL, {"image": inline(png(4, 4)), "scale": 11})


def test_undecodable_picture_fails_for_good(client: wavespeed.Client) -> None:
    told, prediction = failure(client, image=inline(b"certainly not a picture"))
    assert told.startswith("Prediction failed (task_id: ")
    assert prediction["code"] == 1401
    assert prediction["error"] in told


@pytest.mark.parametrize("site", ["pictures", "nobody"])
def test_unreachable_url_says_so_and_is_not_tried_again(
    fetching: wavespeed.Client, site: str, request: pytest.FixtureRequest
) -> None:
    told, prediction = failure(fetching, image=f"{request.getfixturevalue(site)}/no-such-photo.png")
    assert prediction["code"] == 1402
    # Words at which the vendor's clients submit the job once more.
    words = prediction["error"].lower()
    assert not [word for word in ("http 5", "429", "timeout", "connection") if word in words]
    assert prediction["error"] in told


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/a.png", "http://127.0.0.1:22/a.png"]
)
def test_url_into_a_private_network_is_refused(client: wavespeed.Client, url: str) -> None:
    _, prediction = failure(client, image=url)
    assert (prediction["status"], prediction["code"]) == ("failed", 1402)
    assert "allow_" in prediction["error"].lower()


def test_face_enhance_fails_and_names_what_is_missing(client: wavespeed.Client) -> None:
    _, prediction = failure(client, image=inline(png(4, 4)), face_enhance=True)
    assert prediction["code"] == 5003
    assert prediction["error"].endswith("enlarger models pull faces")


def test_wrong_key_is_refused(by_default: Server) -> None:
    stranger = wavespeed.Client(api_key="wsk_wrong", base_url=by_default.url)
    with pytest.raises(RuntimeError, match=r"HTTP 401: .*Invalid API key"):
        stranger.run(MODEL, {"image": inline(png(4, 4))})


def test_unknown_model_is_refused(client: wavespeed.Client) -> None:
    with pytest.raises(RuntimeError, match=r"HTTP 400: .*model not found"):
        client.run("wavespeed-ai/no-such-model", {"image": inline(png(4, 4))})
