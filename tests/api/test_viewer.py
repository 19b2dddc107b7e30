"""The viewer over HTTP: pictures tile by tile, by links that open nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pytest
from PIL import Image

from .conftest import Running, running

ORIENTATION = 0x0112
DAY_SECONDS = 86_400


def encoded(image: Image.Image, format: str = "png", **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, format, **options)
    return base64.b64encode(file.getvalue()).decode()


def quadrants(width: int = 300, height: int = 180, mode: str = "RGB") -> Image.Image:
    """Red and green above blue and white."""
    image = Image.new(mode, (width, height), "white")
    image.paste("red", (0, 0, width // 2, height // 2))
    image.paste("lime", (width // 2, 0, width, height // 2))
    image.paste("blue", (0, height // 2, width // 2, height))
    return image


def colour_at(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """Full or none of red, green and blue at a place from 0 to 1, whatever an encoder did to the last levels."""
    pixel = image.getpixel((int(x * image.width), int(y * image.height)))
    assert isinstance(pixel, tuple)
    return tuple(round(value / 255) for value in pixel)


def viewed(server: Running, job_id: str, picture: str = "outputs/0") -> dict[str, Any]:
    answer = server.http.get(f"/api/v3/predictions/{job_id}/{picture}/viewer")
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["data"])


def tile_url(view: dict[str, Any], level: int = 0, column: int = 0, row: int = 0) -> str:
    return str(view["url"].format(level=level, column=column, row=row))


def assembled(stranger: httpx2.Client, view: dict[str, Any], level: int) -> Image.Image:
    """A level as a viewer would draw it."""
    size = view["levels"][level]
    whole = Image.new("RGBA", (size["width"], size["height"]))
    for row in range(size["rows"]):
        for column in range(size["columns"]):
            tile = Image.open(io.BytesIO(stranger.get(tile_url(view, level, column, row)).content))
            assert tile.size == (view["tile_size"], view["tile_size"])
            whole.paste(tile, (column * view["tile_size"], row * view["tile_size"]))
    return whole


@pytest.fixture(scope="module")
def done(server: Running) -> dict[str, Any]:
    return server.finished(server.submit(image=encoded(quadrants()), scale=4))


@pytest.fixture(scope="module")
def view(server: Running, done: dict[str, Any]) -> dict[str, Any]:
    return viewed(server, done["id"])


def test_a_result_is_put_together_from_its_tiles(
    stranger: httpx2.Client, done: dict[str, Any], view: dict[str, Any]
) -> None:
    assert (view["width"], view["height"], view["media_type"]) == (1200, 720, "image/jpeg")
    sizes = [(level["width"], level["height"]) for level in view["levels"]]
    assert sizes == [(1200, 720), (600, 360), (300, 180)]
    result = Image.open(io.BytesIO(stranger.get(done["outputs"][0]).content)).convert("RGB")
    found = assembled(stranger, view, 0).convert("RGB")
    difference = np.abs(np.asarray(found, int) - np.asarray(result, int))
    assert difference.mean() < 1
    smallest = assembled(stranger, view, 2).convert("RGB")
    for x, y in [(0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8)]:
        assert colour_at(smallest, x, y) == colour_at(result, x, y)


def test_input_is_upright_so_that_it_lies_under_the_result(server: Running, stranger: httpx2.Client) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    job = server.finished(server.submit(image=encoded(quadrants(), "jpeg", exif=exif)))
    view = viewed(server, job["id"], "input")
    assert (view["width"], view["height"]) == (180, 300)
    upright = assembled(stranger, view, 0).convert("RGB")
    assert colour_at(upright, 0.2, 0.2) == (0, 0, 1)
    assert colour_at(upright, 0.8, 0.2) == (1, 0, 0)
    assert colour_at(upright, 0.8, 0.8) == (0, 1, 0)


def test_transparency_can_be_seen(server: Running, stranger: httpx2.Client) -> None:
    image = quadrants(mode="RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    job = server.finished(server.submit(image=encoded(image)))
    view = viewed(server, job["id"], "input")
    assert view["media_type"] == "image/webp"
    assert assembled(stranger, view, 0).getchannel("A").tobytes() == image.getchannel("A").tobytes()


def test_a_tile_is_kept_by_browsers_and_taken_for_nothing_else(
    stranger: httpx2.Client, view: dict[str, Any]
) -> None:
    answer = stranger.get(tile_url(view))
    assert answer.headers["content-type"] == "image/jpeg"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


def test_a_link_that_was_changed_shows_nothing(
    stranger: httpx2.Client, done: dict[str, Any], view: dict[str, Any]
) -> None:
    parts = urlsplit(tile_url(view))
    _, _, token, job_id, picture, *place = parts.path.split("/")
    expires, _, signature = token.partition(".")
    (file,) = done["outputs"]
    file_token = urlsplit(file).path.split("/")[2]
    for path, status in [
        (f"/tiles/{token}/{job_id}/{picture}/0/0/0", 200),
        (f"/tiles/{int(expires) + 1}.{signature}/{job_id}/{picture}/0/0/0", 404),
        (f"/tiles/{expires}.{signature[::-1]}/{job_id}/{picture}/0/0/0", 404),
        (f"/tiles/{expires}./{job_id}/{picture}/0/0/0", 404),
        (f"/tiles/{token}/{job_id}/input/0/0/0", 404),
        (f"/tiles/{token}/{job_id}/output-1/0/0/0", 404),
        (f"/tiles/{token}/{'0' * 32}/{picture}/0/0/0", 404),
        (f"/tiles/{file_token}/{job_id}/{picture}/0/0/0", 404),
        (f"/files/{token}/tiles/{job_id}/{picture}", 404),
        (f"/files/{token}/pyramids/{job_id}/{picture}.tif", 404),
        (f"/tiles/{token}/{job_id}/{picture}/3/0/0", 404),
        (f"/tiles/{token}/{job_id}/{picture}/0/3/0", 404),
        (f"/tiles/{token}/{job_id}/{picture}/0/0/2", 404),
        (f"/tiles/{token}/{job_id}/{picture}/-1/0/0", 400),
        (f"/tiles/{token}/{job_id}/{picture}/0/0/x", 400),
    ]:
        answer = stranger.get(f"{parts.scheme}://{parts.netloc}{path}")
        assert answer.status_code == status, path
        assert status == 200 or answer.json()["error_code"] in ("not_found", "invalid_option")
    assert place == ["0", "0", "0"]


def test_links_end_with_the_retention(tmp_path: Path, stranger: httpx2.Client) -> None:
    with running(tmp_path, retention_days=7) as server:
        job = server.finished(server.submit(image=encoded(quadrants())))
        url = tile_url(viewed(server, job["id"]))
        server.clock_offset_seconds = 6.9 * DAY_SECONDS
        assert stranger.get(url).status_code == 200
        server.clock_offset_seconds = 8.1 * DAY_SECONDS
        assert stranger.get(url).status_code == 404
        assert stranger.get(tile_url(viewed(server, job["id"]))).status_code == 200


def test_what_is_not_there_cannot_be_looked_at(server: Running) -> None:
    with server.held_up():
        job = server.submit().json()["data"]["id"]
        for picture in ("outputs/0", "outputs/1"):
            assert server.http.get(f"/api/v3/predictions/{job}/{picture}/viewer").status_code == 404
        assert viewed(server, job, "input")["width"] == 7
    server.until(job, "completed")
    assert viewed(server, job)["width"] == 28
    assert server.http.get(f"/api/v3/predictions/{job}/outputs/1/viewer").status_code == 404
    assert server.http.get(f"/api/v3/predictions/{job}/outputs/-1/viewer").status_code == 400


def test_a_picture_that_cannot_be_read_is_refused_in_words(server: Running) -> None:
    job = server.finished(server.submit(image=base64.b64encode(b"no picture at all").decode()))
    answer = server.http.get(f"/api/v3/predictions/{job['id']}/input/viewer")
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "unsupported_format"
    assert "png" in answer.json()["message"]


def test_an_input_that_was_never_fetched_is_not_there(server: Running) -> None:
    job = server.finished(server.submit(image="http://127.0.0.1:9/none.png"))
    answer = server.http.get(f"/api/v3/predictions/{job['id']}/input/viewer")
    assert answer.status_code == 404
    assert "has not been fetched" in answer.json()["message"]


@pytest.mark.parametrize("remove", ["the prediction", "the pyramid"])
def test_tiles_go_with_the_prediction_and_come_again_without_the_pyramid(
    server: Running, stranger: httpx2.Client, remove: str
) -> None:
    job = server.finished(server.submit(image=encoded(quadrants())))["id"]
    url = tile_url(viewed(server, job))
    tile = stranger.get(url).content
    folder = server.data_dir / "blobs" / "pyramids" / job
    assert [path.name for path in folder.iterdir()] == ["output-0.tif"]
    if remove == "the prediction":
        assert server.http.delete(f"/api/v3/predictions/{job}").status_code == 200
        assert not folder.exists()
        assert stranger.get(url).status_code == 404
    else:
        (folder / "output-0.tif").unlink()
        assert stranger.get(url).content == tile
        assert (folder / "output-0.tif").exists()


def test_many_viewers_at_once_see_the_same(server: Running, stranger: httpx2.Client) -> None:
    job = server.finished(server.submit(image=encoded(quadrants()), scale=8))["id"]
    with ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda _: viewed(server, job), range(8)))
        assert all(view == views[0] for view in views)
        tiles = list(pool.map(lambda _: stranger.get(tile_url(views[0], 0, 1, 1)).content, range(8)))
    assert len(set(tiles)) == 1


def test_report_tells_how_the_result_came_to_be(
    server: Running, stranger: httpx2.Client, done: dict[str, Any]
) -> None:
    told = server.http.get(f"/api/v3/predictions/{done['id']}/report").json()["data"]
    (output,) = told["outputs"]
    result = stranger.get(done["outputs"][0]).content
    assert output == {
        "media_type": "image/png",
        "width": 1200,
        "height": 720,
        "bytes": len(result),
        "sha256": hashlib.sha256(result).hexdigest(),
    }
    assert told["report"]["timings_ms"] == {"network": 7}
    assert 0 <= told["queued_ms"] <= told["total_ms"]


def test_report_of_an_unfinished_prediction_is_empty(server: Running) -> None:
    with server.held_up():
        job = server.submit().json()["data"]["id"]
        server.until(job, "processing")
        told = server.http.get(f"/api/v3/predictions/{job}/report").json()["data"]
    assert (told["outputs"], told["report"], told["total_ms"]) == ([], {}, None)
    assert told["queued_ms"] >= 0
