"""The viewer: what it shows is the picture, pixel for pixel, however large; both sides move as one."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import expect

from .conftest import QUICK, Tab, called, sample, seen

ZOOM = ".viewer .readout"


def result_of(tab: Tab) -> Image.Image:
    """The result, as the API gives it."""
    (url,) = called(tab.server, f"predictions/{tab.prediction_id()}/result")["outputs"]
    return Image.open(io.BytesIO(requests.get(url, timeout=60).content)).convert("RGB")


def difference(shown: Image.Image, expected: Image.Image) -> float:
    """Mean over all samples, in levels of 255."""
    return float(np.abs(np.asarray(shown, np.int16) - np.asarray(expected, np.int16)).mean())


def middle_of(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    left, top = (picture.width - size[0]) // 2, (picture.height - size[1]) // 2
    return picture.crop((left, top, left + size[0], top + size[1]))


def key(tab: Tab, *keys: str) -> None:
    for name in keys:
        tab.page.locator(".pane").press(name)


def test_one_to_one_shows_the_very_pixels_of_the_result(tab: Tab) -> None:
    tab.run(sample(360, 240))
    tab.pick("After")
    key(tab, "1")
    expect(tab.page.locator(ZOOM)).to_have_text("100 %")
    pane = seen(tab.page, ".pane")
    size = (pane.width // 2 // 2 * 2 - 80, pane.height // 2 // 2 * 2 - 80)
    # The middle of a pane of odd size lies half a pixel off.
    shifts = [middle_of(result_of(tab), (size[0] + 2, size[1] + 2)).crop((x, y, x + size[0], y + size[1]))
              for x in range(3) for y in range(3)]  # fmt: skip
    assert min(difference(middle_of(pane, size), shift) for shift in shifts) == 0


@pytest.fixture
def large(tab: Tab) -> Tab:
    """A result of 4200 × 4200 pixels in the viewer."""
    tab.add(sample(420, 420))
    tab.choose(model=QUICK, output_format="jpeg")
    tab.page.fill("#scale", "10")
    tab.start()
    tab.viewer()
    return tab


def test_large_result_is_shown_by_tiles_alone(large: Tab) -> None:
    large.pick("After")
    key(large, "1")
    expect(large.page.locator(ZOOM)).to_have_text("100 %")
    expected = result_of(large)
    pane = seen(large.page, ".pane")
    size = (pane.width - 100, pane.height - 100)
    for _ in range(100):
        if (found := difference(middle_of(seen(large.page, ".pane"), size), middle_of(expected, size))) < 3:
            break
        large.page.wait_for_timeout(100)
    assert found < 3
    assert [url for url in large.requested if "/tiles/" in url]
    assert not [url for url in large.requested if "/outputs/" in url and "/files/" in url]


def test_side_by_side_shows_the_same_place_at_the_same_zoom(tab: Tab) -> None:
    file = io.BytesIO()
    picture = Image.new("RGB", (64, 48), (20, 20, 220))
    picture.paste((230, 40, 20), (0, 0, 20, 48))
    picture.save(file, "png")
    tab.run(file.getvalue())
    tab.pick("Side by side")
    box = tab.page.locator(".pane").bounding_box()
    assert box
    tab.page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
    for _ in range(4):
        tab.page.mouse.wheel(0, -200)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    tab.page.mouse.up()
    tab.page.wait_for_timeout(100)
    row = np.asarray(seen(tab.page, ".pane"), np.int16)[int(box["height"]) // 2]
    is_red = row[:, 0] > row[:, 2]
    half = len(row) // 2
    edges = [int(np.flatnonzero(~part)[0]) for part in (is_red[:half], is_red[half:])]
    assert 10 < edges[0] < half - 10
    assert abs(edges[0] - edges[1]) <= 8  # the edge itself: 4 result pixels wide, enlarged


def test_every_way_to_zoom_and_pan_works(tab: Tab) -> None:
    tab.run(sample(360, 240))
    zoom = tab.page.locator(ZOOM)
    fitted = zoom.inner_text()
    box = tab.page.locator(".pane").bounding_box()
    assert box
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for act in (
        lambda: key(tab, "+"),
        lambda: tab.page.mouse.wheel(0, -300),
        lambda: tab.page.mouse.dblclick(centre[0], centre[1] - 90),
        lambda: tab.page.get_by_role("button", name="Zoom in").click(),
    ):
        tab.page.mouse.move(centre[0], centre[1] - 90)
        act()
        expect(zoom).not_to_have_text(fitted)
        key(tab, "0")
        expect(zoom).to_have_text(fitted)
    key(tab, "1")
    before = seen(tab.page, ".pane").tobytes()
    key(tab, "ArrowRight")
    tab.page.wait_for_timeout(100)
    assert seen(tab.page, ".pane").tobytes() != before
    key(tab, "s")
    expect(tab.page.get_by_role("radio", name="Side by side")).to_be_checked()


def test_pinch_zooms_about_the_fingers(open_tab: Callable[..., Tab]) -> None:
    phone = open_tab(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).open()
    phone.run(sample(90, 60))
    zoom = phone.page.locator(ZOOM)
    fitted = zoom.inner_text()
    phone.page.locator(".pane").scroll_into_view_if_needed()
    box = phone.page.locator(".pane").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    fingers = phone.page.context.new_cdp_session(phone.page)
    for kind, apart in [("touchStart", 30), ("touchMove", 60), ("touchMove", 100)]:
        points = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(zoom).not_to_have_text(fitted)
    grown = int(zoom.inner_text().split()[0]) / int(fitted.split()[0])
    assert 2.5 < grown < 4.5  # the fingers moved apart to 100 / 30 of where they were


def test_divider_moves_by_keys_and_tells_where_it_is(tab: Tab) -> None:
    tab.run(sample())
    divider = tab.page.locator(".pane [role=slider]")
    divider.press("End")
    expect(divider).to_have_attribute("aria-valuetext", "100 % before")
    divider.press("Home")
    divider.press("ArrowRight")
    expect(divider).to_have_attribute("aria-valuenow", "2")
