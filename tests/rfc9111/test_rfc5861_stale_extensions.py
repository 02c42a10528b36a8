"""RFC 5861: stale-while-revalidate (section 3) and stale-if-error (section 4)."""

from dataclasses import replace

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, action_after, decision_after, kept
from tests.support.http_values import NOW, request
from webproxy.caching.decision import ERROR_STATUSES, Action, stale_allowed_on_error
from webproxy.caching.options import CachingOptions

HIT, STALE_HIT, REVALIDATE, FETCH = Action.HIT, Action.STALE_HIT, Action.REVALIDATE, Action.FETCH
MEANWHILE = kept(b"Cache-Control: max-age=60, stale-while-revalidate=30", ETAG)
ON_ERROR = kept(b"Cache-Control: max-age=60, stale-if-error=30", ETAG)


@pytest.mark.parametrize(
    ("seconds", "action"), [(59.9, HIT), (60, STALE_HIT), (89.9, STALE_HIT), (90, REVALIDATE), (1000, REVALIDATE)]
)
def test_stale_while_revalidate(seconds: float, action: Action) -> None:
    assert action_after(seconds, MEANWHILE) is action


def test_its_age_is_told() -> None:
    assert decision_after(70, MEANWHILE).age_s == 70


def test_it_needs_no_validator() -> None:
    stored = kept(b"Cache-Control: max-age=60, stale-while-revalidate=30")
    assert action_after(70, stored) is STALE_HIT
    assert action_after(90, stored) is FETCH


def test_the_window_begins_where_freshness_ends() -> None:
    stored = kept(b"Cache-Control: max-age=60, stale-while-revalidate=30", DATE, b"Age: 50", ETAG)
    assert action_after(9, stored) is HIT
    assert action_after(10, stored) is STALE_HIT
    assert action_after(40, stored) is REVALIDATE


@pytest.mark.parametrize(
    ("control", "action"),
    [
        (b"no-cache", REVALIDATE),
        (b"max-age=0", REVALIDATE),
        (b"max-age=600", REVALIDATE),
        (b"min-fresh=0", REVALIDATE),
        (b"max-stale=5", REVALIDATE),
        (b"max-stale=15", HIT),
        (b"max-age=600, max-stale=15", HIT),
        (b"only-if-cached", STALE_HIT),
        (b"no-store", STALE_HIT),
        (b"max-stale=x", STALE_HIT),
    ],
)
def test_what_the_client_asks_goes_before_it(control: bytes, action: Action) -> None:
    assert action_after(70, MEANWHILE, b"Cache-Control: " + control) is action


def test_what_a_soft_purge_has_invalidated_does_not_serve_meanwhile() -> None:
    for seconds in (1, 70):
        assert action_after(seconds, replace(MEANWHILE, invalidated=True)) is REVALIDATE


@pytest.mark.parametrize("value", [b"0", b"x", b"-5", b""])
def test_no_window(value: bytes) -> None:
    assert action_after(60, kept(b"Cache-Control: max-age=60, stale-while-revalidate=" + value, ETAG)) is REVALIDATE


@pytest.mark.parametrize("status", sorted(ERROR_STATUSES))
@pytest.mark.parametrize(("seconds", "expected"), [(61, True), (89.9, True), (90, False)])
def test_stale_if_error(status: int, seconds: float, expected: bool) -> None:
    assert stale_allowed_on_error(request(), ON_ERROR, status, NOW + seconds) is expected
    assert action_after(seconds, ON_ERROR) is REVALIDATE


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (b"stale-if-error=60", True),
        (b"stale-if-error=39", False),
        (b"stale-if-error=41", True),
        (b"stale-if-error", False),
        (b"max-age=0", False),
    ],
)
def test_a_request_may_ask_for_it(control: bytes, expected: bool) -> None:
    asked = request(b"Cache-Control: " + control)
    assert stale_allowed_on_error(asked, kept(b"Cache-Control: max-age=60"), 500, NOW + 100) is expected


def test_the_longer_window_of_the_two_counts() -> None:
    for seconds, control, expected in ((80, b"1", True), (100, b"60", True), (100, b"1", False)):
        asked = request(b"Cache-Control: stale-if-error=" + control)
        assert stale_allowed_on_error(asked, ON_ERROR, 500, NOW + seconds) is expected


def test_no_cache_of_the_request_goes_before_it() -> None:
    asked = request(b"Cache-Control: no-cache, stale-if-error=600")
    assert not stale_allowed_on_error(asked, ON_ERROR, 503, NOW + 61)


@pytest.mark.parametrize("status", [200, 304, 404, 429, 501, 505])
def test_what_is_no_error(status: int) -> None:
    assert not stale_allowed_on_error(request(), ON_ERROR, status, NOW + 61)


def test_disconnected_is_an_error_too() -> None:
    options = CachingOptions(stale_if_disconnected_s=0)
    assert stale_allowed_on_error(request(), ON_ERROR, None, NOW + 89, options)
    assert not stale_allowed_on_error(request(), ON_ERROR, None, NOW + 90, options)


def test_a_default_of_the_operator() -> None:
    options = CachingOptions(stale_if_error_default_s=30)
    stored = kept(b"Cache-Control: max-age=60", options=options)
    assert stale_allowed_on_error(request(), stored, 503, NOW + 89, options)
    named = kept(b"Cache-Control: max-age=60, stale-if-error=0", options=options)
    assert not stale_allowed_on_error(request(), named, 503, NOW + 61, options)
