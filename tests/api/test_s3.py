"""The service over a real S3 store: through the API, and past it."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import wavespeed
from PIL import Image

from ..receiver import eventually
from ..services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3
from .conftest import Running, picture, running

PNG = base64.b64decode(picture(9, 6))


@pytest.fixture(scope="module", params=["api", "presigned"])
def server(
    request: pytest.FixtureRequest, s3_server: SeaweedS3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    values: dict[str, Any] = {
        "blob_url": f"s3://{s3_server.create_bucket()}/pictures",
        "blob_links": request.param,
        "direct_upload_bytes": 50,
        "s3_endpoint": s3_server.endpoint,
        "s3_access_key": ACCESS_KEY,
        "s3_secret_key": SECRET_KEY,
    }
    with running(tmp_path_factory.mktemp("data"), **values) as this:
        yield this


@pytest.fixture
def is_direct(request: pytest.FixtureRequest) -> bool:
    return "presigned" in request.node.name


@pytest.fixture(scope="module")
def visitor() -> Iterator[httpx2.Client]:
    """A client without a key that goes where it is sent."""
    with httpx2.Client(timeout=30, follow_redirects=True) as client:
        yield client


def size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.size


def assert_scratch_is_empty(server: Running) -> None:
    # A file is let go of just after the last byte of its answer.
    scratch = server.data_dir / "scratch"
    eventually(lambda: not list(scratch.iterdir()), "the scratch folder to be empty")


def test_result_is_behind_a_link_of_ours(
    server: Running, stranger: httpx2.Client, visitor: httpx2.Client, is_direct: bool, s3: SeaweedS3
) -> None:
    [url] = server.finished(server.submit(scale=2))["outputs"]
    assert url.startswith(f"{server.url}/files/")
    first = stranger.get(url)
    if is_direct:
        assert first.status_code == 307
        assert first.headers["location"].startswith(s3.endpoint)
        assert first.headers["cache-control"] == "no-store"
    else:
        assert first.status_code == 200
    whole = visitor.get(url)
    assert size_of(whole.content) == (14, 10)
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["content-disposition"].startswith("inline; filename=")
    assert visitor.get(url, headers={"Range": "bytes=4-11"}).content == whole.content[4:12]
    assert int(visitor.head(url).headers["content-length"]) == len(whole.content)
    assert_scratch_is_empty(server)


def test_result_can_be_enlarged_again_and_comes_as_base64_too(server: Running) -> None:
    [url] = server.finished(server.submit(scale=1))["outputs"]
    again = server.finished(server.submit(image=url, scale=2, enable_base64_output=True))
    assert size_of(base64.b64decode(again["outputs"][0].rpartition(",")[2])) == (14, 10)
    assert_scratch_is_empty(server)


def test_link_to_what_is_gone_is_not_found(server: Running, visitor: httpx2.Client) -> None:
    data = server.finished(server.submit())
    assert server.http.post("/api/v3/predictions/delete", json={"ids": [data["id"]]}).status_code == 200
    answer = visitor.get(data["outputs"][0])
    assert (answer.status_code, answer.json()["error_code"]) == (404, "not_found")


def test_large_upload_goes_straight_to_the_store(
    server: Running, visitor: httpx2.Client, is_direct: bool, s3: SeaweedS3
) -> None:
    asked = {"filename": "photo.png", "size": len(PNG), "content_type": "image/png"}
    ticket = server.http.post("/api/v3/media/uploads", json=asked).json()["data"]
    upload = ticket["upload"]
    assert upload["url"].startswith(s3.endpoint if is_direct else server.url)
    assert upload["method"] == "PUT"
    assert upload["headers"] == {"Content-Type": "image/png", "If-None-Match": "*"}
    sent = visitor.put(upload["url"], content=PNG, headers=upload["headers"])
    assert sent.status_code == 200, sent.text
    answer = visitor.get(ticket["download_url"])
    assert answer.content == PNG
    assert answer.headers["content-disposition"].startswith("attachment")
    [url] = server.finished(server.submit(image=ticket["download_url"], scale=2))["outputs"]
    assert size_of(visitor.get(url).content) == (18, 12)


def test_vendors_client_uploads_either_way(server: Running, visitor: httpx2.Client, tmp_path: Any) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PNG)
    url = wavespeed.Client(api_key=server.key, base_url=server.url).upload(str(path))
    assert visitor.get(url).content == PNG


def test_page_of_the_server_itself_is_sent_nowhere(server: Running, stranger: httpx2.Client) -> None:
    page = {"Sec-Fetch-Site": "same-origin"}
    [url] = server.finished(server.submit())["outputs"]
    assert stranger.get(url, headers=page).status_code == 200
    asked = {"filename": "photo.png", "size": len(PNG)}
    ticket = server.http.post("/api/v3/media/uploads", json=asked, headers=page).json()["data"]
    assert ticket["upload"]["url"].startswith(server.url)


def test_small_upload_comes_through_the_service(server: Running) -> None:
    asked = {"filename": "photo.png", "size": 50}
    ticket = server.http.post("/api/v3/media/uploads", json=asked).json()["data"]
    assert ticket["upload"]["url"].startswith(server.url)


def test_store_that_is_away_is_answered_with_503(server: Running, s3: SeaweedS3) -> None:
    s3.kill()
    answer = server.submit()
    s3.start()
    assert (answer.status_code, answer.json()["error_code"]) == (503, "storage_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "127.0.0.1" not in answer.text
    server.finished(server.submit())
