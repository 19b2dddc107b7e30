"""Every way to write an address that is not public, and a name server that lies: nobody is ever connected to.

What counts is not the error but the listener, which sees every connection to its port of this machine. A control
shows that the same forms do reach it once its network is allowed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from enlarger.errors import AddressRefused, PictureTooLarge, SourceUnreachable
from enlarger.jobs import guard
from enlarger.jobs.addresses import Address
from enlarger.jobs.guard import Limits

from .conftest import PictureServer

pytestmark = pytest.mark.anyio

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
OURS = (ip_network("127.0.0.2/32"),)
"""Stands for the public internet in tests that need an address one may go to."""

REACHING_THIS_MACHINE = [
    *("127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "0x7f.0.0.1", "0x7f.1", "0x7F000001"),
    *("2130706433", "017700000001", "localhost", "LocalHost"),
    *("[::ffff:127.0.0.1]", "[::FFFF:7f00:1]", "[0:0:0:0:0:ffff:7f00:0001]"),
]
"""Hosts that a socket of this machine would connect to loopback."""

NOT_EVEN_A_HOST = ["0177.0.0.1", "00000177.0.0.1", "127.0.0.1.", "localhost."]
"""Of the same kind, but the reader of URLs or the resolver of some machine knows them for no host."""

ELSEWHERE = [
    # this host, private, carrier, link-local and cloud metadata, multicast, broadcast, documentation, protocols
    *("0", "0.0.0.0", "10.0.0.1", "10.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "3232235521"),
    *("100.64.0.1", "169.254.169.254", "2852039166", "0xa9fea9fe", "168.63.129.16", "224.0.0.1"),
    *("255.255.255.255", "240.0.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("192.88.99.1",),
    # the same in IPv6, and IPv4 inside IPv6: mapped, compatible, NAT64, 6to4, Teredo, translated
    *(
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:0:127.0.0.1]",
    ),
    *("[64:ff9b::127.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]"),
    *("[2002:a9fe:a9fe::1]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]", "[fe80::1]", "[fec0::1]", "[fc00::1]"),
    *("[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]", "[5f00::1]"),
]

TRICKS = [
    "http://public.test@127.0.0.1:{port}/",
    "http://public.test:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}#@public.test/",
    "http://127.0.0.1:{port}?@public.test/",
    "http://127.0.0.1:{port}\\@public.test/",
    "http:\\\\127.0.0.1:{port}\\",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "http://127%2e0%2e0%2e1:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127。0。0。1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://１２７.0.0.1:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://127.0.0.1%00.public.test:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1\r\nHost: public.test:{port}/",
    " http://127.0.0.1:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "gopher://127.0.0.1:{port}/",
    "file://127.0.0.1:{port}/etc/passwd",
]


class Listener:
    """Counts the connections to one port of this machine, whatever address they are made to."""

    def __init__(self) -> None:
        self.connections = 0
        self._sockets = [socket.create_server(("0.0.0.0", 0))]
        self.port = self._sockets[0].getsockname()[1]
        if socket.has_dualstack_ipv6():
            self._sockets.append(socket.create_server(("::", self.port), family=socket.AF_INET6))
        self._threads = [threading.Thread(target=self._accept, args=(each,)) for each in self._sockets]
        for thread in self._threads:
            thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            self.connections += 1
            peer.close()

    def close(self) -> None:
        for listening, thread in zip(self._sockets, self._threads, strict=True):
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
            listening.close()


@pytest.fixture
def listener() -> Generator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def limits(listener: Listener) -> Limits:
    """Of a server on default settings, but for the port."""
    return Limits(max_bytes=1000, total_seconds=5, connect_seconds=2, allow_ports=(listener.port,))


async def fetched(url: str, limits: Limits, folder: Path, resolver: guard.Resolver) -> None:
    await guard.fetch(url, folder / "x", limits, resolver)


async def posted(url: str, limits: Limits, _folder: Path, resolver: guard.Resolver) -> None:
    await guard.post(url, b"{}", {}, limits, resolver)


WAYS_OUT = [fetched, posted]
Way = Callable[[str, Limits, Path, guard.Resolver], Awaitable[None]]


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("host", REACHING_THIS_MACHINE + NOT_EVEN_A_HOST + ELSEWHERE)
async def test_no_form_of_an_address_that_is_not_public_is_connected_to(
    listener: Listener, limits: Limits, tmp_path: Path, host: str, way: Way
) -> None:
    with pytest.raises(SourceUnreachable):
        await way(f"http://{host}:{listener.port}/", limits, tmp_path, guard.system_resolver)
    assert listener.connections == 0


@pytest.mark.parametrize("host", REACHING_THIS_MACHINE)
async def test_control_these_forms_do_reach_the_listener_when_they_may(
    listener: Listener, limits: Limits, tmp_path: Path, host: str
) -> None:
    allowed = replace(limits, allow_private_networks=LOOPBACK)
    with pytest.raises(SourceUnreachable, match="breaks off"):
        await fetched(f"http://{host}:{listener.port}/", allowed, tmp_path, guard.system_resolver)
    assert listener.connections > 0


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("trick", TRICKS)
async def test_no_trick_with_the_url_leads_to_this_machine(
    listener: Listener, limits: Limits, tmp_path: Path, trick: str, way: Way
) -> None:
    with pytest.raises(SourceUnreachable):
        await way(trick.format(port=listener.port), limits, tmp_path, guard.system_resolver)
    assert listener.connections == 0


# A name server that lies


class NameServer:
    """A DNS server on a UDP port of loopback: `answers[name]` is what it says, the last for ever; [] is silence."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            name, end = _name_in(query)
            self.asked.append(name)
            said = self.answers[name]
            addresses = said.pop(0) if len(said) > 1 else said[0]
            if addresses:
                self._socket.sendto(_answer(query, end, addresses), client)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.address)
        self._thread.join()
        self._socket.close()

    async def resolve(self, host: str, _port: int) -> list[Address]:
        """Ask this server, as a resolver of the guard; IPv4 and IPv6 come in one answer."""
        loop = asyncio.get_running_loop()
        labels = b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))
        query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 255, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            await loop.sock_sendto(asking, query, self.address)
            answer = await loop.sock_recv(asking, 512)
        found, at = list[Address](), len(query)
        for _ in range(struct.unpack_from("!H", answer, 6)[0]):
            (length,) = struct.unpack_from("!H", answer, at + 10)
            found.append(ip_address(answer[at + 12 : at + 12 + length]))
            at += 12 + length
        return found


