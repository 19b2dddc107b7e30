"""Addresses: which ones a URL given by a user may lead to. Pure; `guard.py` acts on it.

Python's `is_global` is not enough: it lets pass NAT64 and 6to4 forms of private addresses, multicast,
site-local ones and what clouds serve their metadata from.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REFUSED: dict[str, str] = {
    "0.0.0.0/8": "this host",
    "10.0.0.0/8": "private network",
    "100.64.0.0/10": "shared carrier network",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "cloud metadata",
    "169.254.0.0/16": "link-local or cloud metadata",
    "172.16.0.0/12": "private network",
    "192.0.0.0/24": "protocol assignment",
    "192.0.2.0/24": "documentation",
    "192.88.99.0/24": "6to4 relay",
    "192.168.0.0/16": "private network",
    "198.18.0.0/15": "benchmark network",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved or broadcast",
    "::/128": "this host",
    "::1/128": "loopback",
    "fc00::/7": "private network",
    "fe80::/10": "link-local",
    "fec0::/10": "site-local",
    "ff00::/8": "multicast",
    "2001::/23": "Teredo or protocol assignment",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "3fff::/20": "documentation",
}
"""Networks that are not public, and what they are: the IANA special-purpose registries and two clouds' own."""

_REFUSED: list[tuple[Network, str]] = [(ip_network(network), kind) for network, kind in REFUSED.items()]
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Both carry an IPv4 address in their last 32 bits and reach that very address.
_CARRIERS = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


def refusal(address: Address, allowed: Sequence[Network] = ()) -> str:
    """What kind of non-public address this is; empty when one may connect to it.

    allowed: networks to connect to all the same.
    """
    address = _carried(address)
    if any(address in network for network in allowed):
        return ""
    for network, kind in _REFUSED:
        if address in network:
            return kind
    # All that IANA has not given out as global unicast: discard-only, local NAT64, segment routing, unassigned.
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "special-purpose"
    return ""


def _carried(address: Address) -> Address:
    if isinstance(address, IPv6Address) and any(address in carrier for carrier in _CARRIERS):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
