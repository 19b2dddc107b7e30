"""Jobs that are soon done, for what they cost beside the computation."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Sequence

import httpx2
import numpy as np
from PIL import Image

from cluster import KEY, Program, Service

SUBMIT = "/api/v3/wavespeed-ai/real-esrgan"
QUICK = "realesr-animevideov3"
TINY_SIDE = 8
SLOTS = 2
"""Of a worker with one device."""


def body(seed: int, side: int = TINY_SIDE) -> bytes:
    """A submit of a picture of seeded noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    image = base64.b64encode(file.getvalue()).decode()
    return json.dumps({"image": image, "model": QUICK}).encode()


async def submit(api: Program, bodies: Sequence[bytes], key: str = KEY, at_once: int = 8) -> list[str]:
    """Ids of the jobs."""
    waiting, ids = list(reversed(bodies)), list[str]()

    async def client() -> None:
        while waiting:
            answer = await http.post(SUBMIT, content=waiting.pop())
            ids.append(answer.raise_for_status().json()["data"]["id"])

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx2.AsyncClient(base_url=api.url, headers=headers, timeout=60, trust_env=False) as http:
        await asyncio.gather(*(client() for _ in range(at_once)))
    return ids


def run_all(service: Service, api: Program, bodies: Sequence[bytes]) -> None:
    """Submit, and wait until no job of the service goes on."""
    asyncio.run(submit(api, bodies))
    service.until_ended(service.one("SELECT count(*) FROM jobs"))


def warmed(service: Service, api: Program, workers: Sequence[Program]) -> None:
    """Every worker has computed: its child runs, the network is loaded."""
    seed = 10**6
    while any(worker.metric("enlarger_device_busy_seconds") == 0 for worker in workers):
        run_all(service, api, [body(seed + number) for number in range(2 * SLOTS * len(workers))])
        seed += 1000
