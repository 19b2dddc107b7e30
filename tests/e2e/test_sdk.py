"""The vendor's own Python client, unmodified, against `enlarger serve`: real process, real network, real weights."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import wavespeed
from PIL import Image

from .conftest import Server, inline, png

MODEL = "wavespeed-ai/real-esrgan"
QUICK = {"model": "realesr-animevideov3"}


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


@pytest.fixture(scope="module")
def server(launch: Callable[..., Server], pictures: str) -> Server:
    """A server that may fetch from this machine, from the port of `pictures` only."""
    return launch(
        ENLARGER_ALLOW_PRIVATE_NETWORKS="127.0.0.0/8", ENLARGER_ALLOW_PORTS=pictures.rpartition(":")[2]
    )


@pytest.fixture(scope="module")
def client(server: Server) -> wavespeed.Client:
    return wavespeed.Client(api_key=server.key, base_url=server.url)


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


def test_picture_is_fetched_from_its_url(client: wavespeed.Client, pictures: str) -> None:
    output = run(client, image=f"{pictures}/photo.png", scale=2, **QUICK)
    assert Image.open(io.BytesIO(requests.get(output, timeout=30).content)).size == (18, 12)


def test_bad_scale_fails_at_submit_and_is_named(client: wavespeed.Client) -> None:
    with pytest.raises(RuntimeError, match=r"Failed to submit prediction: HTTP 400: .*1401.*scale must be"):
        client.run(MODEL, {"image": inline(png(4, 4)), "scale": 11})


def test_undecodable_picture_fails_for_good(client: wavespeed.Client) -> None:
    told, prediction = failure(client, image=inline(b"certainly not a picture"))
    assert told.startswith("Prediction failed (task_id: ")
    assert prediction["code"] == 1401
    assert prediction["error"] in told


def test_unreachable_url_says_so_and_is_not_tried_again(client: wavespeed.Client, pictures: str) -> None:
    told, prediction = failure(client, image=f"{pictures}/no-such-photo.png")
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
    assert prediction["code"] == 1403
    assert "face" in prediction["error"].lower()


def test_wrong_key_is_refused(server: Server) -> None:
    stranger = wavespeed.Client(api_key="wsk_wrong", base_url=server.url)
    with pytest.raises(RuntimeError, match=r"HTTP 401: .*Invalid API key"):
        stranger.run(MODEL, {"image": inline(png(4, 4))})


def test_unknown_model_is_refused(client: wavespeed.Client) -> None:
    with pytest.raises(RuntimeError, match=r"HTTP 400: .*model not found"):
        client.run("wavespeed-ai/no-such-model", {"image": inline(png(4, 4))})
