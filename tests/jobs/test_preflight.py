from __future__ import annotations

import base64
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from enlarger.engine.options import Options
from enlarger.errors import AddressRefused, InvalidPicture
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Key
from enlarger.jobs.queue import Entry
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.settings import Settings

pytestmark = pytest.mark.anyio


class Ruler:
    """Plans by the length of the file."""

    async def plan(self, source: Path, options: Options) -> Mapping[str, Any]:
        data = source.read_bytes()
        if not data.startswith(b"picture"):
            raise InvalidPicture("no picture")
        return {"bytes": len(data), "scale": options.scale, "seconds": 2.5}


@pytest.fixture
def planning(
    store: Store, blobs: LocalBlobs, settings: Settings, clock: Any, new_id: Any, pictures: Any
) -> Service:
    allowing = settings.model_copy(
        update={"allow_private_networks": (ip_network("127.0.0.0/8"),), "allow_ports": (pictures.port,)}
    )
    parts: dict[str, Any] = {"store": store, "blobs": blobs, "settings": allowing}
    return Service(**parts, clock=clock, new_id=new_id, link_secret=b"s", planner=Ruler())


def inline(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_preflight_tells_the_plan_and_when_it_would_be_done(
    planning: Service, store: Store, settings: Settings, key: Key
) -> None:
    options = Options(scale=3)
    plan = {"bytes": 8, "scale": 3.0, "seconds": 2.5, "eta_seconds": 2.5, "download_bytes": 0}
    assert await planning.preflight(key, inline(b"picture!"), options) == plan
    job = await planning.submit(key, model="m", image=inline(b"x"), options=options, echo={})
    assert await store.unfinished() == [Entry(job.id)]
    assert list((settings.data_dir / "blobs" / ".scratch").iterdir()) == []


async def test_preflight_takes_urls_and_own_links(
    planning: Service, blobs: LocalBlobs, key: Key, pictures: Any
) -> None:
    pictures.answer("/cat", b"picture of a cat")
    await blobs.put("uploads/1/1.png", b"picture uploaded")
    for image in (pictures.url("/cat"), planning.link("uploads/1/1.png", "http://here")):
        assert (await planning.preflight(key, image, Options()))["bytes"] == 16
    assert pictures.connections == 1


async def test_preflight_refuses_as_the_job_would(planning: Service, key: Key) -> None:
    with pytest.raises(InvalidPicture):
        await planning.preflight(key, inline(b"text"), Options())
    with pytest.raises(AddressRefused):
        await planning.preflight(key, "http://10.0.0.1/", Options())
