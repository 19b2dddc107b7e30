from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enlarger.jobs.addresses import Address, refusal

REFUSED = [
    *(
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.1.2.3",
    ),
    *(
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.0.170",
        "192.0.2.1",
    ),
    *(
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
    ),
    *("239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::8.8.8.8", "100::1", "64:ff9b:1::808:808", "5f00::1", "4000::1"),
    *("fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%1", "fec0::1", "ff02::1", "ff0e::1"),
    *(
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff::1",
    ),
    # An IPv4 address in IPv6 clothes: mapped, and through NAT64.
    *(
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
    ),
]
PUBLIC = [
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255"),
    *(
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "223.255.255.255",
    ),
    *("2000::1", "2001:200::1", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_address_that_is_not_public_is_refused(text: str) -> None:
    assert refusal(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_public_address_is_not_refused(text: str) -> None:
    assert refusal(ip_address(text)) == ""


@given(st.ip_addresses())
@example(IPv4Address("192.0.0.1"))
@example(IPv6Address("2001:db8::1"))
def test_whatever_python_knows_as_not_global_is_refused(address: Address) -> None:
    mapped = isinstance(address, IPv6Address) and address.ipv4_mapped
    if not mapped and not address.is_global:
        assert refusal(address)


@pytest.mark.parametrize("text", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203"])
def test_allowed_network_is_let_through_in_every_form(text: str) -> None:
    assert refusal(ip_address(text), [ip_network("10.1.0.0/16")]) == ""


@pytest.mark.parametrize("text", ["10.2.0.1", "::1", "::ffff:127.0.0.1"])
def test_allowing_one_network_allows_no_other(text: str) -> None:
    assert refusal(ip_address(text), [ip_network("10.1.0.0/16"), ip_network("fe80::/10")])
