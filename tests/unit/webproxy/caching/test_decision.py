"""decision: each action with all that it carries; the rules behind them are in tests/rfc9111."""

from dataclasses import replace

import pytest

from tests.rfc9111.exchanges import ETAG, HOUR_AGO, decision_after, kept
from tests.support.http_values import NOW, request
from webproxy.caching.decision import Action, Decision, decide, stale_allowed_on_error
from webproxy.caching.options import CachingOptions
from webproxy.http.messages import Framing

MINUTE = b"Cache-Control: max-age=60"
DAY_S = 86_400


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5.0, Decision(Action.HIT, b"", 0)),
        (0.0, Decision(Action.HIT, b"", 0)),
        (59.99, Decision(Action.HIT, b"", 59)),
        (60.0, Decision(Action.REVALIDATE, b"stale", 60, NOW + 60, NOW + 60 + DAY_S)),
    ],
)
def test_fresh_then_stale(seconds: float, expected: Decision) -> None:
    assert decision_after(seconds, kept(MINUTE, ETAG)) == expected


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_methods_that_are_answered(method: bytes) -> None:
    assert decide(request(method=method), kept(MINUTE), NOW) == Decision(Action.HIT, b"", 0)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get", b"BREW"])
def test_methods_that_are_passed(method: bytes) -> None:
    assert decide(request(method=method), kept(MINUTE), NOW) == Decision(Action.PASS, b"method")
    assert decide(request(method=method), None, NOW) == Decision(Action.PASS, b"method")


@pytest.mark.parametrize(
    ("framing", "length", "expected"),
    [
        (Framing.CHUNKED, 0, Decision(Action.PASS, b"bypass")),
        (Framing.LENGTH, 3, Decision(Action.PASS, b"bypass")),
        (Framing.LENGTH, 0, Decision(Action.HIT)),
    ],
)
def test_a_request_with_content_is_passed(framing: Framing, length: int, expected: Decision) -> None:
    assert decide(replace(request(), framing=framing, content_length=length), kept(MINUTE), NOW) == expected


@pytest.mark.parametrize(
    ("wishes", "other_variants", "expected"),
    [
        ((), False, Decision(Action.FETCH, b"uri-miss")),
        ((), True, Decision(Action.FETCH, b"vary-miss")),
        ((b"Cache-Control: no-cache",), False, Decision(Action.FETCH, b"uri-miss")),
        ((b"Cache-Control: no-store",), False, Decision(Action.PASS, b"uri-miss")),
        ((b"Cache-Control: only-if-cached",), True, Decision(Action.ONLY_IF_CACHED_MISS, b"vary-miss")),
        ((b"Cache-Control: only-if-cached, no-store",), False, Decision(Action.ONLY_IF_CACHED_MISS, b"uri-miss")),
    ],
)
def test_misses(wishes: tuple[bytes, ...], other_variants: bool, expected: Decision) -> None:
    assert decide(request(*wishes), None, NOW, other_variants=other_variants) == expected


@pytest.mark.parametrize(
    ("lines", "action"),
    [
        ((), Action.FETCH),
        ((ETAG,), Action.REVALIDATE),
        ((b"Last-Modified: " + HOUR_AGO,), Action.REVALIDATE),
        ((b"Last-Modified: 0",), Action.FETCH),
    ],
)
def test_what_has_no_validator_is_fetched(lines: tuple[bytes, ...], action: Action) -> None:
    expected = Decision(action, b"stale", 61, NOW + 60, NOW + 60 + DAY_S)
    assert decision_after(61, kept(MINUTE, *lines)) == expected


MARKED = replace(kept(MINUTE, ETAG), invalidated=True)


