"""Everybody can use the page: by keyboard, by screen reader, on a phone, on a wall, in light and dark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .conftest import QUICK, Tab, sample

PACKAGE = "axe-core@4.10.3"
SIZES = [(390, 844), (768, 1024), (1440, 900), (3840, 2160)]


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core; fetched once for this environment."""
    npm = shutil.which("npm")
    assert npm, "the accessibility tests need npm (tests/apt.txt)"
    folder = Path(sys.prefix) / "npm" / PACKAGE
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not source.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [
            npm,
            "install",
            "--prefix",
            str(folder),
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            PACKAGE,
        ]
        subprocess.run(command, check=True, capture_output=True)
    return source.read_text("utf-8")


def serious(page: Page, axe: str) -> list[str]:
    """What axe finds wrong, seriously or worse."""
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing_serious_in_any_state(
    open_tab: Callable[..., Tab], axe: str, scheme: str, width: int
) -> None:
    # axe is a stranger to the policy of the page: for this test alone it is let in.
    tab = open_tab(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        bypass_csp=True,
        reduced_motion="reduce",
    )
    tab.expect_errors("status of 400", "status of 404")
    tab.open(with_key=False)
    assert serious(tab.page, axe) == [], "without a key"
    tab.page.goto("about:blank")
    tab.open()
    assert serious(tab.page, axe) == [], "first screen"
    tab.add(b"no picture")
    expect(tab.page.locator("#action [role=alert]")).to_be_visible()
    assert serious(tab.page, axe) == [], "refusal"
    tab.add(sample())
    tab.page.click("summary:has-text('Advanced')")
    expect(tab.page.locator(".estimate")).to_contain_text("px")
    assert serious(tab.page, axe) == [], "ready"
    tab.choose(model=QUICK)
    tab.start()
    tab.viewer()
    expect(tab.page.locator("#result .facts").first).to_be_visible()
    assert serious(tab.page, axe) == [], "result"
    tab.page.click("#open-history")
    expect(tab.page.locator(".history-list li").first).to_be_visible()
    assert serious(tab.page, axe) == [], "history"


def reach(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(80):
        if page.locator(selector).evaluate_all("all => all.some((node) => node === document.activeElement)"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} cannot be reached by keyboard")


def test_a_run_needs_no_mouse(tab: Tab) -> None:
    page = tab.page
    reach(page, "#try-sample")
    page.keyboard.press("Enter")
    reach(page, "select[name=model]")
    page.keyboard.type(QUICK)
    expect(page.locator("select[name=model]")).to_have_value(QUICK)
    expect(page.locator("#enlarge")).to_be_enabled()
    reach(page, "#enlarge")
    page.keyboard.press("Enter")
    tab.viewer()
    reach(page, ".pane")
    page.keyboard.press("+")
    reach(page, ".pane [role=slider]")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".pane [role=slider]")).to_have_attribute("aria-valuenow", "48")
    reach(page, "#download")
    reach(page, "#open-history")
    page.keyboard.press("Enter")
    expect(page.locator("#history")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#open-history")).to_be_focused()


def test_end_of_a_run_is_told_to_screen_readers(tab: Tab) -> None:
    tab.add(sample())
    tab.choose(model=QUICK)
    expect(tab.page.locator(".estimate")).to_contain_text("px")
    tab.start()
    expect(tab.page.locator("#live")).to_have_text("photo.png is done: 192 × 128 pixels.")


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nothing_is_wider_than_the_screen(open_tab: Callable[..., Tab], size: tuple[int, int]) -> None:
    tab = open_tab(viewport={"width": size[0], "height": size[1]}).open()
    wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert tab.page.evaluate(wider) == 0, "first screen"
    tab.run(sample())
    expect(tab.page.locator("#result .facts").first).to_be_visible()
    assert tab.page.evaluate(wider) == 0, "result"


def test_colours_follow_the_system_until_they_are_chosen(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(color_scheme="dark").open()
    back = "getComputedStyle(document.documentElement).backgroundColor"
    dark = tab.page.evaluate(back)
    tab.page.click("#theme")
    light = tab.page.evaluate(back)
    assert light != dark
    tab.page.reload()
    tab.page.locator("html.ready").wait_for(state="attached")
    assert tab.page.evaluate(back) == light


def test_nothing_moves_where_motion_is_unwanted(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab(reduced_motion="reduce").open()
    tab.page.click("#try-sample")
    expect(tab.page.locator(".estimate")).to_contain_text("px")
    tab.start()
    expect(tab.page.locator("#cancel")).to_be_visible()
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    assert tab.page.evaluate(moving) == 0
    tab.page.click("#cancel")
