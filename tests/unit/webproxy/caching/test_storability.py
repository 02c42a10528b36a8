"""storability: every reason not to store, in its order, and every part of the value that is kept."""

from dataclasses import replace

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, HOUR_AGO, kept, refusal
from tests.support.http_values import NOW, fields, request, response
from webproxy.caching.options import CachingOptions
from webproxy.caching.storability import (
    UNDERSTOOD,
    has_content,
    has_validator,
    is_common_failure,
    is_personal,
    store_response,
    storing_refused,
    takes_the_place,
)
from webproxy.caching.stored import StoredResponse
from webproxy.http.messages import Framing

FRESH = b"Cache-Control: max-age=60"


def test_the_two_answers() -> None:
    assert storing_refused(request(), response(FRESH), NOW) == b""
    assert storing_refused(request(), response(), NOW) == b"stale without validator"


@pytest.mark.parametrize(
    ("framing", "length", "expected"),
    [
        (Framing.NONE, 0, False),
        (Framing.LENGTH, 0, False),
        (Framing.LENGTH, 1, True),
        (Framing.CHUNKED, 0, True),
    ],
)
def test_content_of_a_request(framing: Framing, length: int, expected: bool) -> None:
    head = replace(request(), framing=framing, content_length=length)
    assert has_content(head) is expected
    assert storing_refused(head, response(FRESH), NOW) == (b"request has content" if expected else b"")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), False),
        ((b'ETag: "1"',), True),
        ((b"ETag: ",), False),
        ((b"Last-Modified: " + HOUR_AGO,), True),
        ((b"Last-Modified: 0",), False),
        ((b"ETag: ", b"Last-Modified: " + HOUR_AGO), True),
    ],
)
def test_has_validator(lines: tuple[bytes, ...], expected: bool) -> None:
    assert has_validator(fields(*lines), NOW) is expected


@pytest.mark.parametrize("status", [404, 405, 410, 414, 500, 501, 502, 503, 504, 599])
def test_failures_that_everybody_would_meet(status: int) -> None:
    assert is_common_failure(request(), response(status=status))
    for line in (b"Cache-Control: no-store", b"Cache-Control: private", b"Set-Cookie: a=b", b"Vary: *"):
        assert not is_common_failure(request(), response(line, status=status))
    assert not is_common_failure(request(b"Authorization: x"), response(status=status))
    assert not is_common_failure(request(b"Cache-Control: no-store"), response(status=status))


@pytest.mark.parametrize("status", [200, 204, 301, 304, 400, 401, 403, 407, 412, 416, 429, 511, 600])
def test_what_need_not_meet_everybody(status: int) -> None:
    assert not is_common_failure(request(), response(status=status))


def test_requests_of_one_user() -> None:
    assert is_personal(request(b"Cookie: a=b"))
    assert is_personal(request(b"Authorization: x"))
    assert not is_personal(request(b"Accept: x"))


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PURGE", b"get"])
def test_methods(method: bytes) -> None:
    assert refusal(FRESH, method=method) == b"method"


@pytest.mark.parametrize("status", [100, 103, 199])
def test_interim_responses(status: int) -> None:
    assert refusal(FRESH, status=status) == b"interim response"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        *((status, True) for status in (200, 203, 204, 299, 301, 302, 307, 400, 401, 403, 404, 405, 410, 451)),
        *((status, False) for status in (206, 304, 407, 408, 412, 416, 417, 421, 425, 428, 429, 431)),
        *((status, False) for status in (500, 501, 502, 503, 504, 511, 599, 999)),
    ],
)
def test_what_tells_that_something_else_is_there_now(status: int, expected: bool) -> None:
    assert takes_the_place(status) is expected


@pytest.mark.parametrize("status", [304, 407, 412, 416, 417, 421, 425, 428, 429, 431, 511])
def test_answers_to_one_request(status: int) -> None:
    assert refusal(b"Cache-Control: public, s-maxage=60", status=status) == b"status"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((b"Cache-Control: no-cache",), b"no validator"),
        ((b"Cache-Control: no-cache", ETAG), b""),
        ((b"Cache-Control: no-cache, stale-while-revalidate=60",), b"no validator"),
        ((b"Cache-Control: max-age=0",), b"stale without validator"),
        ((b"Cache-Control: max-age=0", ETAG), b""),
        ((b"Cache-Control: max-age=0, stale-while-revalidate=60",), b""),
        ((b"Cache-Control: max-age=0, stale-if-error=60",), b""),
        ((b"Cache-Control: s-maxage=0, stale-if-error=60",), b"stale without validator"),
        ((b"Cache-Control: max-age=60", b"Age: 600"), b""),
        ((b"Expires: 0",), b"stale without validator"),
        ((b"Last-Modified: " + HOUR_AGO,), b""),
        ((), b"stale without validator"),
    ],
)
def test_what_could_never_be_used_is_not_kept(lines: tuple[bytes, ...], reason: bytes) -> None:
    assert refusal(*lines) == reason


