"""RFC 9111 sections 3.3 and 3.4, with RFC 9110 section 14: parts of a complete response, parts that belong together."""

from __future__ import annotations

import pytest

from tests.rfc9111.exchanges import action_after, kept
from tests.support.http_values import NOW, fields, request, response, stored_response
from webproxy.caching.decision import Action, stale_allowed_on_error
from webproxy.caching.options import DEFAULT_OPTIONS
from webproxy.caching.partial import (
    UNSATISFIABLE,
    WHOLE,
    RangeAnswer,
    RangeKind,
    answer_range,
    as_incomplete,
    may_combine,
    part_fields,
)
from webproxy.caching.validation import freshen

MODIFIED = b"Last-Modified: Sat, 21 Nov 2026 08:00:00 GMT"
DATE = b"Date: Sat, 21 Nov 2026 09:00:00 GMT"
SAME_SECOND = b"Date: Sat, 21 Nov 2026 08:00:00 GMT"
STORED = stored_response(b'ETag: "a"', MODIFIED, DATE, body_bytes=10)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(b"bytes=0-3", RangeAnswer(RangeKind.ONE, ((0, 4),)), id="first"),
        pytest.param(b"bytes=4-", RangeAnswer(RangeKind.ONE, ((4, 10),)), id="from"),
        pytest.param(b"bytes=-3", RangeAnswer(RangeKind.ONE, ((7, 10),)), id="last"),
        pytest.param(b"bytes=0-99", RangeAnswer(RangeKind.ONE, ((0, 10),)), id="clipped"),
        pytest.param(b"bytes=0-1, 4-5", RangeAnswer(RangeKind.SEVERAL, ((0, 2), (4, 6))), id="two"),
        pytest.param(b"bytes=0-4, 2-6", RangeAnswer(RangeKind.ONE, ((0, 7),)), id="overlapping"),
        pytest.param(b"bytes=10-", UNSATISFIABLE, id="behind-the-end"),
        pytest.param(b"bytes=3-1", WHOLE, id="malformed"),
        pytest.param(b"lines=0-1", WHOLE, id="another-unit"),
        pytest.param(b"bytes=" + b",".join([b"0-0"] * 50), WHOLE, id="excessive"),
    ],
)
def test_parts_of_a_complete_response(value: bytes, expected: RangeAnswer) -> None:
    assert answer_range(request(b"Range: " + value), STORED, NOW) == expected


def test_a_digest_of_all_of_the_content_is_none_of_a_part() -> None:
    """RFC 9530 section 2: Content-Digest is of the message's content, Repr-Digest of the whole representation."""
    whole = fields(b"Content-Digest: sha-256=:a:", b"Content-MD5: b", b"Repr-Digest: sha-256=:a:", b"X: 1")
    assert part_fields(whole) == fields(b"Repr-Digest: sha-256=:a:", b"X: 1")


def test_without_range_all_of_it() -> None:
    assert answer_range(request(), STORED, NOW) == WHOLE


@pytest.mark.parametrize("method", [b"HEAD", b"POST"])
def test_only_get_has_ranges(method: bytes) -> None:
    assert answer_range(request(b"Range: bytes=0-1", method=method), STORED, NOW) == WHOLE


@pytest.mark.parametrize("status", [203, 204, 206, 301, 404])
def test_only_a_200_has_parts(status: int) -> None:
    stored = stored_response(body_bytes=10, status=status)
    assert answer_range(request(b"Range: bytes=0-1"), stored, NOW) == WHOLE


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b'If-Range: "a"', RangeAnswer(RangeKind.ONE, ((0, 2),)), id="holds"),
        pytest.param(b'If-Range: "b"', WHOLE, id="fails"),
        pytest.param(b"If-Range: Sat, 21 Nov 2026 08:00:00 GMT", RangeAnswer(RangeKind.ONE, ((0, 2),)), id="date"),
        pytest.param(b"If-Range: Sat, 21 Nov 2026 08:00:01 GMT", WHOLE, id="another-date"),
    ],
)
def test_if_range_is_judged_first(line: bytes, expected: RangeAnswer) -> None:
    assert answer_range(request(b"Range: bytes=0-1", line), STORED, NOW) == expected


def test_if_range_that_fails_hides_that_there_is_no_such_part() -> None:
    assert answer_range(request(b"Range: bytes=10-", b'If-Range: "b"'), STORED, NOW) == WHOLE


def test_of_an_empty_body_there_are_no_parts() -> None:
    assert answer_range(request(b"Range: bytes=0-"), stored_response(body_bytes=0), NOW) == UNSATISFIABLE


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        pytest.param([b'ETag: "a"'], [b'ETag: "a"'], True, id="the-same-strong-etag"),
        pytest.param([b'ETag: "a"'], [b'ETag: "b"'], False, id="another-etag"),
        pytest.param([b'ETag: W/"a"'], [b'ETag: W/"a"'], False, id="weak-etags"),
        pytest.param([b'ETag: "a"'], [b'ETag: W/"a"'], False, id="one-is-weak"),
        pytest.param([b'ETag: "a"', MODIFIED, DATE], [MODIFIED, DATE], False, id="one-has-no-etag"),
        pytest.param([MODIFIED, DATE], [b'ETag: "a"', MODIFIED, DATE], False, id="the-other-has-one"),
        pytest.param([b'ETag: "a"', MODIFIED], [b'ETag: "a"', DATE], True, id="the-etag-is-enough"),
        pytest.param([MODIFIED, DATE], [MODIFIED, DATE], True, id="the-same-strong-date"),
        pytest.param([MODIFIED, DATE], [MODIFIED, SAME_SECOND], False, id="the-others-date-is-weak"),
        pytest.param([MODIFIED, SAME_SECOND], [MODIFIED, DATE], False, id="its-date-is-weak"),
        pytest.param([MODIFIED, DATE], [DATE], False, id="no-date-in-the-other"),
        pytest.param([DATE], [DATE], False, id="no-validators"),
        pytest.param(
            [MODIFIED, DATE], [b"Last-Modified: Sat, 21 Nov 2026 08:00:01 GMT", DATE], False, id="another-date"
        ),
    ],
)
def test_parts_are_combined_by_a_strong_validator(one: list[bytes], other: list[bytes], together: bool) -> None:
    assert may_combine(fields(*one), fields(*other), NOW) is together


# -- incomplete responses --------------------------------------------------------------------------------------------
PART = as_incomplete(kept(b'ETag: "a"', b"Cache-Control: max-age=600, stale-if-error=600"), 10)


@pytest.mark.parametrize("wishes", [(), (b"Cache-Control: max-stale",), (b"Cache-Control: max-age=60",)])
def test_what_has_never_been_confirmed_is_validated(wishes: tuple[bytes, ...]) -> None:
    """A purge that came while it was fetched had nothing to remove yet."""
    assert action_after(0, PART, *wishes) is Action.REVALIDATE
    assert not stale_allowed_on_error(request(*wishes), PART, None, NOW, DEFAULT_OPTIONS)


def test_a_confirmation_makes_it_fresh_and_leaves_it_incomplete() -> None:
    confirmed = freshen(request(), PART, response(b'ETag: "a"', status=304), request_time=NOW, response_time=NOW)
    assert (confirmed.incomplete, confirmed.body_bytes, confirmed.lifetime_s) == (True, 10, 600)
    assert action_after(1, confirmed, b"Range: bytes=0-3") is Action.HIT


def test_its_parts_are_those_of_the_complete_one() -> None:
    assert answer_range(request(b"Range: bytes=-3"), PART, NOW) == RangeAnswer(RangeKind.ONE, ((7, 10),))
