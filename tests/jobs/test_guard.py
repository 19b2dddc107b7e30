from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, BinaryIO

import httpx2
import pytest

from enlarger.errors import AddressRefused, PictureTooLarge, SourceUnreachable
from enlarger.jobs.guard import Limits, Resolver, checked_url, fetch, redirected

pytestmark = pytest.mark.anyio

RERUN_WORDS = ("http 5", "429", "timeout", "connection")
"""Vendor clients run a failed job again when its error contains one of these."""


@pytest.fixture
def limits(pictures: Any) -> Limits:
    loopback = ip_network("127.0.0.1/32")
    return Limits(
        max_bytes=1000, total_seconds=20, allow_private_networks=(loopback,), allow_ports=(pictures.port,)
    )


def resolving_to(*texts: str) -> Resolver:
    async def resolver(_host: str, _port: int) -> list[Any]:
        return [ip_address(text) for text in texts]

    return resolver


async def test_picture_is_saved_whole(pictures: Any, limits: Limits, tmp_path: Path) -> None:
    pictures.answer("/cat.png", bytes(range(256)) * 3)
    assert await fetch(pictures.url("/cat.png"), tmp_path / "cat", limits) == 768
    assert (tmp_path / "cat").read_bytes() == bytes(range(256)) * 3


async def test_request_names_the_host_and_asks_for_plain_bytes(
    pictures: Any, limits: Limits, tmp_path: Path
) -> None:
    pictures.answer("/a?b=%20c", b"x")
    await fetch(pictures.url("/a?b=%20c", "pictures.test"), tmp_path / "x", limits, resolving_to("127.0.0.1"))
    lines = pictures.requests[0].split("\r\n")
    assert lines[0] == "GET /a?b=%20c HTTP/1.1"
    assert {f"Host: pictures.test:{pictures.port}", "Accept-Encoding: identity"} <= set(lines)


@pytest.mark.parametrize(
    ("host", "error"),
    [
        *((host, AddressRefused) for host in ("127.0.0.1", "localhost", "2130706433", "127.1", "0.0.0.0")),
        # Refused by the URL parser, or on a machine without IPv6 by the resolver, earlier still.
        *((host, SourceUnreachable) for host in ("0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]")),
    ],
)
async def test_loopback_is_refused_before_any_connect_however_it_is_written(
    pictures: Any, limits: Limits, tmp_path: Path, host: str, error: type[SourceUnreachable]
) -> None:
    pictures.answer("/", b"secret")
    with pytest.raises(error):
        await fetch(pictures.url("/", host), tmp_path / "x", replace(limits, allow_private_networks=()))
    assert pictures.connections == 0


async def test_one_private_answer_among_public_ones_condemns_the_name(
    pictures: Any, limits: Limits, tmp_path: Path
) -> None:
    pictures.answer("/", b"x")
    resolver = resolving_to("127.0.0.1", "93.184.216.34", "10.0.0.1")
    with pytest.raises(
        AddressRefused, match=r"rebind\.test.*private network.*ENLARGER_ALLOW_PRIVATE_NETWORKS"
    ):
        await fetch(pictures.url("/", "rebind.test"), tmp_path / "x", limits, resolver)
    assert pictures.connections == 0


async def test_name_is_resolved_once_so_a_second_answer_changes_nothing(
    pictures: Any, limits: Limits, tmp_path: Path
) -> None:
    pictures.answer("/", b"x")
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def flipping(host: str, port: int) -> list[Any]:
        return await resolving_to(*next(answers))(host, port)

    assert await fetch(pictures.url("/", "flip.test"), tmp_path / "x", limits, flipping) == 1
    assert list(answers) == [["10.0.0.1"]]


async def test_next_address_is_tried_when_the_first_does_not_listen(
    pictures: Any, limits: Limits, tmp_path: Path
) -> None:
    pictures.answer("/", b"x")
    both = replace(limits, allow_private_networks=(ip_network("127.0.0.0/8"),))
    resolver = resolving_to("127.0.0.9", "127.0.0.1")
    assert await fetch(pictures.url("/", "two.test"), tmp_path / "x", both, resolver) == 1


