"""failures: the status, the text and the fields for every error that is told."""

from __future__ import annotations

import pytest

from webproxy.errors import (
    CacheUnavailable,
    OriginBadReply,
    OriginBusy,
    OriginError,
    OriginFailing,
    OriginRefused,
    OriginSilent,
    OriginTimeout,
    OriginUnreachable,
    Overloaded,
)
from webproxy.exchange.failures import FAILURES, Told, status_for_stale, told_of, why_stale
from webproxy.http.urls import BadTarget

FAILING = OriginFailing("x", cause="no connection", retry_after_s=1.2)
SILENT = OriginSilent("x", cause="no answer in time", retry_after_s=0.01)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadTarget("no path"), Told(400, "no path")),
        (Overloaded("4096 fetches run"), Told(503, "4096 fetches run", b"Retry-After: 1\r\n")),
        (CacheUnavailable("x"), Told(503, "the cache is unavailable")),
        (OriginTimeout("x"), Told(504, "no valid response from the origin")),
        (OriginRefused("x"), Told(403, "no valid response from the origin")),
        (OriginBadReply("x"), Told(502, "no valid response from the origin")),
        (OriginUnreachable("x"), Told(502, "no valid response from the origin")),
        (FAILING, Told(503, "the origin has been failing for some time", b"Retry-After: 2\r\n")),
        (SILENT, Told(504, "the origin has not answered for some time", b"Retry-After: 1\r\n")),
        (OriginBusy("x"), Told(503, "too many requests wait for the origin", b"Retry-After: 1\r\n")),
    ],
)
def test_what_the_client_is_told(error: Exception, expected: Told) -> None:
    assert isinstance(error, FAILURES)
    assert told_of(error) == expected


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (OriginUnreachable("x"), None, b"stale"),
        (OriginBadReply("x", status=304), None, b"stale"),
        (FAILING, None, b"stale: origin fails: no connection"),
        (OriginFailing("x", cause="status 502 to 504", status=503), 503, b"stale: origin fails: status 502 to 504"),
        (OriginBusy("x"), 503, b"stale: origin busy"),
    ],
)
def test_why_a_stale_response_may_be_served(error: OriginError, status: int | None, why: bytes) -> None:
    assert status_for_stale(error) == status
    assert why_stale(error) == why


def test_why_it_is_served_instead_of_an_error() -> None:
    assert why_stale(None) == b"stale"
