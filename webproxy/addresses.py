"""PURE: which addresses an origin connection may go to (against requests forged through us).

The origin that the operator named may be anywhere but at addresses that are no host's. Where a redirect leads, the
origin chose: another host there must have a public address, so that no origin can point us at this machine, the local
network or a cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> Address | None:
    """The IP address in `text`; a v4-mapped v6 address counts as the v4 one. None when it is none."""
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def may_connect(address: Address, *, named_by_operator: bool) -> bool:
    """Whether a connection to `address` is allowed, for a host the operator named or for one a redirect named."""
    if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        return False
    if named_by_operator:
        return True
    return address.is_global and not _tunnels_inwards(address)


def _tunnels_inwards(address: Address) -> bool:
    """True for v6 addresses that carry a v4 address which is not public (6to4, Teredo)."""
    if isinstance(address, ipaddress.IPv4Address):
        return False
    inner = [address.sixtofour, *(address.teredo or ())]
    return any(one is not None and not one.is_global for one in inner)


def same_host(url: str, other: str) -> bool:
    """Whether two URLs name the same host and port of the same scheme."""
    return _endpoint(url) == _endpoint(other)


def may_redirect(source: str, target: str) -> bool:
    """Whether a redirect stays in the http family and does not fall from https to http."""
    schemes = urlsplit(source).scheme.lower(), urlsplit(target).scheme.lower()
    return schemes[1] == "https" or schemes == ("http", "http")


def _endpoint(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    return parts.scheme.lower(), parts.hostname, port
