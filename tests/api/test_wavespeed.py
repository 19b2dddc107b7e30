"""Submit and poll, held against what the vendor's clients read."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from .conftest import MAX_INLINE_BYTES, SUBMIT, Running, picture, running

# What the strictest typed client declares.
FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "model": str,
    "input": dict,
    "outputs": list,
    "urls": dict,
    "has_nsfw_contents": list,
    "status": str,
    "created_at": str,
    "error": str,
    "code": int,
    "executionTime": int,
    "timings": dict,
    "progress": float,
    "stage": str,
    "queue_position": (int, type(None)),
    "eta_seconds": (float, int, type(None)),
}


def assert_success(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body.keys() == {"code", "message", "data"}
    assert (body["code"], body["message"]) == (200, "success")
    assert body["data"].keys() == FIELD_TYPES.keys()
    assert [name for name, value in body["data"].items() if not isinstance(value, FIELD_TYPES[name])] == []
    data: dict[str, Any] = body["data"]
    return data


def assert_problem(answer: httpx2.Response, status: int, code: int, error_code: str) -> str:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"code", "message", "error", "error_code"}
    assert body["message"] == body["error"] != ""
    assert (body["code"], body["error_code"]) == (code, error_code)
    message: str = body["message"]
    return message


def test_submit_answers_with_a_created_prediction(server: Running) -> None:
    data = assert_success(server.submit(scale=2))
    assert re.fullmatch("[0-9a-f]{32}", data["id"])
    assert data["model"] == "wavespeed-ai/real-esrgan"
    assert data["urls"] == {"get": f"{server.url}/api/v3/predictions/{data['id']}/result"}
    assert (data["status"], data["error"], data["code"]) == ("created", "", 0)
    assert (data["outputs"], data["has_nsfw_contents"]) == ([], [])
    assert (data["executionTime"], data["timings"]) == (0, {"inference": 0})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z", data["created_at"])
    assert data["input"]["scale"] == 2
    assert picture() not in json.dumps(data)


def test_completed_prediction_links_to_a_picture_of_the_asked_size(
    server: Running, stranger: httpx2.Client
) -> None:
    data = server.finished(server.submit(scale=2.5))
    assert (data["status"], data["error"], data["code"]) == ("completed", "", 0)
    assert data["has_nsfw_contents"] == [False]
    assert data["executionTime"] == data["timings"]["inference"] > 0
    (url,) = data["outputs"]
    assert url.startswith(f"{server.url}/files/")
    assert url.endswith(".png")
    answer = stranger.get(url)
    assert answer.headers["content-type"] == "image/png"
    # 7 × 2.5 = 17.5 and 5 × 2.5 = 12.5, rounded half up.
    assert Image.open(io.BytesIO(answer.content)).size == (18, 13)


@pytest.mark.parametrize(
    "path", ["/api/v3/predictions/{}/result", "/api/v3/predictions/{}", "/api/v2/predictions/{}/result"]
)
def test_every_poll_path_shows_the_same_prediction(server: Running, path: str) -> None:
    finished = server.finished(server.submit())
    # Clients announce JSON on polls too, without a body.
    answer = server.http.get(path.format(finished["id"]), headers={"Content-Type": "application/json"})
    assert assert_success(answer) == finished


@pytest.mark.parametrize("path", ["/api/v3/nightmareai/real-esrgan", "/api/v2/wavespeed-ai/real-esrgan"])
def test_older_submit_paths_still_work(server: Running, path: str) -> None:
    data = server.finished(server.http.post(path, json={"image": picture()}))
    assert data["status"] == "completed"
    assert data["model"] == "/".join(path.split("/")[3:])


def test_failed_prediction_is_a_success_with_an_error_inside(server: Running) -> None:
    garbage = base64.b64encode(b"certainly not a picture").decode()
    submitted = server.submit(image=garbage)
    data = server.finished(submitted)
    assert (data["status"], data["code"], data["outputs"]) == ("failed", 1401, [])
    assert data["error"] != ""
    assert_success(server.http.get(f"/api/v3/predictions/{data['id']}/result"))


def test_face_enhance_fails_and_names_what_is_missing(server: Running) -> None:
    data = server.finished(server.submit(face_enhance=True))
    assert (data["status"], data["code"]) == ("failed", 1403)
    assert "face" in data["error"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("scale", value) for value in (0, -1, 10.01, 1e300, "4", True, [4], {})),
        *(("guidance_scale", value) for value in (0, "4")),
        *(("face_enhance", value) for value in ("true", 1, 0, [])),
        *(("output_format", value) for value in ("bmp", 1)),
        ("model", "no name!"),
        *(("enable_sync_mode", value) for value in ("true", 1)),
        *(("enable_base64_output", value) for value in ("false", 0)),
        *(("webhook_url", value) for value in (7, ["https://a.example"])),
        ("quality", 0),
        *(
            ("image", value)
            for value in (5, True, ["x"], {"url": "x"}, "not base64!", "http://a\ud800.example/b.png")
        ),
    ],
)
def test_bad_option_is_refused_by_name(server: Running, name: str, value: object) -> None:
    message = assert_problem(server.submit(**{name: value}), 400, 1401, "invalid_option")
    assert name.removeprefix("guidance_") in message


def test_number_too_large_for_json_is_refused(server: Running) -> None:
    body = json.dumps({"image": picture()}).replace("}", ', "scale": 1e999}')
    assert_problem(server.http.post(SUBMIT, content=body), 400, 1401, "invalid_option")


@pytest.mark.parametrize("fields", [{}, {"image": ""}, {"image": None}, {"scale": 4}])
def test_missing_image_has_its_own_code(server: Running, fields: dict[str, object]) -> None:
    message = assert_problem(server.http.post(SUBMIT, json=fields), 400, 1400, "invalid_option")
    assert "image" in message


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe\xfd", b'{"image": NaN}', b"[" * 100_000, b"9" * 5000],
    ids=lambda body: repr(body[:12]),
)
def test_body_that_is_no_json_object_is_refused(server: Running, body: bytes) -> None:
    assert_problem(server.http.post(SUBMIT, content=body), 400, 400, "invalid_option")


@pytest.mark.parametrize(
    "path", ["wavespeed-ai/no-such-model", "a/b/c", "predictions-of-mine", "wavespeed-ai/real-esrgan/"]
)
def test_unknown_model_is_a_bad_request(server: Running, path: str) -> None:
    answer = server.http.post(f"/api/v3/{path}", json={"image": picture()})
    assert "model not found" in assert_problem(answer, 400, 400, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v3/no-such-list"), ("DELETE", "/api/v3/predictions/x"), ("PUT", "/api/v2/a/b")],
)
def test_unknown_route_of_the_api_is_not_found(server: Running, method: str, path: str) -> None:
    assert_problem(server.http.request(method, path), 404, 404, "not_found")


def test_fields_of_other_models_are_ignored(server: Running) -> None:
    data = server.finished(
        server.submit(
            scale=1,
            guidance_scale=3.5,
            enable_base64_output=False,
            enable_safety_checker=True,
            prompt="",
            images=["x" * 1000],
            model="wavespeed-ai/real-esrgan",
            seed=-1,
            face_enhance=None,
        )
    )
    assert data["status"] == "completed"
    assert data["input"].keys() == {"image", "scale"}


@pytest.mark.parametrize(
    ("fields", "width"),
    [({"guidance_scale": 2}, 14), ({"guidance_scale": 2, "scale": 3}, 21), ({"scale": None}, 28)],
)
def test_guidance_scale_counts_only_without_scale(
    server: Running, stranger: httpx2.Client, fields: dict[str, Any], width: int
) -> None:
    (url,) = server.finished(server.submit(**fields))["outputs"]
    assert Image.open(io.BytesIO(stranger.get(url).content)).width == width


def test_data_uri_is_a_picture(server: Running) -> None:
    assert server.finished(server.submit(image=f"data:image/png;base64,{picture()}"))["status"] == "completed"


@pytest.mark.parametrize("path", ["/api/v3/predictions/{}/result", "/api/v3/predictions/{}"])
@pytest.mark.parametrize("job_id", ["0" * 32, "x", "%00", "%ff"])
def test_unknown_prediction_is_not_found(server: Running, path: str, job_id: str) -> None:
    answer = server.http.get(path.format(job_id))
    assert "Prediction not found" in assert_problem(answer, 404, 404, "not_found")


def chunks(count: int) -> Iterator[bytes]:
    yield b'{"image": "'
    yield from (b"A" * 1000 for _ in range(count))
    yield b'"}'


@pytest.mark.parametrize(
    "body", [lambda: b"".join(chunks(300)), lambda: chunks(300)], ids=["announced", "chunked"]
)
def test_body_beyond_the_limit_is_refused(server: Running, body: Callable[[], Any]) -> None:
    answer = server.http.post(SUBMIT, content=body())
    assert "ENLARGER_MAX_INLINE_BYTES" in assert_problem(answer, 413, 413, "payload_too_large")


def test_client_that_hangs_up_half_way_is_no_error_of_the_server(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    before = server.http.get("/readyz").json()
    with socket.create_connection((host, int(port))) as client:
        head = f"POST {SUBMIT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
        client.sendall(f"{head}Expect: 100-continue\r\nContent-Length: 99\r\n\r\n".encode())
        # The server asks for the body, so it is waiting for it now.
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(b'{"image"')
    assert server.http.get("/readyz").json() == before
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_inline_picture_of_the_largest_size_is_taken(server: Running) -> None:
    padded = base64.b64decode(picture()).ljust(MAX_INLINE_BYTES, b"\0")
    assert_success(server.submit(image=base64.b64encode(padded).decode()))


def test_links_use_the_public_address_when_one_is_set(tmp_path: Path) -> None:
    with running(tmp_path, public_base_url="https://pictures.example/") as server:
        data = server.finished(server.submit())
        assert data["urls"]["get"].startswith("https://pictures.example/api/v3/predictions/")
        assert data["outputs"][0].startswith("https://pictures.example/files/")


def test_links_follow_the_name_the_client_used(server: Running) -> None:
    answer = server.http.post(
        SUBMIT,
        json={"image": picture()},
        headers={"Host": "enlarger.lan:9000", "X-Forwarded-Proto": "https"},
    )
    assert assert_success(answer)["urls"]["get"].startswith("https://enlarger.lan:9000/api/v3/")
