"""The pages: complete, self-contained, and under a policy that allows nothing else."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import fields
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from enlarger.api.pages import Site, read_site
from enlarger.engine.options import Options

from .conftest import Running

TEXTS = {".html", ".css", ".js", ".svg"}
SVG_NAMESPACE = "http://www.w3.org/2000/svg"
MAX_FIRST_LOAD_BYTES = 60_000
WEB = Path(__file__).parents[2] / "src" / "enlarger" / "web"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_allows_only_its_own_files(server: Running, path: str) -> None:
    answer = server.http.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_everything_a_page_names_is_served(server: Running, path: str) -> None:
    named = re.findall(r'(?:href|src)="([^"#]+)', server.http.get(path).text)
    assert len(named) >= 4
    for target in named:
        assert target.startswith("/")
        assert server.http.get(target).status_code == 200, target


@pytest.mark.parametrize("name", sorted(path.name for path in WEB.iterdir() if path.suffix in TEXTS))
def test_no_page_file_reaches_elsewhere(server: Running, name: str) -> None:
    text = (WEB / name).read_text("utf-8")
    others = re.findall(r"(?:https?:)?//[\w.]+\.\w+", text.replace(SVG_NAMESPACE, ""))
    assert set(others) <= {"https://example.com"}
    if name.endswith((".html", ".svg")):
        assert not re.search(r"\s(style|on\w+)=", text)
    if not name.endswith(".html"):
        assert server.http.get(f"/web/{name}").text == text


def site(tmp_path: Path, script: str = "export {};") -> Site:
    """A site of two files, one of them in a folder."""
    (tmp_path / "parts").mkdir(exist_ok=True)
    (tmp_path / "index.html").write_text('<script type="module" src="/web/parts/a.js"></script>')
    (tmp_path / "parts" / "a.js").write_text(script)
    (tmp_path / "notes.txt").write_text("of no kind that a page has")
    return read_site(tmp_path)


def test_a_page_names_its_files_by_what_they_hold(tmp_path: Path) -> None:
    first, same, other = site(tmp_path), site(tmp_path), site(tmp_path, "export const a = 1;")
    assert first == same
    assert first.version != other.version
    assert f'src="/web/{first.version}/parts/a.js"'.encode() in first.assets["index.html"].data
    assert first.assets.keys() == {"index.html", "parts/a.js"}


def test_files_of_a_page_are_kept_and_the_page_is_asked_for(server: Running) -> None:
    page = server.http.get("/")
    assert page.headers["cache-control"] == "no-cache"
    named = re.findall(r'(?:href|src)="(/web/[^"]+)"', page.text)
    for target in named:
        assert "immutable" in server.http.get(target).headers["cache-control"], target
    version = named[0].split("/")[2]
    other = named[0].replace(version, "0" * 16)
    plain = named[0].replace(f"/{version}", "")
    for target in (other, plain):
        answer = server.http.get(target)
        assert answer.content == server.http.get(named[0]).content
        assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/", "/docs", "/web/docs.js", "/web/sample.png"])
def test_what_a_browser_has_is_not_sent_again(server: Running, path: str) -> None:
    first = server.http.get(path)
    again = server.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert server.http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br", "gzip"),
        ("*", "gzip"),
        ("GZIP;q=0.5", "gzip"),
        ("identity", None),
        ("gzip;q=0", None),
        ("br", None),
        ("", None),
    ],
)
def test_texts_are_sent_packed_to_those_who_can_unpack(
    server: Running, accepted: str, coding: str | None
) -> None:
    answer = server.http.get("/web/docs.js", headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert "Accept-Encoding" in answer.headers["vary"]
    assert answer.content == (WEB / "docs.js").read_bytes()
    picture = server.http.get("/web/sample.png", headers={"Accept-Encoding": accepted})
    assert "content-encoding" not in picture.headers
    assert picture.headers["content-type"] == "image/png"


def test_first_load_is_small(server: Running) -> None:
    page = server.http.get("/")
    total = int(page.headers["content-length"])
    for target in set(re.findall(r'(?:href|src)="(/web/[^"]+)"', page.text)):
        total += int(server.http.get(target).headers["content-length"])
    assert total < MAX_FIRST_LOAD_BYTES


@pytest.mark.parametrize(
    "path",
    [
        "/web/index.html",
        "/web/none.js",
        "/web/",
        "/web/0123456789abcdef/",
        "/web/../settings.py",
        "/web/%2e%2e/settings.py",
        "/web/..%2fsettings.py",
        "/web/0123456789abcdef/..%2f..%2fsettings.py",
        "/web//etc/passwd",
        "/web/%2fetc%2fpasswd",
        "/web/docs.js%00.png",
    ],
)
def test_nothing_but_the_files_of_the_pages_is_served(server: Running, path: str) -> None:
    assert raw_status(server, path) == 404


def raw_status(server: Running, path: str) -> int:
    """The status of a request whose path no client has tidied up."""
    parts = urlsplit(server.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    with closing(connection):
        connection.putrequest("GET", path, skip_host=False)
        connection.endheaders()
        return connection.getresponse().status


@pytest.fixture(scope="module")
def api(server: Running) -> dict[str, Any]:
    described: dict[str, Any] = server.http.get("/openapi.json").json()
    return described


def test_openapi_names_every_route_of_the_vendor_once(api: dict[str, Any]) -> None:
    routes = {f"{method} {path}" for path, methods in api["paths"].items() for method in methods}
    assert routes >= {
        "post /api/v3/wavespeed-ai/real-esrgan",
        "get /api/v3/predictions/{id}/result",
        "post /api/v3/predictions",
        "post /api/v3/predictions/delete",
        "post /api/v3/media/uploads",
        "post /api/v3/media/upload/binary",
        "get /api/v3/balance",
        "get /api/v3/models",
        "post /api/v3/model/price",
        "post /api/v3/model/pricing",
        "post /api/v3/user/usage_stats",
        "post /api/v3/billings/search",
    }
    # Older names of the same routes would only confuse.
    assert not [route for route in routes if "/api/v2" in route or "nightmareai" in route]


def test_openapi_describes_every_option_and_the_answer(api: dict[str, Any], server: Running) -> None:
    submit = api["paths"]["/api/v3/wavespeed-ai/real-esrgan"]["post"]
    body = submit["requestBody"]["content"]["application/json"]["schema"]
    ours = {"image", "guidance_scale", "enable_sync_mode", "enable_base64_output", "webhook_url"}
    assert body["properties"].keys() == ours | {spec.name for spec in fields(Options)}
    assert body["properties"]["output_format"]["default"] == "png"
    assert body["required"] == ["image"]
    assert (body["properties"]["scale"]["exclusiveMinimum"], body["properties"]["scale"]["maximum"]) == (
        0,
        10,
    )
    assert submit["security"] == [{"key": []}]
    answer = server.submit().json()["data"]
    assert api["components"]["schemas"]["Prediction"]["properties"].keys() == answer.keys()
