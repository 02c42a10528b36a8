"""RFC 9111 section 3: which responses a shared cache stores."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, HOUR_AGO, IN_AN_HOUR, kept, refusal
from webproxy.caching.options import CachingOptions

FRESH = b"Cache-Control: max-age=60"
MODIFIED = b"Last-Modified: " + HOUR_AGO


@pytest.mark.parametrize(
    ("method", "reason"),
    [(b"GET", b""), (b"HEAD", b"method"), (b"POST", b"method"), (b"PUT", b"method"), (b"QUERY", b"method")],
)
def test_the_method_is_understood(method: bytes, reason: bytes) -> None:
    """HEAD has no content to store, and POST is stored by nobody."""
    assert refusal(FRESH, method=method) == reason


@pytest.mark.parametrize("status", [100, 102, 103])
def test_the_status_is_final(status: int) -> None:
    assert refusal(FRESH, status=status) == b"interim response"


@pytest.mark.parametrize(
    "status",
    [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 403, 404, 410, 451, 499, 500, 502, 503, 504, 599],
)
def test_explicit_freshness_makes_any_status_storable(status: int) -> None:
    assert refusal(FRESH, status=status) == b""
    assert refusal(DATE, b"Expires: " + IN_AN_HOUR, status=status) == b""


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_a_heuristically_cacheable_status_needs_nothing_explicit(status: int) -> None:
    assert refusal(MODIFIED, DATE, status=status) == b""


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599])
def test_any_other_status_needs_something_explicit(status: int) -> None:
    assert refusal(MODIFIED, DATE, status=status) == b"no explicit freshness"
    assert refusal(MODIFIED, DATE, b"Cache-Control: public", status=status) == b""
    assert refusal(MODIFIED, DATE, b"Cache-Control: no-transform", status=status) == b"no explicit freshness"


@pytest.mark.parametrize(
    ("control", "reason"),
    [
        (b"no-store", b"no-store"),
        (b"No-StOrE", b"no-store"),
        (b"max-age=10000, no-store", b"no-store"),
        (b"public, no-store", b"no-store"),
        (b"private, max-age=60", b"private"),
        (b"public, private, max-age=60", b"private"),
        (b"max-age=60, s-maxage=60, private", b"private"),
        (b'private="set-cookie", max-age=60', b""),
        (b'no-cache="set-cookie", max-age=60', b""),
        (b"no-cache, max-age=60", b""),
    ],
)
def test_the_response_allows_it(control: bytes, reason: bytes) -> None:
    assert refusal(b"Cache-Control: " + control, b"Expires: " + IN_AN_HOUR, DATE, ETAG) == reason


def test_the_request_allows_it() -> None:
    assert refusal(FRESH, asked=(b"Cache-Control: no-store",)) == b"request says no-store"
    assert refusal(FRESH, asked=(b"Cache-Control: no-cache",)) == b""
    assert refusal(FRESH, asked=(b"Pragma: no-cache",)) == b""


@pytest.mark.parametrize(
    ("status", "control", "reason"),
    [
        (200, b"must-understand, no-store, max-age=60", b""),
        (404, b"must-understand, no-store, max-age=60", b""),
        (299, b"must-understand, no-store, max-age=60", b"status not understood"),
        (599, b"must-understand, max-age=60", b"status not understood"),
        (206, b"must-understand, no-store, max-age=60", b"partial content"),
        (200, b"must-understand, private, max-age=60", b"private"),
    ],
)
def test_must_understand(status: int, control: bytes, reason: bytes) -> None:
    """Section 5.2.2.3: no-store beside it is for caches that do not know must-understand."""
    assert refusal(b"Cache-Control: " + control, status=status) == reason


@pytest.mark.parametrize(
    ("vary", "reason"),
    [
        ((b"Vary: Accept",), b""),
        ((b"Vary: *",), b"vary *"),
        ((b"Vary: Accept, *",), b"vary *"),
        ((b"Vary: Accept", b"Vary: *"), b"vary *"),
        ((b"Vary: ",), b""),
        ((b"Vary: a*",), b""),
    ],
)
def test_a_response_that_no_request_can_select(vary: tuple[bytes, ...], reason: bytes) -> None:
    """Section 4.1: `*` never matches."""
    assert refusal(FRESH, *vary) == reason


@pytest.mark.parametrize("status", [600, 999])
def test_what_is_no_status(status: int) -> None:
    """RFC 9110 section 15."""
    assert refusal(FRESH, status=status) == b"status"


@pytest.mark.parametrize("control", [b"Cache-Control: max-age=60", b"Cache-Control: max-age=60, must-understand"])
def test_partial_content(control: bytes) -> None:
    """Section 3.3: of a 206 nothing is stored; what broke off is completed as a 200."""
    lines = (control, b"Content-Range: bytes 0-1/9")
    assert refusal(*lines, status=206, asked=(b"Range: bytes=0-1",)) == b"partial content"


def test_content_range_means_nothing_elsewhere() -> None:
    """RFC 9110 section 14.4: on a 200 it has no meaning, and the response is stored as any other, without it."""
    assert refusal(FRESH, b"Content-Range: bytes 0-1/9") == b""
    assert b"content-range" not in kept(FRESH, b"Content-Range: bytes 0-1/9").fields
    assert refusal(FRESH, asked=(b"Range: bytes=0-1",)) == b""


@pytest.mark.parametrize(
    ("control", "options", "reason"),
    [
        (b"max-age=60", CachingOptions(), b"set-cookie"),
        (b"max-age=60", CachingOptions(store_set_cookie=True), b""),
        (b"max-age=60, public", CachingOptions(), b""),
        (b"s-maxage=60", CachingOptions(), b""),
        (b'max-age=60, no-cache="set-cookie"', CachingOptions(), b""),
        (b'max-age=60, private="Set-Cookie"', CachingOptions(), b""),
        (b'max-age=60, private="a"', CachingOptions(), b"set-cookie"),
    ],
)
def test_set_cookie(control: bytes, options: CachingOptions, reason: bytes) -> None:
    """Section 7.3 leaves it to us: a session is not handed out unless somebody said so."""
    assert refusal(b"Cache-Control: " + control, b"Set-Cookie: a=b", options=options) == reason


def test_a_cookie_of_the_request_changes_nothing() -> None:
    assert refusal(FRESH, asked=(b"Cookie: a=b",)) == b""
