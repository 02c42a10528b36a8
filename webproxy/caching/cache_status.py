"""PURE: the Cache-Status field, which reports what this cache did with a request (RFC 9211).

Our member is appended: a Cache-Status field from the origin is kept, and ours follows it.
"""

from __future__ import annotations

import functools
import re

from webproxy.http.syntax import is_structured_token

# Structured field items (RFC 8941 sections 3.3.1, 3.3.3).
_INTEGER_MAX = 999_999_999_999_999
_escape = re.compile(rb'["\\]').sub
_escape_unprintable = re.compile(rb"[^ -~]").sub


def cache_status(
    name: bytes,
    *,
    hit: bool = False,
    fwd: bytes | None = None,
    fwd_status: int | None = None,
    stored: bool = False,
    collapsed: bool = False,
    ttl: int | None = None,
    key: bytes | None = None,
    detail: bytes | None = None,
) -> bytes:
    """The member for the cache called `name`; the parameters are those of RFC 9211 section 2.

    `fwd` is a token: the reason for forwarding. Without it `fwd_status`, `stored` and `collapsed` are meaningless and
    left out; with `hit` so is `fwd`. `ttl` is in seconds, negative for a stale response.
    """
    if hit and ttl is not None and key is None and detail is None:
        return b"%s; hit; ttl=%d" % (_bare_item(name), ttl)  # the common case; no lifetime comes near the limit
    parts = [_bare_item(name)]
    if hit:
        parts.append(b"hit")
    elif fwd is not None:
        parts.append(b"fwd=" + fwd)
        if fwd_status is not None:
            parts.append(b"fwd-status=%d" % fwd_status)
    if ttl is not None:
        parts.append(b"ttl=%d" % max(-_INTEGER_MAX, min(ttl, _INTEGER_MAX)))
    if fwd is not None and not hit:
        parts += [b"stored"] * stored + [b"collapsed"] * collapsed
    if key is not None:
        parts.append(b"key=" + _string(key))
    if detail is not None:
        parts.append(b"detail=" + _bare_item(detail))
    return b"; ".join(parts)


@functools.lru_cache(maxsize=64)
def _bare_item(text: bytes) -> bytes:
    """The text as a token if it is one, else as a string."""
    return text if is_structured_token(text) else _string(text)


def _string(text: bytes) -> bytes:
    """The text as a string; bytes that a string cannot contain are percent-encoded."""
    printable = _escape_unprintable(lambda match: b"%%%02X" % match[0][0], text)
    return b'"' + _escape(rb"\\\g<0>", printable) + b'"'
