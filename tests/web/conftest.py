"""The page as its users have it: Debian's Chromium against `enlarger serve`, on real runs.

Whatever a test does, its tab must not have asked another origin for anything, nor written an error to the console
that the test did not announce.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from ..e2e.conftest import Server, launching

QUICK = "realesr-animevideov3"
SLOW = "RealESRGAN_x4plus"
SAMPLE = Path(__file__).parents[2] / "src" / "enlarger" / "web" / "sample.png"
EXPECT_MS = 30_000
RUN_MS = 120_000
"""Longest wait for a run; the machine may be busy with other tests."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Started for each module: while it lives, its thread counts as one that runs an event loop."""
    chromium = shutil.which("chromium")
    assert chromium, "the tests of the page need Chromium (tests/apt.txt)"
    # Chromium refuses its sandbox to root, who is the user in a container.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        expect.set_options(timeout=EXPECT_MS)
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """As `launching`, until the module ends."""
    with launching(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def server(launch: Callable[..., Server]) -> Server:
    return launch()


@dataclass
class Tab:
    """A page of the browser with what happened behind it."""

    page: Page
    server: Server
    errors: list[str] = field(default_factory=list[str])
    requested: list[str] = field(default_factory=list[str])
    announced: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.page.set_default_timeout(EXPECT_MS)
        self.page.on("console", self._listen)
        self.page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        self.page.on("request", lambda request: self.requested.append(request.url))

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} {message.location.get('url', '')}")

    def expect_errors(self, *patterns: str) -> None:
        """Lines of the console that are right in this test: browsers write one for every refused request."""
        self.announced += patterns

    def open(self, fragment: str = "", *, with_key: bool = True) -> Tab:
        key = f"key={self.server.key}" if with_key else ""
        self.page.goto(f"{self.server.url}/#{'&'.join(filter(None, [key, fragment]))}")
        self.page.locator("html.ready" if with_key else "html.locked").wait_for(state="attached")
        return self

    def add(self, data: bytes, name: str = "photo.png", media_type: str = "image/png") -> None:
        self.page.set_input_files("#files", [{"name": name, "mimeType": media_type, "buffer": data}])

    def choose(self, **options: str) -> None:
        """Set selects of the form by the name of the option."""
        for name, value in options.items():
            self.page.locator(f"select[name={name}]").select_option(value)

    def pick(self, label: str) -> None:
        """Choose one of a row of choices."""
        self.page.get_by_role("radio", name=label, exact=True).check()

    def start(self) -> None:
        self.page.locator("#enlarge:enabled").click()

    def run(self, data: bytes, model: str = QUICK, **options: str) -> str:
        """Add a picture, enlarge it and wait for the viewer; the id of the prediction."""
        self.add(data)
        self.choose(model=model, **options)
        self.start()
        self.viewer()
        return self.prediction_id()

    def viewer(self) -> None:
        self.page.locator(".viewer .pane canvas").wait_for(timeout=RUN_MS)

    def prediction_id(self) -> str:
        found = re.search(r"#p=([0-9a-f]{32})$", self.page.url)
        assert found, self.page.url
        return found[1]

    def stored(self, key: str) -> str | None:
        value: str | None = self.page.evaluate("name => localStorage.getItem(name)", key)
        return value

    def assert_clean(self) -> None:
        elsewhere = [url for url in self.requested if not url.startswith((self.server.url, "blob:"))]
        unannounced = [
            line for line in self.errors if not any(re.search(pattern, line) for pattern in self.announced)
        ]
        assert (elsewhere, unannounced) == ([], [])


@pytest.fixture
def open_tab(browser: Browser, server: Server) -> Iterator[Callable[..., Tab]]:
    """Open tabs; keywords are those of a browser context. `beside`: share the storage of this tab."""
    tabs: list[Tab] = []
    contexts: list[BrowserContext] = []

    def opened(on: Server = server, *, beside: Tab | None = None, **settings: Any) -> Tab:
        if beside:
            context = beside.page.context
        else:
            context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **settings})
            contexts.append(context)
        tab = Tab(context.new_page(), on)
        tabs.append(tab)
        return tab

    yield opened
    for context in contexts:
        context.close()
    for tab in tabs:
        tab.assert_clean()


@pytest.fixture
def tab(open_tab: Callable[..., Tab]) -> Tab:
    """A tab with the page open and the key taken."""
    return open_tab().open()


def sample(width: int = 48, height: int = 32) -> bytes:
    """The sample picture in this size, as PNG."""
    file = io.BytesIO()
    with Image.open(SAMPLE) as picture:
        picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS).save(file, "png")
    return file.getvalue()


def seen(page: Page, selector: str) -> Image.Image:
    """What the user sees of an element."""
    return Image.open(io.BytesIO(page.locator(selector).screenshot())).convert("RGB")


def called(server: Server, path: str, method: str = "GET", **given: Any) -> dict[str, Any]:
    """`data` of an answer of the API, asked past the page."""
    headers = {"Authorization": f"Bearer {server.key}"}
    answer = requests.request(
        method, f"{server.url}/api/v3/{path}", headers=headers, json=given or None, timeout=90
    )
    data: dict[str, Any] = answer.json()["data"]
    return data


def row_of(server: Server, job_id: str) -> dict[str, Any]:
    """The row of a job in the database of the server."""
    with contextlib.closing(sqlite3.connect(server.data_dir / "enlarger.db", timeout=30)) as database:
        database.row_factory = sqlite3.Row
        return dict(database.execute("SELECT * FROM jobs WHERE id = ?", [job_id]).fetchone())
