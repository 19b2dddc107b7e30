"""What the page may do and weigh: its own files, no inline code, little of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import requests
from playwright.sync_api import expect

from ..e2e.conftest import Server
from .conftest import Tab, sample

MAX_FIRST_LOAD_BYTES = 60_000
MAX_MODULE_LINES = 350
WEB = Path(__file__).parents[2] / "src" / "enlarger" / "web"
MODULES = {path.name: path.read_text("utf-8") for path in WEB.glob("*.js")}


def test_first_load_is_small(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    received: dict[str, int] = {}
    session = tab.page.context.new_cdp_session(tab.page)
    session.send("Network.enable")
    session.on(
        "Network.loadingFinished",
        lambda event: received.update({event["requestId"]: event["encodedDataLength"]}),
    )
    tab.open()
    tab.page.wait_for_load_state("networkidle")
    # Everything that comes without a hand being moved, headers and API answers too.
    assert 30_000 < sum(received.values()) < MAX_FIRST_LOAD_BYTES, received


def test_policy_allows_no_inline_code_and_no_other_origin(server: Server) -> None:
    for path in ("/", "/docs"):
        policy = requests.get(server.url + path, timeout=30).headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "default-src 'none'" in policy
        assert "trusted-types" in policy


def test_inline_code_put_into_the_page_does_not_run(tab: Tab) -> None:
    tab.expect_errors("Content Security Policy", "TrustedScript", "TrustedHTML")
    tab.page.evaluate(
        """() => {
            const script = document.createElement("script");
            try { script.textContent = "window.ran = true"; } catch {}
            document.body.append(script);
        }"""
    )
    assert tab.page.evaluate("window.ran") is None


def test_name_of_a_file_is_shown_as_text_whatever_it_holds(tab: Tab) -> None:
    name = '<img src=x onerror="window.ran = true">.png'
    tab.add(sample(), name)
    expect(tab.page.locator("#rail .thumb:not(.add)")).to_have_attribute("title", name)
    expect(tab.page.locator(".estimate")).to_contain_text("px")
    assert tab.page.evaluate("window.ran") is None


def test_reference_of_the_api_is_drawn(open_tab: Callable[..., Tab], server: Server) -> None:
    tab = open_tab()
    tab.page.goto(f"{server.url}/docs")
    expect(tab.page.locator("#reference")).to_contain_text("/api/v3/predictions/{id}/result")


def test_modules_are_small_and_build_no_markup_from_text() -> None:
    assert {name for name, text in MODULES.items() if len(text.splitlines()) > MAX_MODULE_LINES} == set()
    sinks = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")
    assert {name for name, text in MODULES.items() if sinks.search(text)} == set()
    assert {name for name, text in MODULES.items() if not text.startswith("// ")} == set()


def test_first_load_names_every_module_it_needs_at_once() -> None:
    needed, pending = set[str](), ["main.js"]
    while pending:
        if (name := pending.pop()) not in needed:
            needed.add(name)
            pending += re.findall(r'^import .*? from "\./([\w.]+)";', MODULES[name], re.MULTILINE)
    page = (WEB / "index.html").read_text("utf-8")
    assert set(re.findall(r'modulepreload" href="/web/([\w.]+)"', page)) == needed - {"main.js"}
