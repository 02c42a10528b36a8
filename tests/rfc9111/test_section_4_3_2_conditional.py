"""RFC 9111 section 4.3.2, with RFC 9110 section 13: a client's conditions, judged by what is stored."""

from __future__ import annotations

import pytest

from tests.support.http_values import NOW, request, stored_response
from webproxy.caching.validators import Condition, evaluate_conditions, if_range_holds

MODIFIED = b"Sat, 21 Nov 2026 08:00:00 GMT"
BEFORE = b"Sat, 21 Nov 2026 07:59:59 GMT"
AFTER = b"Sat, 21 Nov 2026 08:00:01 GMT"
DATE = b"Sat, 21 Nov 2026 09:59:50 GMT"
STRONG = stored_response(b'ETag: "a"', b"Last-Modified: " + MODIFIED, b"Date: " + DATE)
WEAK = stored_response(b'ETag: W/"a"', b"Date: " + DATE)
UNTAGGED = stored_response(b"Last-Modified: " + MODIFIED, b"Date: " + DATE)
DATED = stored_response(b"Date: " + DATE)
BARE = stored_response()

PROCEED, NOT_MODIFIED, ASK_ORIGIN = Condition.PROCEED, Condition.NOT_MODIFIED, Condition.ASK_ORIGIN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(b'If-None-Match: "a"', NOT_MODIFIED, id="the-same"),
        pytest.param(b'If-None-Match: W/"a"', NOT_MODIFIED, id="weak-comparison"),
        pytest.param(b'If-None-Match: "b"', PROCEED, id="another"),
        pytest.param(b'If-None-Match: "b", "a"', NOT_MODIFIED, id="last-of-a-list"),
        pytest.param(b'If-None-Match: "a","b"', NOT_MODIFIED, id="list-without-blank"),
        pytest.param(b'If-None-Match: , "b" ,, W/"a" ,', NOT_MODIFIED, id="list-with-empty-members"),
        pytest.param(b'If-None-Match: "b,"a","', PROCEED, id="a-list-that-is-none"),
        pytest.param(b'If-None-Match: "x, "a"', PROCEED, id="unbalanced"),
        pytest.param(b'If-None-Match: "b" "a"', PROCEED, id="list-without-comma"),
        pytest.param(b"If-None-Match: *", NOT_MODIFIED, id="anything"),
        pytest.param(b'If-None-Match: *, "b"', PROCEED, id="star-in-a-list-is-no-tag"),
        pytest.param(b"If-None-Match: a", PROCEED, id="bare"),
        pytest.param(b"If-None-Match:", PROCEED, id="empty"),
        pytest.param(b'If-None-Match: w/"a"', PROCEED, id="lower-case-mark"),
        pytest.param(b'If-None-Match: "A"', PROCEED, id="tags-have-case"),
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_if_none_match(line: bytes, expected: Condition, method: bytes) -> None:
    assert evaluate_conditions(request(line, method=method), STRONG, NOW) is expected


@pytest.mark.parametrize("line", [b'If-None-Match: W/"a"', b'If-None-Match: "a"', b'If-None-Match: "b", W/"a"'])
def test_if_none_match_with_a_weak_etag_stored(line: bytes) -> None:
    assert evaluate_conditions(request(line), WEAK, NOW) is NOT_MODIFIED


def test_several_lines_are_one_list() -> None:
    assert evaluate_conditions(request(b'If-None-Match: "b"', b'If-None-Match: "a"'), STRONG, NOW) is NOT_MODIFIED


def test_a_comma_inside_of_a_tag_parts_nothing() -> None:
    stored = stored_response(b'ETag: "a,b"')
    assert evaluate_conditions(request(b'If-None-Match: "x", "a,b"'), stored, NOW) is NOT_MODIFIED
    assert evaluate_conditions(request(b'If-None-Match: "a", "b"'), stored, NOW) is PROCEED


def test_an_etag_without_quotes_can_be_handed_back() -> None:
    assert evaluate_conditions(request(b"If-None-Match: abc"), stored_response(b"ETag: abc"), NOW) is NOT_MODIFIED
    assert evaluate_conditions(request(b'If-None-Match: "abc"'), stored_response(b"ETag: abc"), NOW) is PROCEED


