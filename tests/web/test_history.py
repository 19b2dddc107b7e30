"""What was made can be found again, by link and by history, and deleted."""

from __future__ import annotations

from collections.abc import Callable

import requests
from playwright.sync_api import expect

from ..e2e.conftest import Server, inline
from .conftest import QUICK, Tab, called, sample


def test_link_to_a_prediction_opens_it_in_another_browser(tab: Tab, open_tab: Callable[..., Tab]) -> None:
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    prediction = tab.run(sample())
    tab.page.get_by_role("button", name="Copy link").click()
    assert tab.page.evaluate("navigator.clipboard.readText()") == f"{tab.server.url}/#p={prediction}"
    other = open_tab().open(f"p={prediction}")
    other.viewer()
    expect(other.page.locator(".made")).to_contain_text("192 × 128 px")
    # Input and result both: there is a divider between them.
    expect(other.page.locator(".pane [role=slider]")).to_be_visible()


def test_history_of_the_browser_and_of_the_key_differ(
    open_tab: Callable[..., Tab], launch: Callable[..., Server]
) -> None:
    tab = open_tab(launch()).open()
    tab.page.click("#open-history")
    expect(tab.page.locator("#history")).to_contain_text("Nothing yet")
    tab.page.keyboard.press("Escape")
    mine = tab.run(sample(), model=QUICK)
    others = called(
        tab.server,
        "wavespeed-ai/real-esrgan",
        "POST",
        image=inline(sample(9, 9)),
        model=QUICK,
        enable_sync_mode=True,
    )["id"]
    tab.page.click("#open-history")
    rows = tab.page.locator(".history-list li")
    expect(rows).to_have_count(1)
    expect(rows).to_have_attribute("data-id", mine)
    tab.pick("This key")
    expect(rows).to_have_count(2)
    tab.page.locator(f"[data-id='{others}'] .history-open").click()
    tab.viewer()
    assert tab.prediction_id() == others


def test_deleting_asks_twice_and_removes_the_file(tab: Tab) -> None:
    prediction = tab.run(sample())
    (link,) = called(tab.server, f"predictions/{prediction}/result")["outputs"]
    tab.page.click("#delete")
    expect(tab.page.locator("#delete")).to_have_text("Really delete?")
    assert requests.get(link, timeout=30).status_code == 200
    tab.page.click("#delete")
    expect(tab.page.locator("#welcome")).to_be_visible()
    assert requests.get(link, timeout=30).status_code == 404
    assert "#p=" not in tab.page.url


def test_history_deletes_and_downloads(tab: Tab) -> None:
    prediction = tab.run(sample(20, 20))
    tab.page.click("#open-history")
    row = tab.page.locator(f"[data-id='{prediction}']")
    with tab.page.expect_download() as download:
        row.get_by_role("link", name="Download photo.png").click()
    assert download.value.suggested_filename == "photo-large.png"
    row.get_by_role("button", name="Delete photo.png").click()
    row.get_by_role("button").last.click()
    expect(row).to_have_count(0)
    assert prediction not in [item["id"] for item in called(tab.server, "predictions?page_size=100")["items"]]


def test_settings_are_remembered(tab: Tab, open_tab: Callable[..., Tab]) -> None:
    tab.add(sample())
    tab.choose(model=QUICK, output_format="webp")
    again = open_tab(beside=tab)
    again.open()
    expect(again.page.locator("#call code")).to_contain_text('"output_format": "webp"')