@pytest.mark.parametrize(
    ("changes", "wishes", "expected"),
    [
        ({}, (), Decision(Action.REVALIDATE, b"stale", 5, 0.0, NOW + 60 + DAY_S)),
        ({"stale_if_error_s": 9}, (), Decision(Action.REVALIDATE, b"stale", 5, NOW + 69, NOW + 60 + DAY_S)),
        ({"never_stale": True}, (), Decision(Action.REVALIDATE, b"stale", 5, 0.0, 0.0)),
        (
            {"stale_while_revalidate_s": 9},
            (),
            Decision(Action.REVALIDATE, b"stale", 5, 0.0, NOW + 60 + DAY_S),
        ),
        ({}, (b"Cache-Control: max-stale",), Decision(Action.REVALIDATE, b"stale", 5, 0.0, NOW + 60 + DAY_S)),
        ({}, (b"Cache-Control: only-if-cached",), Decision(Action.ONLY_IF_CACHED_MISS, b"stale", 5)),
    ],
)
def test_a_marked_response_is_stale(changes: dict[str, int], wishes: tuple[bytes, ...], expected: Decision) -> None:
    assert decision_after(5, replace(MARKED, **changes), *wishes) == expected


def test_a_fresh_response_that_the_request_refuses_still_serves_on_an_error() -> None:
    wish = b"Cache-Control: max-age=0"
    expected = Decision(Action.REVALIDATE, b"request", 5, NOW + 60, NOW + 60 + DAY_S)
    assert decision_after(5, kept(MINUTE, ETAG), wish) == expected
    never_stale = decision_after(5, kept(b"Cache-Control: s-maxage=60", ETAG), wish)
    assert never_stale == Decision(Action.REVALIDATE, b"request", 5, NOW + 60, NOW + 60)
    demanded = decision_after(5, kept(MINUTE, ETAG), b"Cache-Control: no-cache")
    assert demanded == Decision(Action.REVALIDATE, b"request", 5, 0.0, 0.0)


@pytest.mark.parametrize(
    "control", [b"max-age=0", b"no-cache", b"min-fresh=60", b"only-if-cached", b"stale-if-error=9"]
)
@pytest.mark.parametrize("seconds", [5, 65, 100, DAY_S + 61])
@pytest.mark.parametrize("answer", [b"", b", stale-if-error=30", b", must-revalidate", b", no-cache"])
def test_the_two_ways_to_ask_about_errors_agree(control: bytes, seconds: int, answer: bytes) -> None:
    stored, asked = kept(MINUTE + answer, ETAG), request(b"Cache-Control: " + control)
    decision = decide(asked, stored, NOW + seconds)
    if decision.action in (Action.REVALIDATE, Action.FETCH):
        now = NOW + seconds
        assert stale_allowed_on_error(asked, stored, 503, now) is (now < decision.stale_if_error_until_time)
        assert stale_allowed_on_error(asked, stored, None, now) is (now < decision.stale_if_disconnected_until_time)
    else:
        assert decision.action in (Action.HIT, Action.ONLY_IF_CACHED_MISS)


@pytest.mark.parametrize("status", [200, 304, 400, 404, 429, 499, 501, 505, 511])
def test_other_statuses_are_no_errors(status: int) -> None:
    assert not stale_allowed_on_error(request(), kept(MINUTE + b", stale-if-error=60"), status, NOW + 70)


@pytest.mark.parametrize(("limit_s", "expected"), [(0, False), (9, False), (10, False), (11, True)])
def test_the_limit_of_the_operator(limit_s: int, expected: bool) -> None:
    options = CachingOptions(stale_if_disconnected_s=limit_s)
    assert stale_allowed_on_error(request(), kept(MINUTE), None, NOW + 70, options) is expected


@pytest.mark.parametrize("wish", [b"max-age=0", b"no-cache", b"no-store", b"min-fresh=4000000000", b"only-if-cached"])
def test_a_file_that_the_cache_has_just_looked_at_needs_no_origin(wish: bytes) -> None:
    stored = replace(kept(MINUTE, ETAG), authoritative=True)
    assert decision_after(5.0, stored, b"Cache-Control: " + wish) == Decision(Action.HIT, b"", 5)
