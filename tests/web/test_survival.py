"""Runs outlive what happens to the page: cancelled, reloaded, closed; events blocked; the server killed."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import expect

from ..e2e.conftest import Server, eventually, inline
from .conftest import QUICK, RUN_MS, SLOW, Tab, called, row_of, sample

LARGE = (1500, 1200)
"""Some tiles, whatever computes them, and each takes a second or more: the page is looked at once a second."""
FIRST = re.compile(r"1 of \d tiles done")
CONNECTION = r"ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE"


def begin(tab: Tab, size: tuple[int, int], model: str) -> str:
    tab.add(sample(*size))
    tab.choose(model=model)
    expect(tab.page.locator(".estimate")).to_contain_text("px")
    tab.start()
    expect(tab.page.locator("#cancel")).to_be_visible()
    expect(tab.page).to_have_url(re.compile("#p="))
    return tab.prediction_id()


def test_cancelled_run_ends_and_can_be_started_again(
    open_tab: Callable[..., Tab], launch: Callable[..., Server]
) -> None:
    tab = open_tab(launch()).open()
    prediction = begin(tab, (200, 200), SLOW)
    tab.page.click("#cancel")
    expect(tab.page.locator("#enlarge")).to_be_visible()
    assert row_of(tab.server, prediction)["state"] == "cancelled"
    tab.choose(model=QUICK)
    tab.start()
    tab.viewer()
    assert tab.prediction_id() != prediction


def test_tiles_are_drawn_as_they_are_done_and_survive_a_reload(tab: Tab) -> None:
    prediction = begin(tab, LARGE, QUICK)
    line = tab.page.locator(".progress-line")
    expect(line).to_contain_text(FIRST, timeout=RUN_MS)
    drawn = (
        "canvas => canvas.getContext('2d').getImageData(canvas.width / 4, canvas.height / 4, 1, 1).data[3]"
    )
    assert tab.page.locator(".developing canvas").evaluate(drawn) == 255
    tab.page.reload()
    tab.page.locator("html.ready").wait_for(state="attached")
    if row_of(tab.server, prediction)["state"] == "processing":
        expect(line).to_contain_text(re.compile(r"[1-9] of \d tiles done"))
    tab.viewer()
    expect(tab.page.locator(".made")).to_contain_text("6 000 × 4 800 px")


def test_new_tab_takes_up_what_is_still_in_work(tab: Tab, open_tab: Callable[..., Tab]) -> None:
    prediction = begin(tab, LARGE, QUICK)
    tab.page.close()
    again = open_tab(beside=tab)
    again.open(with_key=True)
    again.viewer()
    assert again.prediction_id() == prediction


def test_waiting_line_is_told(open_tab: Callable[..., Tab], launch: Callable[..., Server]) -> None:
    tab = open_tab(launch()).open()
    for _ in range(2):  # one in work, one made ready meanwhile
        called(tab.server, "wavespeed-ai/real-esrgan", "POST", image=inline(sample(300, 300)), model=SLOW)
    tab.add(sample(9, 9))
    expect(tab.page.locator(".estimate")).to_contain_text("36 × 36 px")
    tab.start()
    expect(tab.page.locator(".progress-line")).to_contain_text("Next in line")
    expect(tab.page.locator(".progress-line")).to_contain_text("left")


def test_polling_takes_over_where_events_do_not_get_through(tab: Tab) -> None:
    tab.expect_errors("ERR_FAILED")
    tab.page.route("**/events", lambda route: route.abort())
    tab.run(sample())
    assert [url for url in tab.requested if url.endswith("/result")]


def test_page_goes_on_by_itself_when_the_killed_server_is_back(
    open_tab: Callable[..., Tab], launch: Callable[..., Server]
) -> None:
    tab = open_tab(launch()).open()
    tab.expect_errors(CONNECTION)
    prediction = begin(tab, LARGE, QUICK)
    eventually(lambda: row_of(tab.server, prediction)["compute_starts"] == 1, "the computation")
    tab.server.kill()
    expect(tab.page.locator("#offline")).to_be_visible()
    expect(tab.page.locator("#status")).to_have_text("No answer")
    tab.server.start()
    expect(tab.page.locator("#offline")).to_be_hidden(timeout=RUN_MS)
    tab.viewer()
    expect(tab.page.locator(".made")).to_contain_text("6 000 × 4 800 px")
    assert called(tab.server, f"predictions/{prediction}/result")["status"] == "completed"
