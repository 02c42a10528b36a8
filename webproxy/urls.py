"""PURE: what a client asks for → one normal form, the same for every method and the same that goes to the origin.

A key must name what was really asked for, and libcurl normalises a URL before it sends it. So the same is done here
first, and what comes out is sent as it is: dot segments go, also in their escaped form (RFC 3986 section 5.2.4),
escapes of the path get capitals (section 6.2.2.1), bytes that a URL cannot hold become escapes. A query stays as it
came but for such bytes. A getfile path is no URL: only its dot segments go before it is a key, and it is escaped for
the origin.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple

from webproxy.http.syntax import match_http_url

AUTHORITY_BYTES_MAX = 261
"""A host name of at most 255 bytes, a colon and five digits."""

_DOT_SEGMENT = re.compile(rb"/(?:\.|%2[eE]){1,2}(?:/|\?|$)")
_DOT = re.compile(rb"%2[eE]")
_UNSAFE = re.compile(rb"[^!-~]|[\"#<>\\^`{|}]|%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_REFUSED = re.compile(rb"[\x00-\x20#\x7f]")
# What most targets are: nothing escaped, nothing to escape, no segment that begins with a dot.
_is_plain = re.compile(rb"(?:/(?!\.)[!$&-.0-;=@-\[\]_a-z~]*+)++(?:\?[!$&-;=?-\[\]_a-z~]*+)?").fullmatch
_LABEL = rb"[A-Za-z0-9_-]{1,63}"
_HOST = rb"\[([0-9A-Fa-f:.]{2,45})\]|(%s(?:\.%s)*\.?)" % (_LABEL, _LABEL)
_match_authority = re.compile(rb"(?:%s)(?::([0-9]{0,5}))?" % _HOST).fullmatch
_ends_in_number = re.compile(rb"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?").fullmatch
_DEFAULT_PORTS = {b"http": 80, b"https": 443}


class BadTarget(Exception):
    """A request target, a URL or an authority is none (RFC 9112 section 3: the client is told 400)."""


class TargetParts(NamedTuple):
    """A request target in its normal form; `authority` is None when the client named none."""

    scheme: bytes
    authority: bytes | None
    path: bytes
    """With its query."""
    absolute: bool
    """It came in absolute-form: the client takes us for a proxy, or for the host itself (RFC 9112 section 3.2.2)."""


def split_target(target: bytes, host: bytes | None) -> TargetParts:
    """The normal form of a request target in origin-form, with its Host, or in absolute-form, which overrides Host.

    An empty Host counts as none. Raises BadTarget, also for the asterisk-form and the authority-form (RFC 9112
    sections 3.2.3, 3.2.4): their methods are answered before it comes to a target.
    """
    if target.startswith(b"/"):
        return TargetParts(b"http", normalised_authority(host) if host else None, http_path(target), False)
    absolute = match_http_url(target)
    if absolute is None:
        raise BadTarget("neither a path nor an http URL")
    scheme = absolute[1].lower()
    path = absolute[3] or b"/"
    return TargetParts(
        scheme, normalised_authority(absolute[2], scheme), http_path(path if path[0] == 0x2F else b"/" + path), True
    )


def normalise_url(url: bytes) -> bytes:
    """The normal form of an absolute http or https URL, without its fragment; raises BadTarget for anything else."""
    parts = split_target(url.partition(b"#")[0], None)
    if parts.authority is None:
        raise BadTarget("a path where a whole URL belongs")
    return b"%s://%s%s" % (parts.scheme, parts.authority, parts.path)


def http_path(path: bytes) -> bytes:
    """The normal form of an HTTP path with its query; final, and sent to an origin unchanged.

    Bytes that no URL holds but that some clients send become escapes: all beyond ASCII, the printable `"<>\\^`{|}` and
    a percent sign without its digits. Raises BadTarget for controls, blanks and `#`: where those stand, two readers of
    one request line may see two targets (RFC 9112 section 3.2, RFC 3986 section 2).
    """
    if _is_plain(path):
        return path
    if _REFUSED.search(path):
        raise BadTarget("a control, a blank or # in the target")
    path, mark, query = _quoted(normalised_path(path)).partition(b"?")
    return _ESCAPE.sub(lambda escape: escape[0].upper(), path) + mark + query


def normalised_path(path: bytes) -> bytes:
    """The path with its dot segments removed; a query stays as it is. Never leads above the root."""
    if not _DOT_SEGMENT.search(path):
        return path
    path, mark, query = path.partition(b"?")
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for number, segment in enumerate(segments):
        plain = _DOT.sub(b".", segment)
        if plain not in (b".", b".."):
            kept.append(segment)
            continue
        if plain == b".." and kept:
            kept.pop()
        if number == len(segments) - 1:
            kept.append(b"")
    return b"/" + b"/".join(kept) + mark + query


def origin_url(base: str, path: bytes) -> str:
    """The URL of a normalised path below `base`; bytes that a URL cannot hold are percent-encoded."""
    return base.rstrip("/") + _quoted(path).decode("ascii")


def without_parameters(path: bytes, names: frozenset[bytes]) -> bytes:
    """The path without the query parameters of these names; the others keep their order.

    A name is what stands before `=`, byte for byte. The question mark goes with the last parameter.
    """
    path, mark, query = path.partition(b"?")
    parameters = query.split(b"&")
    kept = [parameter for parameter in parameters if parameter.partition(b"=")[0] not in names]
    if len(kept) == len(parameters):
        return path + mark + query
    return path + mark + b"&".join(kept) if kept else path


@functools.lru_cache(maxsize=1024)
def normalised_authority(authority: bytes, scheme: bytes = b"http") -> bytes:
    """`host` or `host:port` in its normal form: lower case, without the scheme's default port (RFC 3986 section 6.2.3).

    The host is a name, an IPv4 address or an IPv6 address in brackets; the port 1 to 65535. Raises BadTarget for
    anything else: also for a user name (RFC 9110 section 4.2.4), escapes, and for a host that ends in a number but is
    no dotted address, because libcurl reads addresses into those.
    """
    found = _match_authority(authority)
    if found is None or len(authority) > AUTHORITY_BYTES_MAX:
        raise BadTarget("not a host with an optional port")
    name: bytes | None = found[2]
    try:
        if name is None:
            name = b"[%s]" % str(ipaddress.IPv6Address(found[1].decode())).encode()
        elif _ends_in_number(name):
            name = str(ipaddress.IPv4Address(name.decode())).encode()
    except ValueError:
        raise BadTarget("not a host: neither a name nor an address") from None
    default_port = _DEFAULT_PORTS[scheme]
    port = int(found[3] or default_port)
    if not 1 <= port <= 65_535:
        raise BadTarget("a port is 1 to 65535")
    return name.lower() if port == default_port else b"%s:%d" % (name.lower(), port)


def name_and_port(authority: bytes) -> tuple[bytes, int]:
    """The two parts of a normal http authority."""
    name, colon, port = authority.rpartition(b":")
    return (name, int(port)) if colon and not authority.endswith(b"]") else (authority, 80)


def _quoted(path: bytes) -> bytes:
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], path)
