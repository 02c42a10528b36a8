"""PURE: the Cache-Status field: what this cache did with a request, for whoever looks into it (RFC 9211).

One member of a list: a field that came from the origin stays, and ours goes behind it.
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
    """The value that says what the cache called `name` did; each parameter stands for the one of RFC 9211 section 2.

    `fwd` is a token: why the request went on; without it `fwd_status`, `stored` and `collapsed` say nothing and are
    left out, and with `hit` so is all of it. `ttl` is in seconds, negative for a stale response.
    """
    if hit and ttl is not None and key is None and detail is None:
        return b"%s; hit; ttl=%d" % (_bare_item(name), ttl)  # nearly all there are; no lifetime comes near the limit
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
    """A token where the text is one, else a string."""
    return text if is_structured_token(text) else _string(text)


def _string(text: bytes) -> bytes:
    """A string; what it cannot hold is percent-encoded."""
    printable = _escape_unprintable(lambda match: b"%%%02X" % match[0][0], text)
    return b'"' + _escape(rb"\\\g<0>", printable) + b'"'
