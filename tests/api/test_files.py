"""Links to results, as strangers and browsers meet them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from .conftest import Running, running


@pytest.fixture(scope="module")
def link(server: Running) -> str:
    (url,) = server.finished(server.submit())["outputs"]
    return str(url)


def test_file_is_served_as_a_picture_and_nothing_else(stranger: httpx2.Client, link: str) -> None:
    answer = stranger.get(link)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["content-disposition"].startswith("inline; filename=")
    assert answer.headers["content-disposition"].endswith('.png"')


def test_link_may_say_what_it_is_saved_as(stranger: httpx2.Client, link: str) -> None:
    named = stranger.get(link, params={"name": 'my "photo".v2.exe'}).headers["content-disposition"]
    assert named == "inline; filename*=utf-8''my%20%22photo%22.v2.png"
    for name in ("../photo", "a\nb", "x" * 151):
        assert stranger.get(link, params={"name": name}).status_code == 400, name


def test_head_tells_the_size_without_the_bytes(stranger: httpx2.Client, link: str) -> None:
    answer = stranger.head(link)
    assert answer.content == b""
    assert int(answer.headers["content-length"]) == len(stranger.get(link).content)
    assert answer.headers["content-type"] == "image/png"


def test_range_gives_part_of_the_file(stranger: httpx2.Client, link: str) -> None:
    whole = stranger.get(link).content
    answer = stranger.get(link, headers={"Range": "bytes=4-11"})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes 4-11/{len(whole)}"
    assert answer.content == whole[4:12]
    assert stranger.get(link, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


def test_link_that_was_changed_opens_nothing(stranger: httpx2.Client, link: str) -> None:
    parts = urlsplit(link)
    _, _, token, *key = parts.path.split("/")
    expires, _, signature = token.partition(".")
    changed = [
        f"/files/{int(expires) + 1}.{signature}/{'/'.join(key)}",
        f"/files/{expires}.{signature[::-1]}/{'/'.join(key)}",
        f"/files/{expires}./{'/'.join(key)}",
        f"/files/{token}/{'/'.join(key[:-1])}/2.png",
        f"/files/{token}/inputs/{key[1]}",
        f"/files/{token}/%2e%2e/%2e%2e/key",
        f"/files/{token}/",
    ]
    for path in changed:
        answer = stranger.get(f"{parts.scheme}://{parts.netloc}{path}")
        assert answer.status_code == 404, path
        assert answer.json()["error_code"] == "not_found"


def test_link_ends_with_the_retention_and_a_poll_gives_a_new_one(
    stranger: httpx2.Client, tmp_path: Path
) -> None:
    day_seconds = 86_400
    with running(tmp_path, retention_days=7) as server:
        data = server.finished(server.submit())
        (url,) = data["outputs"]
        server.clock_offset_seconds = 6.9 * day_seconds
        assert stranger.get(url).status_code == 200
        server.clock_offset_seconds = 8.1 * day_seconds
        assert stranger.get(url).status_code == 404
        (renewed,) = server.http.get(data["urls"]["get"]).json()["data"]["outputs"]
        assert stranger.get(renewed).status_code == 200
