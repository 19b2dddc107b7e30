"""The call beside the picture: what is copied does what the page would do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from .conftest import QUICK, Tab, called, sample

COMMANDS = {
    "cURL": ["bash"],
    "Python": [sys.executable, "-"],
    "JavaScript": ["node", "--input-type=module", "-"],
}


def code(tab: Tab) -> str:
    return tab.page.locator("#call code").inner_text()


@pytest.mark.parametrize("language", COMMANDS)
def test_copied_code_runs_and_makes_what_the_form_says(tab: Tab, language: str, tmp_path: Path) -> None:
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.add(sample(), "it's.png")
    tab.choose(model=QUICK, output_format="webp")
    expect(tab.page.locator("#call code")).to_contain_text("/files/")
    tab.pick(language)
    tab.page.locator("#call").get_by_role("button", name="Copy").click()
    text = tab.page.evaluate("navigator.clipboard.readText()")
    assert text == code(tab)
    assert tab.server.key not in text
    done = subprocess.run(
        [shutil.which(COMMANDS[language][0]) or COMMANDS[language][0], *COMMANDS[language][1:]],
        input=text,
        env={**os.environ, "ENLARGER_KEY": tab.server.key, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    link = json.loads(done.stdout)["data"]["outputs"][0] if language == "cURL" else done.stdout.split()[-1]
    assert link.endswith(".webp")
    newest = called(tab.server, "predictions?page_size=1")["items"][0]
    assert newest["input"] | {"image": ""} == {
        "image": "",
        "scale": 4,
        "model": QUICK,
        "output_format": "webp",
    }


def test_key_is_shown_only_when_asked_for(tab: Tab) -> None:
    assert tab.server.key not in tab.page.content()
    tab.page.get_by_role("button", name="Show the key").click()
    assert tab.server.key in code(tab)
    tab.page.get_by_role("button", name="Hide the key").click()
    assert tab.server.key not in code(tab)


def test_call_stays_in_view_and_follows_the_form(tab: Tab) -> None:
    expect(tab.page.locator("#call code")).to_be_in_viewport()
    tab.add(sample())
    tab.page.fill("#scale", "3")
    expect(tab.page.locator("#call code")).to_contain_text('"scale": 3')
    expect(tab.page.locator("#call code")).to_be_in_viewport()
