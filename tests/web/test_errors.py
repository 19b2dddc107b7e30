"""What goes wrong is told in the words of the API, with what to do about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from ..e2e.conftest import Server, inline
from .conftest import QUICK, Tab, called, sample

REFUSED = "status of 4|status of 5"


@pytest.fixture(scope="module")
def strict(launch: Callable[..., Server]) -> Server:
    """A server that takes little."""
    return launch(
        ENLARGER_MAX_OUTPUT_MEGAPIXELS="0.05",
        ENLARGER_MAX_UPLOAD_BYTES="20000",
        ENLARGER_MAX_BACKLOG_SECONDS="0.0001",
    )


@pytest.fixture
def refused(open_tab: Callable[..., Tab], strict: Server) -> Tab:
    tab = open_tab(strict).open()
    tab.expect_errors(REFUSED)
    return tab


def test_file_that_is_no_picture_is_refused_at_once(refused: Tab) -> None:
    refused.add(b"dear diary", "diary.txt", "text/plain")
    expect(refused.page.locator("#notice [role=alert]")).to_contain_text("Not a picture: diary.txt")


def test_file_over_the_limit_is_refused_before_it_is_sent(refused: Tab) -> None:
    refused.add(b"\x89PNG" + bytes(30_000))
    expect(refused.page.locator("#notice [role=alert]")).to_contain_text(
        "photo.png has 30 kB; this server takes up to 20 kB"
    )
    assert not [url for url in refused.requested if "/uploads" in url]


def test_limits_are_told_before_anything_is_chosen(refused: Tab) -> None:
    expect(refused.page.locator("#limits")).to_have_text(
        "Up to 20 kB and 64 megapixels; the result up to 0.05 megapixels."
    )


def test_broken_picture_is_refused_by_preflight_with_the_way_out(refused: Tab) -> None:
    refused.add(b"certainly not a picture")
    card = refused.page.locator("#action [role=alert]")
    expect(card).to_contain_text("this is not a png")
    expect(card).to_contain_text("Save the picture as PNG")
    expect(refused.page.locator("#enlarge")).to_be_disabled()


def test_result_over_the_limit_is_refused_until_the_factor_is_smaller(refused: Tab) -> None:
    refused.add(sample(100, 60))
    expect(refused.page.locator("#action [role=alert]")).to_contain_text("the limit is 0.05")
    refused.page.fill("#scale", "2")
    expect(refused.page.locator(".estimate")).to_contain_text("200 × 120 px")
    expect(refused.page.locator("#enlarge")).to_be_enabled()


def test_refused_option_is_marked_in_the_form(refused: Tab) -> None:
    refused.add(sample(10, 10))
    refused.page.click("summary:has-text('Advanced')")
    refused.page.locator("input[name=frame]").fill("-1")
    expect(refused.page.locator("#action [role=alert]")).to_contain_text("frame must be")
    expect(refused.page.locator(".field.refused")).to_have_attribute("data-option", "frame")


def test_full_line_is_told_and_the_picture_waits(refused: Tab) -> None:
    called(refused.server, "wavespeed-ai/real-esrgan", "POST", image=inline(sample(60, 60)), scale=2)
    refused.add(sample(10, 10))
    expect(refused.page.locator(".estimate")).to_contain_text("px")
    refused.start()
    card = refused.page.locator("#action [role=alert]")
    expect(card).to_contain_text("Try again in a while")
    expect(refused.page.locator("#enlarge")).to_be_enabled()


def test_address_the_server_does_not_fetch_is_refused(tab: Tab) -> None:
    tab.expect_errors(REFUSED)
    tab.page.fill("#url", "http://127.0.0.1:9/secret.png")
    tab.page.press("#url", "Enter")
    expect(tab.page.locator("#action [role=alert]")).to_contain_text("Save the picture and add the file")


def test_words_that_are_no_address_are_refused(tab: Tab) -> None:
    tab.page.fill("#url", "ftp://example.com/photo.jpg")
    tab.page.locator("#url-form button").click()
    expect(tab.page.locator("#notice [role=alert]")).to_contain_text("no web address")


def test_failed_prediction_shows_its_error(open_tab: Callable[..., Tab], server: Server) -> None:
    answer = called(
        server, "wavespeed-ai/real-esrgan", "POST", image=inline(b"no picture"), enable_sync_mode=True
    )
    assert answer["status"] == "failed"
    tab = open_tab().open(f"p={answer['id']}")
    expect(tab.page.locator("#stage [role=alert]")).to_contain_text(answer["error"])


def test_unknown_prediction_is_told(open_tab: Callable[..., Tab]) -> None:
    tab = open_tab()
    tab.expect_errors(REFUSED)
    tab.open("p=" + "0" * 32)
    expect(tab.page.locator("#stage [role=alert]")).to_contain_text(
        "it was deleted, or it belongs to another key"
    )


def test_without_a_key_the_page_asks_for_one(open_tab: Callable[..., Tab], server: Server) -> None:
    tab = open_tab()
    tab.open(with_key=False)
    tab.expect_errors("status of 401")
    expect(tab.page.locator("#key-card")).to_contain_text("needs an API key")
    expect(tab.page.locator("#intake")).to_be_hidden()
    tab.page.fill("#key-card input", "wsk_wrong")
    tab.page.press("#key-card input", "Enter")
    expect(tab.page.locator("#key-card [role=alert]")).to_contain_text("Invalid API key")
    tab.page.fill("#key-card input", server.key)
    tab.page.press("#key-card input", "Enter")
    tab.page.locator("html.ready").wait_for(state="attached")


def test_key_leaves_the_address_and_stays_in_the_browser(tab: Tab) -> None:
    assert tab.server.key not in tab.page.url
    assert tab.stored("enlarger-key") == tab.server.key
    tab.page.click("#open-key")
    tab.page.get_by_text("Forget the key").click()
    tab.page.locator("html.locked").wait_for(state="attached")
    assert tab.stored("enlarger-key") is None


def test_broken_upload_can_be_tried_again(tab: Tab) -> None:
    tab.expect_errors("ERR_FAILED")
    tab.page.route("**/uploads/*", lambda route: route.abort())
    tab.add(sample())
    card = tab.page.locator("#stage [role=alert]")
    expect(card).to_contain_text("The upload broke off")
    tab.page.unroute("**/uploads/*")
    card.get_by_role("button").click()
    tab.choose(model=QUICK)
    expect(tab.page.locator(".estimate")).to_contain_text("192 × 128 px")
