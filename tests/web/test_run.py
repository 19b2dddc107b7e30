"""A run from the picture to the file: dropped, planned, enlarged, looked at, taken away."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect

from ..e2e.conftest import Server
from .conftest import QUICK, Tab, called, row_of, sample, seen

DROP = """([data, name, type]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const transfer = new DataTransfer();
    if (type === "text/uri-list") transfer.setData(type, name);
    else transfer.items.add(new File([bytes], name, { type }));
    const event = (kind) => new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
    for (const kind of ["dragenter", "dragover", "drop"]) document.body.dispatchEvent(event(kind));
}"""
PASTE = """([data, text]) => {
    const transfer = new DataTransfer();
    if (text) transfer.setData("text/plain", text);
    else {
        const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
        transfer.items.add(new File([bytes], "image.png", { type: "image/png" }));
    }
    const given = { clipboardData: transfer, bubbles: true, cancelable: true };
    document.body.dispatchEvent(new ClipboardEvent("paste", given));
}"""


def test_dropped_picture_becomes_a_file_with_the_hash_of_the_result(tab: Tab, tmp_path: Path) -> None:
    tab.page.evaluate(DROP, [base64.b64encode(sample()).decode(), "harbour.png", "image/png"])
    tab.choose(model=QUICK)
    expect(tab.page.locator(".estimate")).to_contain_text("192 × 128 px")
    expect(tab.page.locator(".estimate")).to_contain_text("memory")
    tab.start()
    tab.viewer()
    divider = tab.page.locator(".divider[role=slider]")
    before = seen(tab.page, ".pane")
    box = tab.page.locator(".pane").bounding_box()
    grip = tab.page.locator(".pane .grip").bounding_box()
    assert box
    assert grip
    y = grip["y"] + grip["height"] / 2
    tab.page.mouse.move(grip["x"] + grip["width"] / 2, y)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 0.8 * box["width"], y, steps=5)
    tab.page.mouse.up()
    expect(divider).to_have_attribute("aria-valuenow", "80")
    # Between the old and the new place of the divider the enlarged picture gave way to the input.
    middle = (int(0.6 * box["width"]), 40, int(0.75 * box["width"]), int(box["height"]) - 40)
    assert seen(tab.page, ".pane").crop(middle).tobytes() != before.crop(middle).tobytes()
    with tab.page.expect_download() as download:
        tab.page.click("#download")
    assert download.value.suggested_filename == "harbour-192x128.png"
    path = tmp_path / "downloaded.png"
    download.value.save_as(path)
    (output,) = json.loads(row_of(tab.server, tab.prediction_id())["outputs"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == output["sha256"]
    with Image.open(path) as picture:
        assert picture.size == (192, 128)


def test_several_pictures_run_with_one_press(tab: Tab) -> None:
    files = [{"name": f"{n}.png", "mimeType": "image/png", "buffer": sample(12 + n, 8)} for n in range(3)]
    tab.page.set_input_files("#files", files)
    tab.choose(model=QUICK)
    expect(tab.page.locator(".estimate")).to_contain_text("3 pictures, about")
    expect(tab.page.locator("#enlarge")).to_have_text("Enlarge 3 pictures")
    tab.start()
    expect(tab.page.locator("#rail .badge.check")).to_have_count(3, timeout=120_000)
    tab.page.locator("#rail .thumb[title='2.png']").click()
    tab.viewer()
    expect(tab.page.locator(".made")).to_contain_text("56 × 32 px")


def test_pasted_picture_is_taken(tab: Tab) -> None:
    tab.page.evaluate(PASTE, [base64.b64encode(sample()).decode(), ""])
    expect(tab.page.locator("#rail .thumb:not(.add)")).to_have_attribute("title", "Pasted picture.png")
    expect(tab.page.locator(".estimate")).to_contain_text("px")


def test_picture_by_address_is_fetched_by_the_server_alone(
    tab: Tab, open_tab: Callable[..., Tab], launch: Callable[..., Server]
) -> None:
    prediction = tab.run(sample(20, 10))
    link = called(tab.server, f"predictions/{prediction}/result")["outputs"][0]
    other = open_tab().open()
    other.page.fill("#url", link)
    other.page.press("#url", "Enter")
    other.choose(model=QUICK)
    expect(other.page.locator(".estimate")).to_contain_text("320 × 160 px")
    other.start()
    other.viewer()
    expect(other.page.locator(".made")).to_contain_text("320 × 160 px")


def test_sample_is_one_press_away(tab: Tab) -> None:
    tab.page.click("#try-sample")
    expect(tab.page.locator(".estimate")).to_contain_text("768 × 512 px")
    expect(tab.page.locator("#stage img.still")).to_be_visible()


def test_camera_is_offered_where_there_is_touch(open_tab: Callable[..., Tab]) -> None:
    phone = open_tab(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True).open()
    expect(phone.page.locator("label.camera")).to_be_visible()
    expect(phone.page.locator("#photo")).to_have_attribute("capture", "environment")
    desktop = open_tab().open()
    expect(desktop.page.locator("label.camera")).to_be_hidden()


def test_target_size_and_format_are_planned_and_made(tab: Tab) -> None:
    tab.add(sample(40, 20))
    tab.choose(model=QUICK, output_format="webp")
    tab.pick("To a size")
    tab.page.fill("input[name=width]", "100")
    expect(tab.page.locator(".estimate")).to_contain_text("100 × 50 px")
    tab.page.fill("input[name=height]", "100")
    tab.pick("Fill and crop")
    expect(tab.page.locator(".estimate")).to_contain_text("100 × 100 px")
    tab.start()
    tab.viewer()
    sent = called(tab.server, f"predictions/{tab.prediction_id()}/result")
    assert sent["input"] | {"image": ""} == {
        "image": "",
        "width": 100,
        "height": 100,
        "fit": "cover",
        "model": QUICK,
        "output_format": "webp",
    }
    assert sent["outputs"][0].endswith(".webp")
    expect(tab.page.locator("#result .facts").first).to_contain_text("WEBP")


def test_form_has_a_control_for_every_option_of_the_api(tab: Tab) -> None:
    schema = called(tab.server, "models")[0]["api_schema"]["api_schemas"][0]["request_schema"]
    ours = {"image", "guidance_scale", "enable_sync_mode", "enable_base64_output", "webhook_url"}
    tab.add(sample())
    tab.page.click("summary:has-text('Advanced')")
    drawn = set(
        tab.page.locator("#settings [data-option]").evaluate_all("all => all.map((n) => n.dataset.option)")
    )
    assert drawn | {"scale"} == schema["properties"].keys() - ours
    models = tab.page.locator("select[name=model] option").evaluate_all("all => all.map((n) => n.value)")
    assert models == [choice["value"] for choice in schema["properties"]["model"]["x-choices"]]


def test_report_shows_where_the_time_went_and_what_was_converted(tab: Tab) -> None:
    tab.add(sample())
    tab.choose(model="auto", output_format="jpeg")
    tab.page.fill("#scale", "2")
    tab.start()
    tab.viewer()
    report = called(tab.server, f"predictions/{tab.prediction_id()}/report")
    result = tab.page.locator("#result")
    expect(result).to_contain_text("Network")
    expect(result).to_contain_text(report["outputs"][0]["sha256"])
    for note in [*report["report"]["choices"], *report["report"]["conversions"]]:
        expect(result).to_contain_text(note)
    assert report["report"]["choices"]


def test_changed_settings_offer_another_run_of_the_same_picture(tab: Tab) -> None:
    first = tab.run(sample())
    expect(tab.page.locator("#again")).to_have_count(0)
    tab.pick("Settings")
    tab.page.fill("#scale", "2")
    tab.page.click("#again")
    expect(tab.page.locator(".made")).to_contain_text("96 × 64 px", timeout=120_000)
    assert tab.prediction_id() != first
