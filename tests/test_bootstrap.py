"""`run_service` in this process: where it listens, how it ends, what it refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from enlarger.assembly import Role
from enlarger.bootstrap import run_service
from enlarger.drivers import opened_store
from enlarger.errors import InvalidOption
from enlarger.settings import Settings


def serve(settings: Settings, visit: Callable[[str, str], None] = lambda _url, _key: None) -> str:
    """Run the service, visit it once from another thread, end it as an operator would; the URL it announced."""
    announced: list[str] = []
    visitors: list[threading.Thread] = []

    def visit_and_end(url: str, key: str) -> None:
        try:
            visit(url, key)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def announce(url: str, key: str) -> None:
        announced.append(url)
        visitors.append(threading.Thread(target=visit_and_end, args=(url, key)))
        visitors[0].start()

    asyncio.run(run_service(settings, announce))
    visitors[0].join()
    return announced[0]


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_service_is_ready_when_announced_and_ends_on_a_signal(tmp_path: Path) -> None:
    answers: list[httpx2.Response] = []

    def visit(url: str, key: str) -> None:
        answers.append(httpx2.get(f"{url}/readyz", timeout=30))
        headers = {"Authorization": f"Bearer {key}"}
        answers.append(httpx2.get(f"{url}/api/v3/predictions/0", headers=headers, timeout=30))

    url = serve(Settings(data_dir=tmp_path, port=0), visit)
    # 404, not 401: the key that was announced is good.
    assert [answer.status_code for answer in answers] == [200, 404]
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url)


def test_stream_is_brought_to_its_end_when_the_service_ends(tmp_path: Path) -> None:
    """One that is cut off instead would raise where it is read."""
    told: list[str] = []
    begun = threading.Event()

    def watch(url: str, headers: dict[str, str], job_id: str) -> None:
        path = f"{url}/api/v3/predictions/{job_id}/events"
        with httpx2.stream("GET", path, headers=headers, timeout=60) as stream:
            for line in stream.iter_lines():
                begun.set()
                told.append(line)
            told.append("the end")

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        watchers: list[threading.Thread] = []

        def visit(url: str, key: str) -> None:
            headers = {"Authorization": f"Bearer {key}"}
            asked = {"image": f"http://127.0.0.1:{port}/never-answered.png"}
            answer = httpx2.post(
                f"{url}/api/v3/wavespeed-ai/real-esrgan", json=asked, headers=headers, timeout=60
            )
            job_id = answer.json()["data"]["id"]
            watchers.append(threading.Thread(target=watch, args=(url, headers, job_id)))
            watchers[0].start()
            assert begun.wait(60)

        reachable = {"allow_private_networks": "127.0.0.0/8", "allow_ports": str(port)}
        serve(
            Settings.model_validate({"data_dir": tmp_path, "port": 0, "drain_seconds": 0, **reachable}), visit
        )
        watchers[0].join()
    assert told[0] == "event: status"
    assert told[-1] == "the end"


def test_first_key_stays_the_same_from_start_to_start(tmp_path: Path) -> None:
    keys: list[str] = []
    for _ in range(2):
        serve(Settings(data_dir=tmp_path, port=0), lambda _url, key: keys.append(key))
    assert keys[0] == keys[1] == (tmp_path / "key").read_text().strip()


def test_taken_port_gives_way_to_the_next_free_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        url = serve(Settings(data_dir=tmp_path, port=port))
    assert url.startswith("http://127.0.0.1:")
    assert port < port_of(url) <= port + 99


def test_url_for_every_network_is_one_a_browser_here_can_open(tmp_path: Path) -> None:
    assert serve(Settings(data_dir=tmp_path, port=0, host="0.0.0.0")).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("host", ["192.0.2.1", "not a host"])
def test_host_that_is_not_this_machine_s_is_refused_by_name(tmp_path: Path, host: str) -> None:
    with pytest.raises(InvalidOption, match=host) as raised:
        serve(Settings(data_dir=tmp_path, port=0, host=host))
    assert raised.value.field == "host"


def test_second_server_on_a_data_folder_is_refused(tmp_path: Path) -> None:
    refusals: list[InvalidOption] = []

    def start_another(_url: str, _key: str) -> None:
        with pytest.raises(InvalidOption) as raised:
            asyncio.run(run_service(Settings(data_dir=tmp_path, port=0), lambda _url, _key: None))
        refusals.append(raised.value)

    serve(Settings(data_dir=tmp_path, port=0), start_another)
    assert refusals[0].field == "data_dir"
    assert str(tmp_path) in refusals[0].message


async def revoke_all(settings: Settings) -> None:
    async with opened_store(settings) as store:
        for key in await store.keys():
            assert await store.revoke_key(key.id, time.time())


def test_public_address_is_not_served_while_no_key_is_valid(tmp_path: Path) -> None:
    inside = Settings(data_dir=tmp_path, port=0)
    public = Settings(data_dir=tmp_path, port=0, host="0.0.0.0")
    # The first start makes a key.
    serve(public)
    asyncio.run(revoke_all(public))
    with pytest.raises(InvalidOption, match=r"0\.0\.0\.0.*enlarger keys create") as raised:
        serve(public)
    assert raised.value.field == "host"
    # Nobody but this machine is there to be kept out.
    assert serve(inside).startswith("http://127.0.0.1:")


def test_first_key_from_the_settings_works_and_is_not_announced(tmp_path: Path) -> None:
    secret = SecretStr("chosen-by-the-operator")
    answers: list[int] = []
    announced: list[str] = []

    def visit(url: str, key: str) -> None:
        announced.append(key)
        headers = {"Authorization": f"Bearer {secret.get_secret_value()}"}
        answers.append(httpx2.get(f"{url}/api/v3/balance", headers=headers, timeout=30).status_code)

    for _ in range(2):
        serve(Settings(data_dir=tmp_path, port=0, first_key=secret), visit)
    assert (answers, announced) == ([200, 200], ["", ""])
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize("role", [Role.API, Role.WORKER])
@pytest.mark.parametrize(("given", "missing"), [({}, "database_url"), ({"database_url": "x"}, "blob_url")])
def test_half_a_service_needs_what_both_halves_reach(
    tmp_path: Path, role: Role, given: dict[str, str], missing: str
) -> None:
    settings = Settings(data_dir=tmp_path, **given)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=f"enlarger {role.value}.*{missing.upper()}") as refused:
        asyncio.run(run_service(settings, lambda *_: None, role))
    assert refused.value.field == missing
