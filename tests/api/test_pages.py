"""The pages: complete, self-contained, and under a policy that allows nothing else."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from enlarger.engine.options import Options

from .conftest import Running

TEXTS = {".html", ".css", ".js", ".svg"}
WEB = Path(__file__).parents[2] / "src" / "enlarger" / "web"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_allows_only_its_own_files(server: Running, path: str) -> None:
    answer = server.http.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_everything_a_page_names_is_served(server: Running, path: str) -> None:
    named = re.findall(r'(?:href|src)="([^"]+)"', server.http.get(path).text)
    assert len(named) >= 4
    for target in named:
        assert target.startswith("/")
        assert server.http.get(target).status_code == 200, target


@pytest.mark.parametrize("name", sorted(path.name for path in WEB.iterdir() if path.suffix in TEXTS))
def test_no_page_file_reaches_elsewhere(server: Running, name: str) -> None:
    text = (WEB / name).read_text("utf-8")
    others = re.findall(r"(?:https?:)?//[\w.]+\.\w+", re.sub(r'xmlns="[^"]*"', "", text))
    assert set(others) <= {"https://example.com"}
    assert "style=" not in text
    assert " onclick" not in text
    if not name.endswith(".html"):
        assert server.http.get(f"/web/{name}").text == text


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