def test_without_an_etag_only_the_star_matches() -> None:
    assert evaluate_conditions(request(b'If-None-Match: "a"'), UNTAGGED, NOW) is PROCEED
    assert evaluate_conditions(request(b"If-None-Match: *"), UNTAGGED, NOW) is NOT_MODIFIED


@pytest.mark.parametrize(
    ("stored", "date", "expected"),
    [
        pytest.param(UNTAGGED, MODIFIED, NOT_MODIFIED, id="that-very-second"),
        pytest.param(UNTAGGED, AFTER, NOT_MODIFIED, id="modified-before"),
        pytest.param(UNTAGGED, BEFORE, PROCEED, id="modified-since"),
        pytest.param(UNTAGGED, b"Saturday, 21-Nov-26 08:00:00 GMT", NOT_MODIFIED, id="rfc-850-form"),
        pytest.param(UNTAGGED, b"Sat Nov 21 08:00:00 2026", NOT_MODIFIED, id="asctime-form"),
        pytest.param(UNTAGGED, b"tomorrow", PROCEED, id="no-date"),
        pytest.param(UNTAGGED, b"Sat, 21 Nov 2027 08:00:00 GMT", NOT_MODIFIED, id="far-ahead"),
        pytest.param(STRONG, MODIFIED, NOT_MODIFIED, id="an-etag-stored-does-not-matter"),
        pytest.param(DATED, DATE, NOT_MODIFIED, id="by-Date-without-Last-Modified"),
        pytest.param(DATED, b"Sat, 21 Nov 2026 09:59:49 GMT", PROCEED, id="by-Date-older"),
        pytest.param(BARE, b"Sat, 21 Nov 2026 09:59:50 GMT", NOT_MODIFIED, id="by-arrival-without-Date"),
        pytest.param(BARE, b"Sat, 21 Nov 2026 09:59:49 GMT", PROCEED, id="by-arrival-older"),
    ],
)
def test_if_modified_since(stored, date, expected):
    assert evaluate_conditions(request(b"If-Modified-Since: " + date), stored, NOW) is expected


def test_two_dates_are_none() -> None:
    twice = request(b"If-Modified-Since: " + AFTER, b"If-Modified-Since: " + AFTER)
    assert evaluate_conditions(twice, UNTAGGED, NOW) is PROCEED


@pytest.mark.parametrize(
    ("tag", "date", "expected"),
    [
        pytest.param(b'"b"', AFTER, PROCEED, id="other-tag-unmodified"),
        pytest.param(b'"a"', BEFORE, NOT_MODIFIED, id="same-tag-modified"),
        pytest.param(b"nonsense", AFTER, PROCEED, id="no-tag-unmodified"),
    ],
)
def test_if_none_match_comes_first_and_alone(tag: bytes, date: bytes, expected: Condition) -> None:
    both = request(b"If-Modified-Since: " + date, b"If-None-Match: " + tag)
    assert evaluate_conditions(both, STRONG, NOW) is expected


@pytest.mark.parametrize(
    ("stored", "line", "expected"),
    [
        pytest.param(STRONG, b'If-Match: "a"', PROCEED, id="match"),
        pytest.param(STRONG, b'If-Match: "b", "a"', PROCEED, id="match-in-list"),
        pytest.param(STRONG, b"If-Match: *", PROCEED, id="star"),
        pytest.param(STRONG, b'If-Match: "b"', ASK_ORIGIN, id="mismatch"),
        pytest.param(STRONG, b'If-Match: W/"a"', ASK_ORIGIN, id="strong-comparison"),
        pytest.param(WEAK, b'If-Match: W/"a"', ASK_ORIGIN, id="strong-comparison-of-weak-ones"),
        pytest.param(stored_response(b"ETag: a"), b"If-Match: a", ASK_ORIGIN, id="no-tag-is-not-strong"),
        pytest.param(UNTAGGED, b'If-Match: "a"', ASK_ORIGIN, id="no-tag-stored"),
        pytest.param(UNTAGGED, b"If-Unmodified-Since: " + MODIFIED, PROCEED, id="unmodified"),
        pytest.param(UNTAGGED, b"If-Unmodified-Since: " + BEFORE, ASK_ORIGIN, id="modified"),
        pytest.param(DATED, b"If-Unmodified-Since: " + AFTER, ASK_ORIGIN, id="unknown-when-modified"),
        pytest.param(UNTAGGED, b"If-Unmodified-Since: never", PROCEED, id="no-date-is-ignored"),
    ],
)
def test_what_only_the_origin_may_fail(stored, line, expected):
    """If-Match and If-Unmodified-Since do not apply to a cache: it passes on what it cannot meet."""
    assert evaluate_conditions(request(line), stored, NOW) is expected


