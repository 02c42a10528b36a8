"""PURE: what an HTTP client is told of a failure before anything was sent: a status, or why a response is stale."""

from __future__ import annotations

import math
from typing import NamedTuple

from webproxy.errors import (
    CacheUnavailable,
    OriginBusy,
    OriginError,
    OriginFailing,
    OriginNotAsked,
    OriginRefused,
    OriginSilent,
    OriginTimeout,
    Overloaded,
    SpoolFailed,
)
from webproxy.http.urls import BadTarget

_NO_ANSWER = "no valid response from the origin"
_STATUS_OF_ERROR: dict[type[Exception], tuple[int, str]] = {
    BadTarget: (400, ""),
    Overloaded: (503, ""),
    CacheUnavailable: (503, "the cache is unavailable"),
    OriginTimeout: (504, _NO_ANSWER),
    OriginSilent: (504, "the origin has not answered for some time"),
    OriginFailing: (503, "the origin has been failing for some time"),
    OriginBusy: (503, "too many requests wait for the origin"),
    OriginRefused: (403, _NO_ANSWER),
    SpoolFailed: (503, "no room for the body on its way"),
    OriginError: (502, _NO_ANSWER),
}
"""The status for each failure, and its text; without one the error's own."""
FAILURES: tuple[type[Exception], ...] = tuple(_STATUS_OF_ERROR)
"""What may be asked about here."""


class Told(NamedTuple):
    """A status, its text, and further lines of the head."""

    status: int
    text: str
    fields: bytes = b""


def told_of(error: Exception) -> Told:
    """What the client is told of one of FAILURES; with Retry-After if it is a bound of ours that passes.

    Whole seconds (RFC 9110 section 10.2.3).
    """
    status, text = next(told for kind, told in _STATUS_OF_ERROR.items() if isinstance(error, kind))
    if isinstance(error, OriginNotAsked):
        return Told(status, text, b"Retry-After: %d\r\n" % math.ceil(error.retry_after_s))
    return Told(
        status, text or str(error), b"Retry-After: 1\r\n" if isinstance(error, Overloaded | SpoolFailed) else b""
    )


def status_for_stale(error: OriginError) -> int | None:
    """What stale-if-error compares: what an origin that was not asked would have said; None if it is disconnected."""
    return (error.status or None) if isinstance(error, OriginNotAsked) else None


def why_stale(error: OriginError | None) -> bytes:
    """Why a stale response is served, for the `detail` of Cache-Status; None: because of the origin's status."""
    if isinstance(error, OriginFailing):
        return b"stale: origin fails: " + error.cause.encode()
    return b"stale: origin busy" if isinstance(error, OriginBusy) else b"stale"
