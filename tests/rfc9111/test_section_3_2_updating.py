"""RFC 9111 section 3.2: stored fields, times and lifetimes after a 304."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.http_values import NOW, fields, request, response, stored_response
from webproxy.caching.decision import Action, decide, stale_allowed_on_error
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.caching.validation import barred, freshen, may_keep
from webproxy.http.messages import RequestHead

DATE = b"Date: Sat, 21 Nov 2026 10:00:00 GMT"
OLD_DATE = b"Date: Sat, 21 Nov 2026 09:00:00 GMT"
STORED = stored_response(
    OLD_DATE,
    b'ETag: "a"',
    b"Cache-Control: max-age=60",
    b"Content-Type: a/b",
    b"Content-Length: 5",
    b"Content-Encoding: gzip",
    b"Content-Digest: sha-256=:whole:",
    b"X-Old: 1",
    b"X-Both: old",
    b"X-Both: older",
    reason=b"Fine",
    body_bytes=5,
    selecting=((b"accept", b"a/b"),),
    invalidated=True,
)


def updated(
    *lines: bytes, stored: StoredResponse = STORED, asked: RequestHead | None = None, **others: Any
) -> StoredResponse:
    """By a 304 with these lines that was asked for one second before NOW."""
    answer = response(*lines, status=304)
    return freshen(asked or request(), stored, answer, request_time=NOW - 1, response_time=NOW, **others)


def test_fields_are_replaced_added_and_kept() -> None:
    new = updated(DATE, b'ETag: "a"', b"X-Both: new", b"X-New: 2").fields
    assert new.get_all(b"x-both") == [b"new"]
    assert new.get_all(b"x-new") == [b"2"]
    assert new.get_all(b"x-old") == [b"1"]
    assert new.get_all(b"date") == [b"Sat, 21 Nov 2026 10:00:00 GMT"]
    assert new.get_all(b"cache-control") == [b"max-age=60"]


def test_all_lines_of_a_name_are_replaced_by_all_new_ones() -> None:
    assert updated(DATE, b"X-Both: 1", b"x-both: 2").fields.get_all(b"x-both") == [b"1", b"2"]


def test_a_wrong_content_type_is_put_right() -> None:
    """Its name begins like those of the next test, but no body is received by it."""
    assert updated(DATE, b"Content-Type: c/d").fields.get_all(b"content-type") == [b"c/d"]


@pytest.mark.parametrize(
    "name", [b"Content-Encoding", b"Content-Length", b"Content-Range", b"Content-Digest", b"Content-MD5"]
)
def test_what_the_stored_body_was_received_by_stays(name: bytes) -> None:
    new = updated(DATE, name + b": other")
    assert new.fields.get(name.lower()) == STORED.fields.get(name.lower())
    assert new.body_bytes == 5


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([b"Connection: X-Hop", b"X-Hop: 1"], id="listed-by-Connection"),
        pytest.param([b"X-Hop: 1", b"Keep-Alive: 5", b"connection: close, x-hop"], id="and-the-fixed-ones"),
        pytest.param([b"Proxy-Authenticate: Basic", b"Transfer-Encoding: chunked", b"Age: 3"], id="for-this-cache"),
    ],
)
def test_fields_of_one_connection_are_not_stored(lines: list[bytes]) -> None:
    names = set(updated(DATE, *lines).fields.names())
    assert names == set(STORED.fields.names())


def test_times_age_and_lifetime_begin_anew() -> None:
    new = updated(DATE, b"Cache-Control: max-age=100", b"Age: 7")
    assert (new.request_time, new.response_time) == (NOW - 1, NOW)
    assert new.initial_age_s == 8
    assert new.lifetime_s == 100
    assert not new.invalidated


def test_the_lifetime_comes_from_stored_fields_too() -> None:
    assert updated(DATE).lifetime_s == 60


def test_flags_follow_the_new_directives() -> None:
    new = updated(DATE, b"Cache-Control: no-cache, must-revalidate, stale-if-error=9, stale-while-revalidate=8")
    assert (new.always_validate, new.never_stale, new.lifetime_s) == (True, True, 0)
    assert (new.stale_if_error_s, new.stale_while_revalidate_s) == (9, 8)


def test_status_reason_and_selection_stay() -> None:
    new = updated(DATE)
    assert (new.status, new.reason, new.selecting) == (200, b"Fine", ((b"accept", b"a/b"),))


def test_an_answer_without_date_counts_from_its_arrival() -> None:
    new = updated(b'ETag: "a"')
    assert new.fields.get_all(b"date") == [b"Sat, 21 Nov 2026 10:00:00 GMT"]
    assert new.initial_age_s == 1


def test_a_new_vary_selects_by_the_request_that_validated() -> None:
    asked = request(b"Accept: c/d", b"Cookie: e")
    assert updated(DATE, b"Vary: Cookie", asked=asked).selecting == ((b"cookie", b"e"),)
    same = stored_response(b"Vary: Accept", selecting=((b"accept", b"a/b"),))
    assert updated(DATE, b"Vary: Accept", stored=same, asked=asked).selecting == ((b"accept", b"a/b"),)


def test_a_cookie_is_not_kept_for_others() -> None:
    line = b"Set-Cookie: session=1"
    assert b"set-cookie" not in updated(DATE, line).fields
    assert updated(DATE, line, options=CachingOptions(store_set_cookie=True)).fields.get(b"set-cookie") == b"session=1"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("line", "kept"),
    [
        pytest.param(b"X-New: 1", True, id="nothing-against-it"),
        pytest.param(b"Cache-Control: no-store", False, id="no-store"),
        pytest.param(b"Cache-Control: private", False, id="private"),
        pytest.param(b"Vary: *", False, id="vary-star"),
    ],
)
def test_what_may_not_stay_stored(line: bytes, kept: bool, method: bytes) -> None:
    asked = request(method=method)
    assert may_keep(asked, updated(DATE, line, asked=asked)) is kept


@pytest.mark.parametrize("wishes", [(), (b"Cache-Control: max-stale",), (b"Cache-Control: stale-if-error=600",)])
def test_what_a_304_forbids_to_keep_serves_nobody_else_unasked(wishes: tuple[bytes, ...]) -> None:
    """Neither during a revalidation, nor in place of an error, nor without the origin; nothing of the 304 is kept."""
    stored = stored_response(b'ETag: "a"', stale_while_revalidate_s=600, stale_if_error_s=600)
    left = barred(stored)
    asked = request(*wishes)
    assert decide(asked, left, NOW).action is Action.REVALIDATE
    assert not any(stale_allowed_on_error(asked, left, status, NOW) for status in (None, 503))
    assert left.fields == stored.fields


def test_an_update_leaves_the_old_value_alone() -> None:
    before = STORED.fields.lines
    updated(DATE, b"X-Old: 2")
    assert STORED.fields.lines == before
    assert STORED.fields != fields()