def _name_in(query: bytes) -> tuple[str, int]:
    labels, at = list[str](), 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels), at + 5


def _answer(query: bytes, end: int, addresses: list[str]) -> bytes:
    head = query[:2] + struct.pack("!5H", 0x8180, 1, len(addresses), 0, 0)
    records = b""
    for address in map(ip_address, addresses):
        kind = 1 if address.version == 4 else 28
        records += struct.pack("!3HIH", 0xC00C, kind, 1, 0, len(address.packed)) + address.packed
    return head + query[12:end] + records


@pytest.fixture
def names() -> Generator[NameServer]:
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
def outside() -> Generator[PictureServer]:
    """A server at 127.0.0.2, on a port at which 127.0.0.1 has the listener of `inside`."""
    server = PictureServer("127.0.0.2")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def inside(outside: PictureServer) -> Generator[list[object]]:
    """The connections made to 127.0.0.1 at the port of `outside`."""
    connections: list[object] = []
    with socket.create_server(("127.0.0.1", outside.port)) as listening:

        def accept() -> None:
            while True:
                try:
                    peer, address = listening.accept()
                except OSError:
                    return
                connections.append(address)
                peer.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield connections
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def two_limits(outside: PictureServer) -> Limits:
    return Limits(
        max_bytes=1000,
        total_seconds=5,
        connect_seconds=2,
        allow_ports=(outside.port,),
        allow_private_networks=OURS,
    )


