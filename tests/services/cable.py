"""A network of its own for a process, whose cable can be pulled: a namespace and a pair of virtual devices.

Where this machine lets nobody make namespaces, proxies that swallow what they get stand in for the cable.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network, ip_network

from .proxy import Proxy

_NETWORKS = [IPv4Network(f"{start}/30") for start in ("203.0.113.0", "198.51.100.0", "198.18.0.0")]
"""Set aside for examples and measurements (RFC 5737, RFC 2544); one that this machine is not in is taken."""


class Cable:
    """Leads from the processes that are started with `before` to proxies on this side."""

    def __init__(self, device: str = "", host: str = "127.0.0.1", before: Sequence[str] = ()) -> None:
        self.before = before
        """Words before a command that put it at the far end; none where proxies stand in."""
        self.host = host
        self._device = device
        self._proxies: list[Proxy] = []

    def leads_to(self, port: int) -> str:
        """`host:port` at which the far end reaches this port of loopback."""
        proxy = Proxy(("127.0.0.1", port), self.host)
        self._proxies.append(proxy)
        return f"{self.host}:{proxy.port}"

    @contextmanager
    def pulled(self) -> Iterator[None]:
        """Nothing passes, and nobody is told; plugged in again at the exit."""
        with ExitStack() as stack:
            if self._device:
                _ip("link", "set", self._device, "down")
                stack.callback(_ip, "link", "set", self._device, "up")
            else:
                for proxy in self._proxies:
                    stack.enter_context(proxy.swallowing())
            yield

    def close(self) -> None:
        for proxy in self._proxies:
            proxy.close()


@contextmanager
def laid_cable() -> Iterator[Cable]:
    """A cable, taken away at the exit with everything at its far end."""
    name = f"enlarger-{os.getpid()}"
    with ExitStack() as stack:
        if _may_make_namespaces(name):
            stack.callback(_ip, "netns", "delete", name)
            cable = _laid(name, f"near{os.getpid()}", f"far{os.getpid()}")
        else:
            cable = Cable()
        stack.callback(cable.close)
        yield cable


def _laid(name: str, near: str, far: str) -> Cable:
    """Between devices of these names, the far one in the namespace; both go with that."""
    here, there = _free_network().hosts()
    _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
    _ip("address", "add", f"{here}/30", "dev", near)
    _ip("link", "set", near, "up")
    _ip("-netns", name, "address", "add", f"{there}/30", "dev", far)
    _ip("-netns", name, "link", "set", far, "up")
    _ip("-netns", name, "link", "set", "lo", "up")
    return Cable(near, str(here), ["ip", "netns", "exec", name])


def _free_network() -> IPv4Network:
    interfaces = json.loads(_ip("-json", "-4", "address", "show"))
    taken = [
        ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)
        for interface in interfaces
        for address in interface["addr_info"]
    ]
    return next(network for network in _NETWORKS if not any(map(network.overlaps, taken)))


def _may_make_namespaces(name: str) -> bool:
    if not shutil.which("ip"):
        return False
    return subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True).returncode == 0


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
