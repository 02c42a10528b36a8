"""PURE: request targets → one normal form, the same for every method, and the same that is sent to the origin.

A key must identify what is really requested, and libcurl normalises a URL before sending it. So it is normalised here
first, and sent unchanged: dot segments are removed, escaped ones too (RFC 3986 section 5.2.4), escapes in the path are
upper-cased (section 6.2.2.1), bytes that a URL cannot contain are escaped. A query is changed only in the last respect.
A getfile path is not a URL: only its dot segments are removed for the key, and it is escaped for the origin.
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
# Most targets: nothing escaped, nothing to escape, no segment that starts with a dot.
_is_plain = re.compile(rb"(?:/(?!\.)[!$&-.0-;=@-\[\]_a-z~]*+)+(?:\?[!$&-;=?-\[\]_a-z~]*+)?").fullmatch
_LABEL = rb"[A-Za-z0-9_-]{1,63}"
_HOST = rb"\[([0-9A-Fa-f:.]{2,45})\]|(%s(?:\.%s)*\.?)" % (_LABEL, _LABEL)
_match_authority = re.compile(rb"(?:%s)(?::([0-9]{0,5}))?" % _HOST).fullmatch
_ends_in_number = re.compile(rb"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?").fullmatch
_DEFAULT_PORTS = {b"http": 80, b"https": 443}


class BadTarget(Exception):
    """An invalid request target, URL or authority (RFC 9112 section 3: answered with 400)."""


class TargetParts(NamedTuple):
    """A normalised request target; `authority` is None if the client named none."""

    scheme: bytes
    authority: bytes | None
    path: bytes
    """With its query."""
    absolute: bool
    """It was in absolute-form: the client takes us for a proxy, or for the host itself (RFC 9112 section 3.2.2)."""


def split_target(target: bytes, host: bytes | None) -> TargetParts:
    """Normalise a request target in origin-form, with its Host, or in absolute-form, which overrides Host.

    An empty Host counts as absent. Raises BadTarget, also for asterisk-form and authority-form (RFC 9112 sections
    3.2.3, 3.2.4), whose methods are answered earlier.
    """
    if target.startswith(b"/"):
        return TargetParts(b"http", normalised_authority(host) if host else None, http_path(target), False)
    absolute = match_http_url(target)
    if absolute is None:
        raise BadTarget("the target is neither a path nor an http URL")
    scheme = absolute[1].lower()
    path = absolute[3] or b"/"
    return TargetParts(
        scheme, normalised_authority(absolute[2], scheme), http_path(path if path[0] == 0x2F else b"/" + path), True
    )


def normalise_url(url: bytes) -> bytes:
    """Normalise an absolute http or https URL and drop its fragment; raises BadTarget for anything else."""
    parts = split_target(url.partition(b"#")[0], None)
    if parts.authority is None:
        raise BadTarget("an absolute URL is required")
    return b"%s://%s%s" % (parts.scheme, parts.authority, parts.path)


def http_path(path: bytes) -> bytes:
    """Normalise an HTTP path with its query; the result is final, and sent to an origin unchanged.

    Bytes that are invalid in a URL but sent by some clients are escaped: non-ASCII bytes, the printable `"<>\\^`{|}`,
    and a percent sign without its digits. Raises BadTarget for control characters, spaces and `#`: with those, two
    parsers may see different targets (RFC 9112 section 3.2, RFC 3986 section 2).
    """
    if _is_plain(path):
        return path
    if _REFUSED.search(path):
        raise BadTarget("control character, space or # in the target")
    path, mark, query = _quoted(normalised_path(path)).partition(b"?")
    return _ESCAPE.sub(lambda escape: escape[0].upper(), path) + mark + query


def normalised_path(path: bytes) -> bytes:
    """Remove the dot segments of a path; a query is unchanged. The result never leads above the root."""
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
    """The URL of a normalised path below `base`; bytes that a URL cannot contain are escaped."""
    return base.rstrip("/") + _quoted(path).decode("ascii")


def without_parameters(path: bytes, names: frozenset[bytes]) -> bytes:
    """The path without the query parameters with these names; the others keep their order.

    A name is everything before `=`, compared byte for byte. Without any parameter left, the question mark is dropped.
    """
    path, mark, query = path.partition(b"?")
    parameters = query.split(b"&")
    kept = [parameter for parameter in parameters if parameter.partition(b"=")[0] not in names]
    if len(kept) == len(parameters):
        return path + mark + query
    return path + mark + b"&".join(kept) if kept else path


@functools.lru_cache(maxsize=1024)
def normalised_authority(authority: bytes, scheme: bytes = b"http") -> bytes:
    """Normalise `host` or `host:port`: lower case, without the scheme's default port (RFC 3986 section 6.2.3).

    The host is a name, an IPv4 address or an IPv6 address in brackets; the port is 1 to 65535. Raises BadTarget for
    anything else, including userinfo (RFC 9110 section 4.2.4), escapes, and hosts that end in a number but are not a
    dotted address, because libcurl interprets those as addresses.
    """
    found = _match_authority(authority)
    if found is None or len(authority) > AUTHORITY_BYTES_MAX:
        raise BadTarget("invalid authority: HOST or HOST:PORT expected")
    name: bytes | None = found[2]
    try:
        if name is None:
            name = b"[%s]" % str(ipaddress.IPv6Address(found[1].decode())).encode()
        elif _ends_in_number(name):
            name = str(ipaddress.IPv4Address(name.decode())).encode()
    except ValueError:
        raise BadTarget("invalid host: neither a name nor an address") from None
    default_port = _DEFAULT_PORTS[scheme]
    port = int(found[3] or default_port)
    if not 1 <= port <= 65_535:
        raise BadTarget("invalid port: 1 to 65535 expected")
    return name.lower() if port == default_port else b"%s:%d" % (name.lower(), port)


def name_and_port(authority: bytes) -> tuple[bytes, int]:
    """The two parts of a normalised http authority."""
    name, colon, port = authority.rpartition(b":")
    return (name, int(port)) if colon and not authority.endswith(b"]") else (authority, 80)


def _quoted(path: bytes) -> bytes:
    return _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], path)
