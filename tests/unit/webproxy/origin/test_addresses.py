"""addresses: where may a connection go that the operator named, and where one that an origin named?"""

from __future__ import annotations

import pytest

from webproxy.origin.addresses import may_connect, may_redirect, parse_address, same_host

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",  # NAT64 of a public one
]
INWARDS = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",  # shared by carriers
    "169.254.169.254",  # metadata services
    "192.0.2.1",
    "198.18.0.1",
    "240.0.0.1",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",  # site-local, deprecated, still routed inside some networks
    "2001:db8::1",
    "::127.0.0.1",  # v4-compatible
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",  # NAT64 of a local network
    "64:ff9b::c000:8",  # NAT64 of 192.0.0.8
    "192.0.0.8",
    "3fff::1",
    "2002:0808:0808::1",  # 6to4 is no longer routed, RFC 7526
    "2002:7f00:0001::1",
    "2002:a9fe:a9fe::1",
    "2002:0a00:0001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    "2001:0:0808:0808:0:0:80ff:fffe",  # Teredo to 127.0.0.1
]
NOBODYS = ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "239.255.255.250", "ff02::1", "255.255.255.255"]


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_always_allowed(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert may_connect(address, named_by_operator=False)
    assert may_connect(address, named_by_operator=True)


@pytest.mark.parametrize("text", INWARDS)
def test_only_the_operator_may_name_an_address_that_leads_inwards(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not may_connect(address, named_by_operator=False)
    assert may_connect(address, named_by_operator=True)


@pytest.mark.parametrize("text", NOBODYS)
def test_an_address_that_is_no_hosts_is_never_allowed(text: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert not may_connect(address, named_by_operator=False)
    assert not may_connect(address, named_by_operator=True)


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3", "1.2.3.4.5", "0x7f.1", "127.1", "::g"])
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://h/a", "http://h:80/b", True),
        ("https://h/a", "https://H:443/b", True),
        ("http://h/", "http://h:81/", False),
        ("http://h/", "https://h/", False),
        ("http://h/", "http://h./", False),
        ("http://h/", "http://x.h/", False),
        ("http://127.0.0.1/", "http://127.1/", False),
        ("http://[::1]:8/", "http://[::1]:8/x", True),
    ],
)
def test_same_host(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("http://h/a", "http://h/b", True),
        ("http://h/a", "https://h/b", True),
        ("https://h/a", "https://other/b?q#f", True),
        ("http://h/a", "HTTP://h/b", True),
        ("http://h/a", "http://[2606:4700::1]/b", True),
        ("https://h/a", "http://h/a", False),
        ("http://h/a", "file:///etc/passwd", False),
        ("http://h/a", "gopher://h/", False),
        ("http://h/a", "ftp://h/", False),
        ("http://h/a", "//h/b", False),
        ("http://h/a", "http:///b", False),
        ("http://h/a", "http://h@10.0.0.1/", False),
        ("http://h/a", "http://10.0.0.1\\@h/", False),
        ("http://h/a", "http://h\\.evil/", False),
        ("http://h/a", "http://h /b", False),
        ("http://h/a", "http://h/\r\nX: y", False),
        ("http://h/a", "http://h\u00e9/", False),
        ("http://h/a", "http://h:0/", False),
        ("http://h/a", "http://h:99999/", False),
        ("http://h/a", "http://h:port/", False),
        ("http://h/a", "http://[::1/", False),
        ("http://h/a", "", False),
    ],
)
def test_may_redirect(source: str, target: str, allowed: bool) -> None:
    assert may_redirect(source, target) is allowed