async def test_redirect_is_followed(pictures: Any, limits: Limits, tmp_path: Path) -> None:
    pictures.answer("/old", b"", "302 Found", "Location: /new")
    pictures.answer("/new", b"here")
    assert await fetch(pictures.url("/old"), tmp_path / "x", limits) == 4


async def test_redirect_to_a_refused_address_is_not_connected_to(
    pictures: Any, limits: Limits, tmp_path: Path
) -> None:
    answers = {"outside.test": "127.0.0.1", "inside.test": "169.254.169.254"}

    async def resolver(host: str, port: int) -> list[Any]:
        return await resolving_to(answers[host])(host, port)

    pictures.answer("/", b"", "302 Found", f"Location: {pictures.url('/', 'inside.test')}")
    with pytest.raises(AddressRefused, match=r"inside\.test"):
        await fetch(pictures.url("/", "outside.test"), tmp_path / "x", limits, resolver)
    assert pictures.connections == 1


async def test_fourth_redirect_is_one_too_many(pictures: Any, limits: Limits, tmp_path: Path) -> None:
    for n in range(4):
        pictures.answer(f"/{n}", b"", "302 Found", f"Location: /{n + 1}")
    pictures.answer("/4", b"x")
    assert await fetch(pictures.url("/1"), tmp_path / "x", limits) == 1
    with pytest.raises(SourceUnreachable, match="more than 3 times"):
        await fetch(pictures.url("/0"), tmp_path / "x", limits)


async def test_announced_size_above_the_cap_is_refused_unread(
    pictures: Any, limits: Limits, tmp_path: Path
) -> None:
    pictures.answer("/", b"x" * 1001)
    with pytest.raises(PictureTooLarge, match=r"max_input_bytes \(1000 bytes\)"):
        await fetch(pictures.url("/"), tmp_path / "x", limits)
    assert not (tmp_path / "x").exists()


async def test_body_of_exactly_the_cap_is_accepted(pictures: Any, limits: Limits, tmp_path: Path) -> None:
    pictures.answer("/", b"x" * 1000)
    assert await fetch(pictures.url("/"), tmp_path / "x", limits) == 1000


async def test_endless_body_is_cut_at_the_cap(pictures: Any, limits: Limits, tmp_path: Path) -> None:
    def endless(out: BinaryIO) -> None:
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not pictures.closing.is_set():
            out.write(b"x" * 700)

    pictures.routes["/"] = endless
    with pytest.raises(PictureTooLarge):
        await fetch(pictures.url("/"), tmp_path / "x", limits)
    assert (tmp_path / "x").stat().st_size <= 1000


async def test_dripping_server_meets_the_total_deadline(
    pictures: Any, limits: Limits, tmp_path: Path
) -> None:
    def drip(out: BinaryIO) -> None:
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not pictures.closing.wait(0.01):
            out.write(b"x")

    pictures.routes["/"] = drip
    with pytest.raises(SourceUnreachable, match=r"fetch_seconds \(0\.2 s\)"):
        await fetch(pictures.url("/"), tmp_path / "x", replace(limits, total_seconds=0.2, max_bytes=10**6))


async def test_silent_server_meets_the_read_deadline(pictures: Any, limits: Limits, tmp_path: Path) -> None:
    pictures.routes["/"] = lambda _: pictures.closing.wait() and None
    with pytest.raises(SourceUnreachable, match="does not answer in time"):
        await fetch(pictures.url("/"), tmp_path / "x", replace(limits, read_seconds=0.1))


async def test_slow_name_server_meets_the_total_deadline(limits: Limits, tmp_path: Path) -> None:
    async def never(_host: str, _port: int) -> list[Any]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(SourceUnreachable, match="fetch_seconds"):
        await fetch("http://slow.test/", tmp_path / "x", replace(limits, total_seconds=0.1), never)


async def test_unknown_name_is_unreachable(limits: Limits, tmp_path: Path) -> None:
    async def unknown(_host: str, _port: int) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    with pytest.raises(SourceUnreachable, match=r"nowhere\.test"):
        await fetch("http://nowhere.test/", tmp_path / "x", limits, unknown)