def test_a_default_window_makes_it_useful() -> None:
    assert refusal(b"Cache-Control: max-age=0", options=CachingOptions(stale_if_error_default_s=60)) == b""


def test_understood_statuses_do_not_include_what_is_never_stored() -> None:
    assert UNDERSTOOD.isdisjoint({206, 304, 412, 416, 421, 429})


def test_the_whole_value() -> None:
    answer = replace(
        response(
            b"Date: " + HOUR_AGO,
            b'Cache-Control: max-age=4000, stale-while-revalidate=7, stale-if-error=8, no-cache="x-b", private="x-c"',
            b"Age: 1",
            b"Connection: x-a",
            b"X-A: 1",
            b"X-B: 2",
            b"X-C: 3",
            b"Transfer-Encoding: chunked",
            b"Vary: Accept",
            status=203,
        ),
        reason=b"Fine",
    )
    stored = store_response(
        answer, request_time=NOW - 2.5, response_time=NOW, selecting=((b"accept", None),), body_bytes=12
    )
    assert stored == StoredResponse(
        status=203,
        fields=fields(
            b"Date: " + HOUR_AGO,
            b'Cache-Control: max-age=4000, stale-while-revalidate=7, stale-if-error=8, no-cache="x-b", private="x-c"',
            b"Vary: Accept",
        ),
        reason=b"Fine",
        request_time=NOW - 2.5,
        response_time=NOW,
        initial_age_s=3600,
        lifetime_s=4000,
        stale_while_revalidate_s=7,
        stale_if_error_s=8,
        selecting=((b"accept", None),),
        body_bytes=12,
    )


@pytest.mark.parametrize(
    ("control", "always_validate", "never_stale", "lifetime_s"),
    [
        (b"max-age=60", False, False, 60),
        (b"max-age=60, no-cache", True, False, 0),
        (b'max-age=60, no-cache="a"', False, False, 60),
        (b"max-age=60, must-revalidate", False, True, 60),
        (b"max-age=60, proxy-revalidate", False, True, 60),
        (b"max-age=60, s-maxage=5", False, True, 5),
    ],
)
def test_flags(control: bytes, always_validate: bool, never_stale: bool, lifetime_s: int) -> None:
    stored = kept(b"Cache-Control: " + control)
    assert (stored.always_validate, stored.never_stale, stored.lifetime_s) == (always_validate, never_stale, lifetime_s)


def test_a_guess_is_marked() -> None:
    stored = kept(b"Last-Modified: " + HOUR_AGO)
    assert (stored.lifetime_s, stored.heuristic) == (360, True)
    assert not kept(b"Cache-Control: max-age=1").heuristic


@pytest.mark.parametrize(
    ("control", "default_s", "expected"),
    [(b"max-age=1", 0, 0), (b"max-age=1", 9, 9), (b"stale-if-error=5", 9, 5), (b"stale-if-error=0", 9, 0)],
)
def test_the_window_after_an_error(control: bytes, default_s: int, expected: int) -> None:
    options = CachingOptions(stale_if_error_default_s=default_s)
    assert kept(b"Cache-Control: " + control, options=options).stale_if_error_s == expected


@pytest.mark.parametrize(
    ("lines", "dates"),
    [
        ((), [b"Sat, 21 Nov 2026 10:00:00 GMT"]),
        ((b"Date: " + HOUR_AGO,), [HOUR_AGO]),
        ((b"Date: yesterday",), [b"yesterday"]),
    ],
)
def test_date_is_added_and_never_changed(lines: tuple[bytes, ...], dates: list[bytes]) -> None:
    assert kept(FRESH, *lines).fields.get_all(b"date") == dates


def test_a_date_that_connection_takes_away_is_added_again() -> None:
    assert kept(FRESH, b"Date: " + HOUR_AGO, b"Connection: date").fields == fields(FRESH, DATE)
