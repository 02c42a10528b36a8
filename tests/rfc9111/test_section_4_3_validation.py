"""RFC 9111 sections 4.3.1, 4.3.3 and 4.3.4: the request that validates, and which stored response its 304 means."""

from __future__ import annotations

import pytest

from tests.support.http_values import NOW, fields, request, response, stored_response
from webproxy.caching.validation import conditional_request, freshen, selects

MODIFIED = b"Sat, 21 Nov 2026 08:00:00 GMT"
LATER = b"Sat, 21 Nov 2026 09:00:00 GMT"
BOTH = stored_response(b'ETag: "a"', b"Last-Modified: " + MODIFIED)
TAGGED = stored_response(b'ETag: "a"')
DATED = stored_response(b"Last-Modified: " + MODIFIED)
NEITHER = stored_response(b"Cache-Control: max-age=5")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        pytest.param(BOTH, [b'If-None-Match: "a"', b"If-Modified-Since: " + MODIFIED], id="both"),
        pytest.param(TAGGED, [b'If-None-Match: "a"'], id="etag"),
        pytest.param(DATED, [b"If-Modified-Since: " + MODIFIED], id="date"),
        pytest.param(NEITHER, [], id="no-validator"),
        pytest.param(stored_response(b'ETag: W/"a"'), [b'If-None-Match: W/"a"'], id="weak"),
        pytest.param(stored_response(b"ETag: a"), [b"If-None-Match: a"], id="as-the-origin-wrote-it"),
        pytest.param(stored_response(b"Last-Modified: once"), [], id="no-date"),
        pytest.param(stored_response(b"ETag:"), [], id="empty"),
    ],
)
def test_validators_become_conditions(stored, expected):
    assert conditional_request(fields(b"Accept: a/b"), stored) == fields(b"Accept: a/b", *expected)


def test_the_clients_conditions_and_range_stay_here() -> None:
    """They are judged when the answer is there; what comes in place of the stored response is to be whole."""
    asked = fields(
        b'If-None-Match: "x"',
        b"If-Modified-Since: " + LATER,
        b"Cookie: c",
        b'If-Match: "x"',
        b"If-Unmodified-Since: " + LATER,
        b"Range: bytes=0-1",
        b'If-Range: "x"',
    )
    assert conditional_request(asked, TAGGED) == fields(b"Cookie: c", b'If-None-Match: "a"')
    assert conditional_request(asked, NEITHER) == fields(b"Cookie: c")


def test_no_stored_response_leaves_a_plain_request() -> None:
    assert conditional_request(fields(b"Accept: a/b"), None) == fields(b"Accept: a/b")


WEAKLY = stored_response(b'ETag: W/"a"', b"Last-Modified: " + MODIFIED)


@pytest.mark.parametrize(
    ("stored", "lines", "selected"),
    [
        pytest.param(BOTH, [b'ETag: "a"'], True, id="strong-same"),
        pytest.param(BOTH, [b'ETag: "b"'], False, id="strong-another"),
        pytest.param(BOTH, [b'ETag: "a"', b"Last-Modified: " + LATER], True, id="the-etag-decides-for"),
        pytest.param(BOTH, [b'ETag: "b"', b"Last-Modified: " + MODIFIED], False, id="the-etag-decides-against"),
        pytest.param(WEAKLY, [b'ETag: "a"'], False, id="strong-does-not-mean-a-weak-one"),
        pytest.param(DATED, [b'ETag: "a"'], False, id="strong-does-not-mean-one-without"),
        pytest.param(WEAKLY, [b'ETag: W/"a"'], True, id="weak-same"),
        pytest.param(BOTH, [b'ETag: W/"a"'], True, id="weak-means-a-strong-one-too"),
        pytest.param(WEAKLY, [b'ETag: W/"b"'], False, id="weak-another"),
        pytest.param(stored_response(b"ETag: a"), [b"ETag: a"], True, id="malformed-but-the-same"),
        pytest.param(DATED, [b"Last-Modified: " + MODIFIED], True, id="date-same"),
        pytest.param(BOTH, [b"Last-Modified: " + MODIFIED], True, id="date-same-beside-an-etag"),
        pytest.param(DATED, [b"Last-Modified: " + LATER], False, id="date-another"),
        pytest.param(TAGGED, [b"Last-Modified: " + LATER], False, id="date-that-is-not-stored"),
        pytest.param(BOTH, [], True, id="no-validator-answers-the-only-condition"),
        pytest.param(NEITHER, [], True, id="no-validator-on-either-side"),
    ],
)
def test_which_stored_response_a_304_means(stored, lines, selected):
    assert selects(response(*lines, status=304), stored) is selected


@pytest.mark.parametrize(
    ("own_date", "answer", "selected"),
    [
        pytest.param(LATER, [b'ETag: "a"', b"Last-Modified: " + MODIFIED, b"Date: " + LATER], True, id="nginx"),
        pytest.param(LATER, [b'ETag: "b"', b"Last-Modified: " + MODIFIED, b"Date: " + LATER], False, id="another-tag"),
        pytest.param(LATER, [b'ETag: "a"', b"Last-Modified: " + LATER, b"Date: " + LATER], False, id="another-date"),
        pytest.param(LATER, [b'ETag: "a"', b"Last-Modified: " + MODIFIED], False, id="without-a-date-it-is-weak"),
        pytest.param(MODIFIED, [b'ETag: "a"', b"Last-Modified: " + MODIFIED, b"Date: " + LATER], False, id="too-young"),
    ],
)
def test_a_strong_date_tells_which_weak_tag_a_strong_one_stands_for(own_date, answer, selected):
    """nginx weakens the tag of what it compresses, but not in the 304 for it; the body keeps its weak tag."""
    stored = stored_response(b'ETag: W/"a"', b"Last-Modified: " + MODIFIED, b"Date: " + own_date)
    not_modified = response(*answer, status=304)
    assert selects(not_modified, stored) is selected
    if selected:
        freshened = freshen(request(), stored, not_modified, request_time=NOW - 1, response_time=NOW)
        assert freshened.fields.get(b"etag") == b'W/"a"'
