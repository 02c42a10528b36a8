"""PURE: permitted addresses of origin connections (against server-side request forgery).

The origin named by the operator may be anywhere except at addresses that belong to no host. A redirect's target is
chosen by the origin: another host there must have a public address, so that no origin can direct the proxy to this
machine, the local network or a cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "64:ff9b:1::/48", "2001::/23", "2002::/16", "3fff::/20", "5f00::/16")
)
"""Special-purpose addresses (RFC 6890) that `is_global` takes for public in one of the supported versions of Python."""
_before_path = re.compile(r"[A-Za-z]+://[^/?#]+").match
_PLAIN_URL = re.compile(r"[!-\[\]-~]+")  # printable ASCII without the backslash

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def parse_address(text: str) -> Address | None:
    """The IP address in `text`, an IPv4-mapped one as IPv4; None if it is not an address."""
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def may_connect(address: Address, *, named_by_operator: bool) -> bool:
    """Whether a connection to `address` is allowed, for a host named by the operator or by a redirect."""
    if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        return False
    if named_by_operator:
        return True
    return _is_public(address)


def _is_public(address: Address) -> bool:
    """Whether it is an address of the public internet; an IPv4 address behind NAT64 must be public too."""
    if address in _NAT64:
        return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if any(address in network for network in _NOT_PUBLIC):
        return False
    is_local = isinstance(address, ipaddress.IPv6Address) and (address.is_site_local or address.is_reserved)
    return address.is_global and not is_local


def same_host(url: str, other: str) -> bool:
    """Whether two URLs name the same host and port of the same scheme."""
    return _endpoint(url) == _endpoint(other)


def origin_of(url: str) -> str:
    """The origin that a URL names, equal for two URLs exactly if they name the same host (RFC 9110 section 4.3.1)."""
    scheme, host, port = _endpoint(url)
    return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"


def may_redirect(source: str, target: str) -> bool:
    """Whether a redirect is to http or https, does not downgrade https to http, and is unambiguous.

    User names, backslashes and other bytes are where URL parsers disagree about the host, and ours is not libcurl's.
    """
    try:
        parts = urlsplit(target)
        readable = _PLAIN_URL.fullmatch(target) and "@" not in parts.netloc and parts.hostname and parts.port != 0
    except ValueError:
        return False
    schemes = urlsplit(source).scheme.lower(), parts.scheme.lower()
    return bool(readable) and (schemes[1] == "https" or schemes == ("http", "http"))


def _endpoint(url: str) -> tuple[str, str | None, int | None]:
    ends = _before_path(url)
    return _endpoint_of(url if ends is None else ends[0])


@lru_cache(maxsize=256)
def _endpoint_of(url: str) -> tuple[str, str | None, int | None]:
    """The same for every path: an origin is asked for many."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    return parts.scheme.lower(), parts.hostname, port
