"""PURE: request path → cache key and origin URL, normalised once and the same way for both.

libcurl removes dot segments (RFC 3986 section 5.2.4, also in their percent-encoded form) before it sends a URL. The key
must name what was really asked for, so it is done here first.
"""

from __future__ import annotations

import re

_DOT_SEGMENT = re.compile(rb"/(?:\.|%2[eE]){1,2}(?:/|\?|$)")
_UNSAFE = re.compile(rb"[^!-~]|[\"#<>\\^`{|}]|%(?![0-9A-Fa-f]{2})")
_DOT = re.compile(rb"%2[eE]")


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
    quoted = _UNSAFE.sub(lambda match: b"%%%02X" % match[0][0], path)
    return base.rstrip("/") + quoted.decode("ascii")