def test_the_origins_conditions_come_first() -> None:
    assert evaluate_conditions(request(b'If-Match: "b"', b'If-None-Match: "a"'), STRONG, NOW) is ASK_ORIGIN
    assert evaluate_conditions(request(b'If-Match: "a"', b'If-None-Match: "a"'), STRONG, NOW) is NOT_MODIFIED
    met = request(b'If-Match: "a"', b"If-Unmodified-Since: " + BEFORE)
    assert evaluate_conditions(met, STRONG, NOW) is PROCEED


def test_without_conditions_it_is_sent() -> None:
    assert evaluate_conditions(request(b"Range: bytes=0-1", b"Accept: */*"), STRONG, NOW) is PROCEED


@pytest.mark.parametrize(("status", "expected"), [(200, NOT_MODIFIED), (203, NOT_MODIFIED), (204, NOT_MODIFIED)])
def test_successes_are_subject_to_conditions(status: int, expected: Condition) -> None:
    stored = stored_response(b'ETag: "a"', status=status)
    assert evaluate_conditions(request(b'If-None-Match: "a"'), stored, NOW) is expected


@pytest.mark.parametrize("status", [301, 404, 410, 501])
def test_other_statuses_are_not(status: int) -> None:
    """RFC 9110 section 13.2.1: what would not succeed without the condition is sent as it is."""
    stored = stored_response(b'ETag: "a"', status=status)
    assert evaluate_conditions(request(b'If-None-Match: "a"', b'If-Match: "b"'), stored, NOW) is PROCEED


@pytest.mark.parametrize(
    ("stored", "line", "holds"),
    [
        pytest.param(STRONG, b"X: y", True, id="none"),
        pytest.param(STRONG, b'If-Range: "a"', True, id="the-strong-tag"),
        pytest.param(STRONG, b'If-Range: "b"', False, id="another-tag"),
        pytest.param(STRONG, b'If-Range: W/"a"', False, id="weak-tag-sent"),
        pytest.param(WEAK, b'If-Range: W/"a"', False, id="weak-tag-stored"),
        pytest.param(STRONG, b'If-Range: "a", "b"', False, id="a-list"),
        pytest.param(STRONG, b"If-Range: *", False, id="star"),
        pytest.param(UNTAGGED, b'If-Range: "a"', False, id="no-tag-stored"),
        pytest.param(STRONG, b"If-Range: " + MODIFIED, True, id="the-date"),
        pytest.param(UNTAGGED, b"If-Range: " + MODIFIED, True, id="the-date-without-tag"),
        pytest.param(UNTAGGED, b"If-Range: " + AFTER, False, id="a-later-date"),
        pytest.param(UNTAGGED, b"If-Range: Sat Nov 21 08:00:00 2026", False, id="another-form-of-the-date"),
        pytest.param(DATED, b"If-Range: " + DATE, False, id="Date-is-no-validator"),
        pytest.param(
            stored_response(b"Last-Modified: " + DATE, b"Date: " + DATE), b"If-Range: " + DATE, False, id="a-weak-date"
        ),
        pytest.param(
            stored_response(b"Last-Modified: x", b"Date: " + DATE), b"If-Range: x", False, id="what-is-no-date"
        ),
    ],
)
def test_if_range(stored, line, holds):
    """RFC 9110 section 13.1.5: strong comparison; a date byte for byte, and only when it is a strong validator."""
    assert if_range_holds(request(line), stored, NOW) is holds
