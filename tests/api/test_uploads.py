"""Uploads: by ticket, as a form, and what an image link of ours means to a submit."""

from __future__ import annotations

import base64
import io
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from .conftest import Running, picture, running

PNG = base64.b64decode(picture(9, 6))
TICKETS = "/api/v3/media/uploads"
FORM = "/api/v3/media/upload/binary"


@pytest.fixture(scope="module")
def cramped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes small uploads only, and has little patience."""
    folder = tmp_path_factory.mktemp("cramped")
    with running(
        folder, max_upload_bytes=1000, body_grace_seconds=0.5, min_body_bytes_per_second=1_000_000
    ) as this:
        yield this


def ticket(server: Running, data: bytes = PNG, **fields: Any) -> dict[str, Any]:
    asked = {"filename": "photo.png", "size": len(data), "content_type": "image/png", **fields}
    answer = server.http.post(TICKETS, json=asked)
    assert answer.status_code == 200, answer.text
    given: dict[str, Any] = answer.json()["data"]
    return given


def send(stranger: httpx2.Client, given: dict[str, Any], content: Any) -> httpx2.Response:
    """As the vendor's clients do: no key, exactly the headers of the ticket."""
    upload = given["upload"]
    return stranger.request(upload["method"], upload["url"], content=content, headers=upload["headers"])


def assert_enlarged(server: Running, stranger: httpx2.Client, image: str) -> None:
    (url,) = server.finished(server.submit(image=image, scale=2))["outputs"]
    with Image.open(io.BytesIO(stranger.get(url).content)) as large:
        assert large.size == (18, 12)


def stored_files(server: Running) -> list[Path]:
    """Uploads, and whatever is being written."""
    blobs = server.data_dir / "blobs"
    return [path for name in ("uploads", ".scratch") for path in (blobs / name).rglob("*") if path.is_file()]


def test_ticket_says_all_that_clients_check(server: Running) -> None:
    given = ticket(server)
    assert (given["type"], given["filename"], given["size"]) == ("image", "photo.png", len(PNG))
    assert given["download_url"].startswith(f"{server.url}/files/")
    assert given["download_url"].endswith(".png")
    assert given["upload"]["method"] == "PUT"
    assert given["upload"]["headers"] == {"Content-Type": "image/png", "If-None-Match": "*"}
    assert given["upload"]["url"].startswith(server.url)


def test_uploaded_picture_is_what_its_download_url_means(server: Running, stranger: httpx2.Client) -> None:
    given = ticket(server)
    assert stranger.get(given["download_url"]).status_code == 404
    assert send(stranger, given, PNG).status_code == 200
    answer = stranger.get(given["download_url"])
    assert answer.content == PNG
    # The bytes are a stranger's: to be saved, not shown.
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert_enlarged(server, stranger, given["download_url"])


def test_link_of_ours_is_read_from_the_store_whatever_host_it_names(
    server: Running, stranger: httpx2.Client
) -> None:
    given = ticket(server)
    send(stranger, given, PNG)
    # No such host exists, and this server fetches from no private network.
    alias = given["download_url"].replace(server.url, "https://pictures.invalid:8443")
    assert_enlarged(server, stranger, alias)


def test_result_can_be_enlarged_again(server: Running, stranger: httpx2.Client) -> None:
    (url,) = server.finished(server.submit(image=base64.b64encode(PNG).decode(), scale=1))["outputs"]
    assert_enlarged(server, stranger, url)


def test_form_of_older_clients_uploads_in_one_request(server: Running, stranger: httpx2.Client) -> None:
    for path in (FORM, "/api/v2/media/upload/binary"):
        answer = server.http.post(path, files={"file": ("photo.png", PNG, "image/png")})
        assert answer.status_code == 200, answer.text
        data = answer.json()["data"]
        assert data.keys() == {"type", "download_url", "filename", "size"}
        assert (data["type"], data["filename"], data["size"]) == ("image", "photo.png", len(PNG))
        assert_enlarged(server, stranger, data["download_url"])


@pytest.mark.parametrize("path", ["/api/v3/upload", "/api/v3/uploads"])
def test_names_from_old_documents_answer_with_a_url(
    server: Running, stranger: httpx2.Client, path: str
) -> None:
    data = server.http.post(path, files={"file": ("photo.png", PNG)}).json()["data"]
    assert stranger.get(data["url"]).content == PNG