async def test_answer_that_flips_after_the_check_is_never_asked_for(
    names: NameServer, outside: PictureServer, inside: list[object], two_limits: Limits, tmp_path: Path
) -> None:
    names.answers["flips.test"] = [["127.0.0.2"], ["127.0.0.1"]]
    outside.answer("/", b"picture")
    await fetched(outside.url("/", "flips.test"), two_limits, tmp_path, names.resolve)
    assert (tmp_path / "x").read_bytes() == b"picture"
    assert names.asked == ["flips.test"]
    assert (outside.connections, inside) == (1, [])


async def test_answer_that_flips_between_two_redirects_is_refused(
    names: NameServer, outside: PictureServer, inside: list[object], two_limits: Limits, tmp_path: Path
) -> None:
    names.answers["flips.test"] = [["127.0.0.2"], ["127.0.0.1"]]
    outside.answer("/", b"", "302 Found", "Location: /again")
    with pytest.raises(AddressRefused):
        await fetched(outside.url("/", "flips.test"), two_limits, tmp_path, names.resolve)
    assert (outside.connections, inside) == (1, [])


@pytest.mark.parametrize("host", REACHING_THIS_MACHINE + NOT_EVEN_A_HOST + ELSEWHERE)
async def test_no_redirect_leads_to_an_address_that_is_not_public(
    listener: Listener, limits: Limits, tmp_path: Path, outside: PictureServer, host: str
) -> None:
    outside.answer("/", b"", "302 Found", f"Location: http://{host}:{listener.port}/")
    both = replace(limits, allow_ports=(listener.port, outside.port), allow_private_networks=OURS)

    async def resolver(name: str, port: int) -> list[Address]:
        if name == "outside.test":
            return [IPv4Address("127.0.0.2")]
        return await guard.system_resolver(name, port)

    with pytest.raises(SourceUnreachable):
        await fetched(f"http://outside.test:{outside.port}/", both, tmp_path, resolver)
    assert (outside.connections, listener.connections) == (1, 0)


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize(
    "answer",
    [
        *(["127.0.0.1"], ["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "::1"]),
        *(["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["127.0.0.2", "169.254.169.254"]),
    ],
    ids=",".join,
)
async def test_one_bad_answer_among_good_ones_condemns_the_name(
    names: NameServer,
    outside: PictureServer,
    inside: list[object],
    two_limits: Limits,
    tmp_path: Path,
    way: Way,
    answer: list[str],
) -> None:
    names.answers["mixed.test"] = [answer]
    with pytest.raises(AddressRefused):
        await way(outside.url("/", "mixed.test"), two_limits, tmp_path, names.resolve)
    assert (outside.connections, inside) == (0, [])


@pytest.mark.parametrize("way", WAYS_OUT)
async def test_name_server_that_never_answers_meets_the_deadline(
    names: NameServer,
    outside: PictureServer,
    inside: list[object],
    two_limits: Limits,
    tmp_path: Path,
    way: Way,
) -> None:
    names.answers["silent.test"] = [[]]
    with pytest.raises(SourceUnreachable, match="fetch_seconds"):
        await way(
            outside.url("/", "silent.test"), replace(two_limits, total_seconds=0.2), tmp_path, names.resolve
        )
    assert names.asked == ["silent.test"]
    assert (outside.connections, inside) == (0, [])


async def test_endless_answer_ends_at_the_cap_and_that_to_a_post_is_not_read(
    outside: PictureServer, two_limits: Limits, tmp_path: Path
) -> None:
    sent: list[int] = []

    def endless(out: BinaryIO) -> None:
        out.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not outside.closing.is_set():
            sent.append(out.write(b"x" * 65536) or 65536)

    outside.routes["/"] = endless

    async def resolver(_host: str, _port: int) -> list[Any]:
        return [IPv4Address("127.0.0.2")]

    with pytest.raises(PictureTooLarge):
        await fetched(outside.url("/", "big.test"), two_limits, tmp_path, resolver)
    assert (tmp_path / "x").stat().st_size <= two_limits.max_bytes
    answer = await guard.post(outside.url("/", "big.test"), b"{}", {}, two_limits, resolver)
    assert answer.status == 200