async def test_tls_is_spoken_to_the_name_and_the_socket_goes_to_the_judged_address(
    limits: Limits, tmp_path: Path
) -> None:
    hello: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            peer, _ = listener.accept()
            with peer:
                hello.append(peer.recv(4096))

        thread = threading.Thread(target=listen)
        thread.start()
        port = listener.getsockname()[1]
        with pytest.raises(SourceUnreachable, match="cannot be reached"):
            await fetch(
                f"https://secure.test:{port}/",
                tmp_path / "x",
                replace(limits, allow_ports=(port,)),
                resolving_to("127.0.0.1"),
            )
        thread.join()
    assert hello[0][0] == 0x16  # a TLS handshake record
    assert b"secure.test" in hello[0]  # the server name it asks for


def _body_of(length: bytes) -> Callable[[BinaryIO], None]:
    return lambda out: out.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\nabc") and None


FAILURES: dict[str, Callable[[Any], None]] = {
    "missing": lambda server: server.answer("/", b"", "404 Not Found"),
    "busy": lambda server: server.answer("/", b"", "429 Too Many Requests"),
    "broken": lambda server: server.answer("/", b"", "500 Internal Server Error"),
    "gateway": lambda server: server.answer("/", b"", "504 Gateway Timeout"),
    "part": lambda server: server.answer("/", b"x", "206 Partial Content"),
    "compressed": lambda server: server.answer("/", b"x", "200 OK", "Content-Encoding: gzip"),
    "nowhere": lambda server: server.answer("/", b"", "302 Found"),
    "other scheme": lambda server: server.answer("/", b"", "302 Found", "Location: file:///etc/passwd"),
    "bad location": lambda server: server.answer("/", b"", "302 Found", "Location: http://[::"),
    "not HTTP": lambda server: server.routes.update(
        {"/": lambda out: out.write(b"220 mail\r\n\r\n") and None}
    ),
    "cut short": lambda server: server.routes.update({"/": _body_of(b"100")}),
    "bad length": lambda server: server.routes.update({"/": _body_of(b"9" * 5000)}),
    "closed": lambda server: server.routes.update({"/": lambda _: None}),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_useless_answer_is_unreachable_in_words_that_start_no_rerun(
    pictures: Any, limits: Limits, tmp_path: Path, failure: str
) -> None:
    FAILURES[failure](pictures)
    with pytest.raises(SourceUnreachable) as caught:
        await fetch(pictures.url("/"), tmp_path / "x", limits)
    assert not [word for word in RERUN_WORDS if word in caught.value.message.lower()]


async def test_closed_port_is_unreachable(limits: Limits, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        await fetch(f"http://127.0.0.1:{port}/", tmp_path / "x", replace(limits, allow_ports=(port,)))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://a.test/x", "http:// or https://"),
        ("http:///x", "name a host"),
        ("http://user:word@a.test/x", "user name or password"),
        ("http://user@a.test/x", "user name or password"),
        ("http://a.test:8080/x", "ENLARGER_ALLOW_PORTS"),
        ("https://a.test:0/x", "port 0"),
        ("http://a.test:22/x", "port 22"),
    ],
)
def test_url_of_a_form_that_is_not_followed_is_refused(url: str, said: str) -> None:
    with pytest.raises(AddressRefused, match=said):
        checked_url(url, Limits(max_bytes=1, total_seconds=1))


@pytest.mark.parametrize("url", ["http://[::", "http://a.test:port/", "http://a.test:99999/x"])
def test_url_that_cannot_be_read_is_unreachable(url: str) -> None:
    with pytest.raises(SourceUnreachable):
        checked_url(url, Limits(max_bytes=1, total_seconds=1))


@pytest.mark.parametrize(
    "url", ["http://a.test/x", "https://a.test:443/", "http://a.test:80", "https://[2606::1]/"]
)
def test_ordinary_url_is_followed(url: str) -> None:
    assert checked_url(url, Limits(max_bytes=1, total_seconds=1)) == httpx2.URL(url)


def test_redirect_may_lead_to_https_but_not_back() -> None:
    limits = Limits(max_bytes=1, total_seconds=1)
    assert redirected(httpx2.URL("http://a.test/x"), "https://b.test/y", limits) == httpx2.URL(
        "https://b.test/y"
    )
    with pytest.raises(AddressRefused, match="from https to http"):
        redirected(httpx2.URL("https://a.test/x"), "http://b.test/y", limits)
