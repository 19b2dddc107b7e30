"""The page in a real browser: bytes and time until it can be used, and a look around in a result of 16k × 16k.

Chromium without a window, on the machine of the server. Frames count by the browser's own clock: the times that
requestAnimationFrame tells while the picture is dragged. The result is put into the store as a finished job would
leave it; no network runs. Each aim stands beside its number.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import shutil
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pyvips
from playwright.sync_api import Browser, Page, sync_playwright

import record
from enlarger.drivers import opened_store
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Job, Output, State
from enlarger.jobs.keys import ensure_first_key
from enlarger.settings import Settings
from service import Server, serving

INTERACTIVE_SECONDS, FIRST_LOAD_BYTES, TILE_MS, FRAMES_PER_SECOND = 1.0, 60_000, 50, 30
LOADS, TILES, DRAGS, MOVES = 5, 200, 6, 60
VIEWPORT = {"width": 1440, "height": 900}
JOB_ID = "b" * 32
PHOTO = record.PHOTOS / "OST_009.png"

# The moment at which the class `ready` appears, and every frame, by the clock of the page.
WATCH = """
new MutationObserver(() => {
  if (!window.readyAt && document.documentElement.classList.contains('ready')) window.readyAt = performance.now();
}).observe(document, { subtree: true, attributes: true, attributeFilter: ['class'] });
performance.setResourceTimingBufferSize(10000);
window.frames_ = [];
(function frame(now) { window.frames_.push(now); requestAnimationFrame(frame); })(performance.now());
"""
LOADED_BYTES = """
() => performance.getEntriesByType('navigation').concat(
  performance.getEntriesByType('resource').filter((entry) => new URL(entry.name).pathname.startsWith('/web/')))
  .reduce((total, entry) => total + entry.encodedBodySize, 0)
