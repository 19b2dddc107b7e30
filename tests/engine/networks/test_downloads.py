"""Downloads against a real server on loopback that breaks off, lies and refuses."""

from __future__ import annotations

import fcntl
import hashlib
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from enlarger.engine.networks.downloads import Download, Pace, download
from enlarger.errors import Cancelled, ModelUnavailable, WeightsCorrupt

from .conftest import Site, send, send_part

BODY = np.random.default_rng(1).bytes(300_000)
DEADLINE_SECONDS = 30
PACE = Pace(attempts=3, pause_seconds=0.0, silence_seconds=5.0)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "net.pth"


def fetch(target: Path, *urls: str, **options: object) -> None:
    wanted = Download(target=target, urls=urls, sha256=hashlib.sha256(BODY).hexdigest(), bytes=len(BODY))
    download(wanted, **({"pace": PACE} | options))  # type: ignore[arg-type]


def part_of(target: Path) -> Path:
    return target.with_name("net.pth.part")


def test_a_file_arrives_whole_and_leaves_no_part(site: Site, target: Path) -> None:
    site["/net.pth"] = [send(BODY)]
    seen: list[tuple[int, int]] = []
    fetch(target, f"{site.url}/net.pth", progress=lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    assert seen == sorted(seen)
    assert seen[-1] == (len(BODY), len(BODY))


def test_a_broken_transfer_continues_where_it_broke(site: Site, target: Path) -> None:
    site["/net.pth"] = [send_part(BODY, most=100_000), send_part(BODY, most=50_000), send_part(BODY)]
    fetch(target, f"{site.url}/net.pth")
    assert target.read_bytes() == BODY
    assert site.ranges == ["", "bytes=100000-", "bytes=150000-"]


def test_a_part_of_an_earlier_run_is_continued(site: Site, target: Path) -> None:
    site["/net.pth"] = [send_part(BODY, most=120_000)]
    with pytest.raises(ModelUnavailable, match="broke off"):
        fetch(target, f"{site.url}/net.pth", pace=Pace(attempts=1))
    assert part_of(target).read_bytes() == BODY[:120_000]
    site["/net.pth"] = [send_part(BODY)]
    fetch(target, f"{site.url}/net.pth")
    assert site.ranges[-1] == "bytes=120000-"
    assert target.read_bytes() == BODY


def test_a_server_that_ignores_range_is_read_from_the_start(site: Site, target: Path) -> None:
    site["/net.pth"] = [send(BODY[:100_000], length=len(BODY)), send(BODY)]
    fetch(target, f"{site.url}/net.pth")
    assert target.read_bytes() == BODY


def test_a_part_of_something_else_is_found_out_and_fetched_again(site: Site, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(bytes(1000))
    site["/net.pth"] = [send_part(BODY)]
    fetch(target, f"{site.url}/net.pth")
    assert site.ranges == ["bytes=1000-", ""]
    assert target.read_bytes() == BODY


def test_wrong_bytes_are_fetched_again_once_only(site: Site, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(bytes(1000))
    site["/net.pth"] = [send_part(bytes(len(BODY)))]
    with pytest.raises(WeightsCorrupt, match="other bytes than expected"):
        fetch(target, f"{site.url}/net.pth")
    assert site.ranges == ["bytes=1000-", ""]


@pytest.mark.parametrize("left", [BODY, BODY + b"more"])
def test_a_part_as_long_as_the_file_or_longer_ends_well(site: Site, target: Path, left: bytes) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(left)
    site["/net.pth"] = [send_part(BODY)]
    fetch(target, f"{site.url}/net.pth")
    assert target.read_bytes() == BODY
    assert site.ranges == ([] if left == BODY else [""])


@pytest.mark.parametrize(
    "answer",
    [
        send(b"", status=416),
        send(BODY[:9], status=206, headers=(("Content-Range", f"bytes 0-8/{len(BODY)}"),)),
        send(BODY[:9], status=206),
        send(b"busy", status=503),
        send(b"slow down", status=429),
    ],
    ids=["416", "other part", "unnamed part", "503", "429"],
)
def test_a_passing_trouble_is_tried_again(site: Site, target: Path, answer: object) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(BODY[:1000])
    site["/net.pth"] = [answer, send_part(BODY)]  # type: ignore[list-item]
    fetch(target, f"{site.url}/net.pth")
    assert target.read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (send(b"gone", status=404), ModelUnavailable, "HTTP 404 Not Found"),
        (send(b"no", status=403), ModelUnavailable, "HTTP 403 Forbidden"),
        (send(b"busy", status=503), ModelUnavailable, "HTTP 503 Service Unavailable, 3 times"),
        (send(b"<html>Log in", kind="text/html; charset=utf-8"), ModelUnavailable, "web page"),
        (send(BODY[:-1]), WeightsCorrupt, f"has a file of {len(BODY) - 1} bytes, not of {len(BODY)}"),
        (send(BODY + b"x"), WeightsCorrupt, f"has a file of {len(BODY) + 1} bytes"),
        (send(BODY[:-1] + b"x"), WeightsCorrupt, "other bytes than expected"),
        (send(BODY[:1000], length=len(BODY)), ModelUnavailable, "broke off.*, 3 times"),
    ],
    ids=["404", "403", "503", "page", "short", "long", "wrong", "cut"],
)
def test_a_failure_is_told_with_the_way_to_do_it_by_hand(
    site: Site, target: Path, answer: object, error: type[ModelUnavailable], told: str
) -> None:
    site["/net.pth"] = [answer]  # type: ignore[list-item]
    with pytest.raises(ModelUnavailable, match=told) as raised:
        fetch(target, f"{site.url}/net.pth")
    assert type(raised.value) is error
    assert f"{site.url}/net.pth" in raised.value.message
    assert f"put it at {target}" in raised.value.message
    assert hashlib.sha256(BODY).hexdigest() in raised.value.message
    assert not target.exists()


def test_an_endless_answer_without_a_length_is_stopped(site: Site, target: Path) -> None:
    def endless(request: object) -> None:
        handler = request  # a BaseHTTPRequestHandler
        handler.send_response(200)  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        try:
            while True:
                handler.wfile.write(bytes(65536))  # type: ignore[attr-defined]
        except OSError:
            return

    site["/net.pth"] = [endless]
    with pytest.raises(WeightsCorrupt, match="sent more than 300000 bytes"):
        fetch(target, f"{site.url}/net.pth")
    assert part_of(target).stat().st_size == 0


def test_mirrors_are_asked_in_order_and_the_next_continues_what_one_began(site: Site, target: Path) -> None:
    site["/mirror/net.pth"] = [send_part(BODY, most=100_000), send(b"", status=404)]
    site["/official/net.pth"] = [send_part(BODY)]
    fetch(target, f"{site.url}/none/net.pth", f"{site.url}/mirror/net.pth", f"{site.url}/official/net.pth")
    assert target.read_bytes() == BODY
    assert site.ranges == ["", "", "bytes=100000-", "bytes=100000-"]


def test_a_mirror_with_wrong_bytes_does_not_spoil_the_next(site: Site, target: Path) -> None:
    site["/mirror/net.pth"] = [send(bytes(len(BODY)))]
    site["/official/net.pth"] = [send(BODY)]
    fetch(target, f"{site.url}/mirror/net.pth", f"{site.url}/official/net.pth")
    assert target.read_bytes() == BODY


def test_redirects_are_followed_but_not_for_ever(site: Site, target: Path) -> None:
    site["/moved"] = [send(b"", status=302, headers=(("Location", "/net.pth"),))]
    site["/round"] = [send(b"", status=302, headers=(("Location", "/round"),))]
    site["/net.pth"] = [send(BODY)]
    fetch(target, f"{site.url}/round", f"{site.url}/moved")
    assert target.read_bytes() == BODY
    assert len(site.ranges) < 12


def test_an_address_where_nobody_listens_or_that_is_none_is_told(target: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(
            ModelUnavailable, match=f"{port}/net.pth broke off.*ftp://host/net.pth cannot be asked"
        ):
            fetch(target, f"http://127.0.0.1:{port}/net.pth", "ftp://host/net.pth")


def test_offline_nothing_is_asked(site: Site, target: Path) -> None:
    site["/net.pth"] = [send(BODY)]
    with pytest.raises(ModelUnavailable, match="offline; by hand: fetch it from"):
        fetch(target, f"{site.url}/net.pth", is_offline=True)
    assert site.ranges == []
    assert not target.parent.exists()


def test_two_processes_do_not_download_the_same_file_at_once(site: Site, target: Path) -> None:
    def nested(request: object) -> None:
        with pytest.raises(ModelUnavailable, match="another process"):
            fetch(target, f"{site.url}/other")
        send(BODY)(request)  # type: ignore[arg-type]

    site["/net.pth"] = [nested]
    fetch(target, f"{site.url}/net.pth")
    assert target.read_bytes() == BODY


def test_who_can_be_stopped_waits_for_the_other_process_and_downloads_nothing(
    site: Site, target: Path
) -> None:
    waiter = threading.Thread(
        target=fetch, args=(target, f"{site.url}/other"), kwargs={"stopped": threading.Event()}
    )

    def begun(request: object) -> None:
        waiter.start()
        send(BODY)(request)  # type: ignore[arg-type]

    site["/net.pth"] = [begun]
    fetch(target, f"{site.url}/net.pth")
    waiter.join(DEADLINE_SECONDS)
    assert not waiter.is_alive()
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]
    assert len(site.ranges) == 1


@pytest.mark.parametrize("where", ["another process has it", "between attempts", "while bytes come"])
def test_a_stopped_download_ends_and_keeps_what_came(site: Site, target: Path, where: str) -> None:
    stopped = threading.Event()
    target.parent.mkdir()
    with part_of(target).open("ab") as held:
        if where == "another process has it":
            fcntl.flock(held, fcntl.LOCK_EX)
            stopped.set()
        site["/net.pth"] = [send_part(BODY, most=100_000)]
        seen: list[int] = []

        def progress(done: int, _total: int) -> None:
            seen.append(done)
            if where == "while bytes come" or done == 100_000:
                stopped.set()

        with pytest.raises(Cancelled):
            fetch(target, f"{site.url}/net.pth", stopped=stopped, progress=progress)
    assert part_of(target).read_bytes() == BODY[: seen[-1] if seen else 0]
    assert not target.exists()


def test_a_folder_that_cannot_be_written_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelUnavailable, match=r"cannot write .*net\.pth"):
        fetch(tmp_path / "file" / "net.pth", f"{site.url}/net.pth")