def test_ticket_is_good_for_one_file(server: Running, stranger: httpx2.Client) -> None:
    given = ticket(server)
    assert send(stranger, given, PNG).status_code == 200
    again = send(stranger, given, PNG)
    assert (again.status_code, again.json()["error_code"]) == (412, "already_exists")
    assert stranger.get(given["download_url"]).content == PNG


@pytest.mark.parametrize("change", [lambda url: url[:-1], lambda url: url + "x", lambda url: url[:-40]])
def test_address_that_was_changed_takes_nothing(
    server: Running, stranger: httpx2.Client, change: Any
) -> None:
    given = ticket(server)
    answer = stranger.put(change(given["upload"]["url"]), content=PNG)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        *(({"size": size}, 400) for size in (0, -1, "x", None)),
        ({"size": 10**12}, 413),
        *(({"filename": name}, 400) for name in ("", None, 7, "x" * 1001)),
        ({"content_type": "video/mp4"}, 400),
    ],
)
def test_bad_ticket_is_refused_by_name(server: Running, fields: dict[str, Any], status: int) -> None:
    asked = {"filename": "photo.png", "size": 10, **fields}
    answer = server.http.post(TICKETS, json=asked)
    assert answer.status_code == status, answer.text
    (name,) = fields
    assert name in answer.json()["message"] or "max_upload_bytes" in answer.json()["message"]


@pytest.mark.parametrize("content", [PNG[:-1], PNG + b"x", b""], ids=["short", "long", "empty"])
def test_file_of_another_size_than_announced_is_refused_and_forgotten(
    server: Running, stranger: httpx2.Client, content: bytes
) -> None:
    given, before = ticket(server), stored_files(server)
    assert send(stranger, given, content).status_code in (400, 413)
    assert stored_files(server) == before
    assert send(stranger, given, PNG).status_code == 200


def test_form_without_a_file_is_refused(server: Running) -> None:
    answer = server.http.post(FORM, files={"other": (None, b"text")})
    assert (answer.status_code, answer.json()["code"]) == (400, 1401)
    assert "file" in answer.json()["message"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no boundary"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"x" * 10_000),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"',
        ),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf a fi',
        ),
        ("multipart/form-data; boundary=" + "b" * 5000, b"--b"),
    ],
)
def test_body_that_is_no_form_is_refused_and_forgotten(
    server: Running, content_type: str, body: bytes
) -> None:
    before = stored_files(server)
    answer = server.http.post(FORM, content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_option"), answer.text
    assert stored_files(server) == before


def test_form_larger_than_the_limit_is_refused(cramped: Running) -> None:
    answer = cramped.http.post(FORM, files={"file": ("photo.png", b"x" * 1001)})
    assert (answer.status_code, answer.json()["error_code"]) == (413, "payload_too_large")
    assert stored_files(cramped) == []


def connect(server: Running) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_slow_upload_is_ended_and_leaves_nothing(cramped: Running) -> None:
    path = ticket(cramped, b"x" * 900)["upload"]["url"].removeprefix(cramped.url)
    with connect(cramped) as client:
        client.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n".encode())
        client.sendall(b"x" * 10)
        # Nothing more comes, and the connection stays open.
        received = client.recv(1000)
        assert received.startswith(b"HTTP/1.1 408")
        while client.recv(1000):
            pass
    assert stored_files(cramped) == []


def test_slow_submit_is_ended_too(cramped: Running) -> None:
    with connect(cramped) as client:
        head = "POST /api/v3/wavespeed-ai/real-esrgan HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n"
        client.sendall(f"{head}Authorization: Bearer {cramped.key}\r\n\r\n{{".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 408")


def test_client_that_vanishes_leaves_nothing(server: Running) -> None:
    before = stored_files(server)
    given = ticket(server)
    path = given["upload"]["url"].removeprefix(server.url)
    with connect(server) as client:
        client.sendall(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PNG)}\r\n\r\n".encode())
        client.sendall(PNG[:20])
    deadline = time.monotonic() + 30
    while stored_files(server) != before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_full_disk_is_told_before_anything_is_taken(tmp_path: Path) -> None:
    with running(tmp_path, min_free_bytes=10**18) as full:
        for answer in (full.submit(), full.http.post(TICKETS, json={"filename": "a.png", "size": 10})):
            assert (answer.status_code, answer.json()["error_code"]) == (507, "storage_full")
            assert int(answer.headers["retry-after"]) >= 1
        assert full.http.post("/api/v3/predictions").json()["data"]["items"] == []