"""
TILE_DURATIONS = """
() => performance.getEntriesByType('resource')
  .filter((entry) => new URL(entry.name).pathname.startsWith('/tiles/')).map((entry) => entry.duration)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=16_384, help="of the result, pixels")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        asyncio.run(prepare(data_dir, arguments.side))
        with serving(data_dir) as server, sync_playwright() as playwright:
            # No sandbox of its own: containers give it none, and the page is ours.
            browser = playwright.chromium.launch(
                executable_path=arguments.chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            numbers = {
                "side": arguments.side,
                "chromium": browser.version,
                "load": load(browser, server),
                "viewer": viewer(server, data_dir),
                "pan": pan(browser, server),
            }
            browser.close()
    record.write("playground", numbers)


async def prepare(data_dir: Path, side: int) -> None:
    """A data folder with one finished job of the first key, whose result is a photo of side × side."""
    photo = pyvips.Image.new_from_file(str(PHOTO)).resize(side / 4 / 448, kernel="cubic")
    part = photo.crop(0, 0, side // 4, side // 4).copy_memory()
    blobs = LocalBlobs(data_dir / "blobs")
    output_key, input_key = f"outputs/{JOB_ID}/1/1.png", f"inputs/{JOB_ID}"
    async with opened_store(Settings(data_dir=data_dir)) as store, blobs.scratch() as folder:
        part.replicate(4, 4).pngsave(str(folder / "result"), compression=1)
        digest = hashlib.sha256((folder / "result").read_bytes()).hexdigest()
        output = Output(
            blob_key=output_key,
            media_type="image/png",
            width=side,
            height=side,
            bytes=(folder / "result").stat().st_size,
            sha256=digest,
        )
        await blobs.put_file(output_key, folder / "result")
        await blobs.put(input_key, part.resize(0.25).pngsave_buffer())
        now = time.time()
        await ensure_first_key(store, data_dir, now=now, new_id=lambda: "a" * 32, random=os.urandom)
        (key,) = await store.keys()
        await store.add(
            Job(
                id=JOB_ID,
                key_id=key.id,
                model="wavespeed-ai/real-esrgan",
                input={"scale": 4},
                options={},
                source_blob=input_key,
                state=State.COMPLETED,
                progress=1.0,
                created_at=now,
                started_at=now,
                finished_at=now,
                outputs=(output,),
            )
        )


def opened(browser: Browser, url: str) -> Page:
    """A page in a profile of its own, whose cache is empty."""
    page = browser.new_context(viewport=VIEWPORT).new_page()
    page.add_init_script(WATCH)
    page.goto(url)
    return page


def load(browser: Browser, server: Server) -> dict[str, Any]:
    """From the start of the navigation until the form is there; then the same with a full cache."""
    cold, warm, loaded = [], [], 0
    for _ in range(LOADS):
        page = opened(browser, f"{server.url}/#key={server.key}")
        cold.append(ready_seconds(page))
        loaded = page.evaluate(LOADED_BYTES)
        page.reload()
        warm.append(ready_seconds(page))
        page.context.close()
    seconds = statistics.median(cold)
    return {
        "interactive_seconds": round(seconds, 3),
        "aim_interactive_seconds": INTERACTIVE_SECONDS,
        "met_interactive": seconds < INTERACTIVE_SECONDS,
        "interactive_again_seconds": round(statistics.median(warm), 3),
        "first_load_bytes": loaded,
        "aim_first_load_bytes": FIRST_LOAD_BYTES,
        "met_first_load": loaded < FIRST_LOAD_BYTES,
    }


def ready_seconds(page: Page) -> float:
    return float(page.wait_for_function("() => window.readyAt", timeout=30_000).json_value()) / 1000


def viewer(server: Server, data_dir: Path) -> dict[str, Any]:
    """How long the first look takes to prepare, and then a tile: read from the disk, and from memory."""
    with httpx2.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {server.key}"}, timeout=900
    ) as http:
        started = time.perf_counter()
        answer = http.get(f"/api/v3/predictions/{JOB_ID}/outputs/0/viewer")
        prepared_seconds = time.perf_counter() - started
        view = answer.raise_for_status().json()["data"]
        pyramid = data_dir / "blobs" / "pyramids" / JOB_ID / "output-0.tif"
        latencies: dict[str, list[float]] = {"from_disk": [], "from_memory": []}
        sizes: list[int] = []
        for url in tile_urls(view):
            with pyramid.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            for latency in latencies.values():
                started = time.perf_counter()
                sizes.append(len(http.get(url).raise_for_status().content))
                latency.append(1000 * (time.perf_counter() - started))
    p99 = percentile(latencies["from_disk"], 99)
    return {
        "prepare_seconds": round(prepared_seconds, 2),
        "pyramid_mb": round(pyramid.stat().st_size / 1e6, 1),
        "tile_size": view["tile_size"],
        "tile_kb": round(statistics.mean(sizes) / 1000, 1),
        **{
            f"tile_{name}_ms": {"p50": percentile(found, 50), "p99": percentile(found, 99)}
            for name, found in latencies.items()
        },
        "aim_tile_ms": TILE_MS,
        "met_tile": p99 <= TILE_MS,
    }


def tile_urls(view: dict[str, Any]) -> list[str]:
    """Tiles of the full picture, anywhere in it."""
    chance = random.Random(1)
    columns, rows = view["levels"][0]["columns"], view["levels"][0]["rows"]
    places = [(chance.randrange(columns), chance.randrange(rows)) for _ in range(TILES)]
    return [view["url"].format(level=0, column=column, row=row) for column, row in places]


def pan(browser: Browser, server: Server) -> dict[str, Any]:
    """Drag the result across the screen at full size, to parts never seen before."""
    page = opened(browser, f"{server.url}/#key={server.key}&p={JOB_ID}")
    pane = page.locator(".viewer .pane").first
    pane.locator("canvas").first.wait_for(timeout=120_000)
    pane.focus()
    page.keyboard.press("1")
    page.wait_for_timeout(1000)
    box = pane.bounding_box()
    assert box
    tiles_before = len(page.evaluate(TILE_DURATIONS))
    start = page.evaluate("() => performance.now()")
    for _ in range(DRAGS):
        drag(page, box)
    end = page.evaluate("() => performance.now()")
    frames = [now for now in page.evaluate("() => window.frames_") if start <= now <= end]
    gaps = [after - before for before, after in pairwise(frames)]
    tiles = page.evaluate(TILE_DURATIONS)[tiles_before:]
    page.context.close()
    rate = 1000 * len(gaps) / sum(gaps)
    return {
        "frames_per_second": round(rate, 1),
        "aim_frames_per_second": FRAMES_PER_SECOND,
        "met_frames": rate >= FRAMES_PER_SECOND,
        "frame_ms": {
            "p50": percentile(gaps, 50),
            "p99": percentile(gaps, 99),
            "longest": round(max(gaps), 1),
        },
        "seconds": round((end - start) / 1000, 1),
        "tiles": len(tiles),
        "tile_in_browser_ms": {"p50": percentile(tiles, 50), "p99": percentile(tiles, 99)},
    }


def drag(page: Page, box: Any) -> None:
    """From the lower right of the pane to the upper left, in steps of a hand."""
    right, bottom = box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.9
    page.mouse.move(right, bottom)
    page.mouse.down()
    for step in range(1, MOVES + 1):
        share = 0.8 * step / MOVES
        page.mouse.move(right - box["width"] * share, bottom - box["height"] * share)
    page.mouse.up()


def percentile(values: list[float], share: int) -> float:
    return (
        round(statistics.quantiles(values, n=100, method="inclusive")[share - 1], 1)
        if len(values) > 1
        else 0.0
    )


if __name__ == "__main__":
    main()
