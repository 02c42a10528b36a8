"""Continuation: which bodies can go on after a break, how that is asked for, and what is no rest of them."""

from __future__ import annotations

import pytest

from tests.support.http_values import NOW, fields, stored_response
from webproxy.caching.partial import Continuation, continuation, is_rest, rest_request, shown_fields

SIZE = 1000
DATE = b"Date: Sat, 21 Nov 2026 09:00:00 GMT"
MODIFIED = b"Last-Modified: Sat, 21 Nov 2026 08:00:00 GMT"
SAME_SECOND = b"Date: Sat, 21 Nov 2026 08:00:00 GMT"
ETAG = b'ETag: "a"'
KNOWN = Continuation(fields(ETAG), SIZE, b'"a"')


@pytest.mark.parametrize(
    ("lines", "validator"),
    [
        pytest.param([ETAG], b'"a"', id="strong"),
        pytest.param([ETAG, MODIFIED, DATE], b'"a"', id="the-etag-first"),
        pytest.param([MODIFIED, DATE], b"Sat, 21 Nov 2026 08:00:00 GMT", id="strong-date"),
        pytest.param([b'ETag: W/"a"'], None, id="weak"),
        pytest.param([b'ETag: W/"a"', MODIFIED, DATE], None, id="a-weak-etag-forbids-the-date"),
        pytest.param([b"ETag: a", MODIFIED, DATE], None, id="malformed"),
        pytest.param([MODIFIED, SAME_SECOND], None, id="weak-date"),
        pytest.param([MODIFIED], None, id="without-date"),
        pytest.param([], None, id="nothing"),
        pytest.param([ETAG, b"Accept-Ranges: none"], None, id="ranges-refused"),
        pytest.param([ETAG, b"Accept-Ranges: bytes"], b'"a"', id="ranges-offered"),
    ],
)
def test_a_strong_validator_lets_a_body_go_on(lines: list[bytes], validator: bytes | None) -> None:
    known = continuation(200, fields(*lines), SIZE, NOW)
    assert (known.validator if known is not None else None) == validator


@pytest.mark.parametrize(("status", "size"), [(206, SIZE), (404, SIZE), (203, SIZE), (200, None)])
def test_only_a_200_of_known_length_goes_on(status: int, size: int | None) -> None:
    assert continuation(status, fields(ETAG), size, NOW) is None


def test_the_rest_is_asked_for_in_place_of_what_the_client_wanted() -> None:
    asked = rest_request(fields(b"Range: bytes=5-6", b'If-Range: "z"', b"Accept: */*"), KNOWN, 10)
    assert asked == fields(b"Accept: */*", b"Range: bytes=10-", b'If-Range: "a"')


def test_what_is_shown_of_the_rest_says_nothing_of_the_rest_alone() -> None:
    rest = fields(
        b"A: 2", b"B: 2", b"Content-Range: bytes 10-999/1000", b"Content-Length: 990", b"Content-Digest: x=:a:"
    )
    assert shown_fields(stored_response(b"A: 1"), rest) == fields(b"A: 1", b"B: 2")


def fits(*lines: bytes, status: int = 206, length: int | None = 990, known: Continuation = KNOWN) -> bool:
    return is_rest(known, 10, status, fields(*lines), length, NOW)


RANGE = b"Content-Range: bytes 10-999/1000"


@pytest.mark.parametrize("length", [990, None])
def test_the_rest(length: int | None) -> None:
    assert fits(ETAG, RANGE, length=length)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([ETAG], id="without-a-range"),
        pytest.param([RANGE], id="without-a-validator"),
        pytest.param([b'ETag: "b"', RANGE], id="another-validator"),
        pytest.param([b'ETag: W/"a"', RANGE], id="a-weak-one"),
        pytest.param([ETAG, b"Content-Range: bytes 9-999/1000"], id="too-early"),
        pytest.param([ETAG, b"Content-Range: bytes 11-999/1000"], id="too-late"),
        pytest.param([ETAG, b"Content-Range: bytes 10-998/1000"], id="not-to-the-end"),
        pytest.param([ETAG, b"Content-Range: bytes 10-999/1001"], id="another-length"),
        pytest.param([ETAG, b"Content-Range: bytes 10-999/*"], id="unknown-length"),
        pytest.param([ETAG, b"Content-Range: lines 10-999/1000"], id="another-unit"),
        pytest.param([ETAG, RANGE, RANGE], id="two-ranges"),
        pytest.param([ETAG, RANGE, b"Content-Encoding: gzip"], id="another-coding"),
    ],
)
def test_what_is_no_rest(lines: list[bytes]) -> None:
    assert not fits(*lines)


@pytest.mark.parametrize("status", [200, 304, 404, 416, 503])
def test_no_other_status_brings_a_rest(status: int) -> None:
    assert not fits(ETAG, RANGE, status=status)


@pytest.mark.parametrize("length", [989, 991, 0])
def test_a_length_that_is_not_the_ranges(length: int) -> None:
    assert not fits(ETAG, RANGE, length=length)


@pytest.mark.parametrize(("date", "is_strong"), [(DATE, True), (SAME_SECOND, False)])
def test_a_date_must_be_strong_in_both(date: bytes, is_strong: bool) -> None:
    known = Continuation(fields(MODIFIED, DATE), SIZE, b"Sat, 21 Nov 2026 08:00:00 GMT")
    assert fits(MODIFIED, date, RANGE, known=known) is is_strong
