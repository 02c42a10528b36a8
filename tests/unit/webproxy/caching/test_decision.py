"""decision: each action with all that it carries; the rules behind them are in tests/rfc9111."""

import math
from dataclasses import replace

import pytest

from tests.rfc9111.exchanges import ETAG, HOUR_AGO, decision_after, kept
from tests.support.http_values import NOW, request
from webproxy.caching.decision import Action, Decision, answers_waiting, decide, stale_allowed_on_error
from webproxy.caching.options import CachingOptions
from webproxy.caching.stored import StoredResponse
from webproxy.http.messages import Framing

MINUTE = b"Cache-Control: max-age=60"
DAY_S = 86_400


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-5.0, Decision(Action.HIT, b"", 0)),
        (0.0, Decision(Action.HIT, b"", 0)),
        (59.99, Decision(Action.HIT, b"", 59)),
        (60.0, Decision(Action.REVALIDATE, b"stale", 60)),
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
    assert decision_after(61, kept(MINUTE, *lines)) == Decision(action, b"stale", 61)


INVALIDATED = replace(kept(MINUTE, ETAG), invalidated=True)


NEVER = -math.inf


def limits(stored: StoredResponse, *wishes: bytes) -> tuple[float, float]:
    """How many seconds after NOW it may serve for a 503, and without any answer; to the second."""
    asked = request(*wishes)
    moments = [*range(200), *range(DAY_S, DAY_S + 200)]
    on_error = [second + 1 for second in moments if stale_allowed_on_error(asked, stored, 503, NOW + second)]
    alone = [second + 1 for second in moments if stale_allowed_on_error(asked, stored, None, NOW + second)]
    return max(on_error, default=NEVER), max(alone, default=NEVER)


@pytest.mark.parametrize(
    ("changes", "wishes", "action", "until"),
    [
        ({}, (), Action.REVALIDATE, (NEVER, 60 + DAY_S)),
        ({"stale_if_error_s": 9}, (), Action.REVALIDATE, (69, 60 + DAY_S)),
        ({"never_stale": True}, (), Action.REVALIDATE, (NEVER, NEVER)),
        ({"stale_while_revalidate_s": 9}, (), Action.REVALIDATE, (NEVER, 60 + DAY_S)),
        ({}, (b"Cache-Control: max-stale",), Action.REVALIDATE, (NEVER, 60 + DAY_S)),
        ({}, (b"Cache-Control: only-if-cached",), Action.ONLY_IF_CACHED_MISS, (NEVER, 60 + DAY_S)),
    ],
)
def test_an_invalidated_response_is_stale(
    changes: dict[str, int], wishes: tuple[bytes, ...], action: Action, until: tuple[float, float]
) -> None:
    stored = replace(INVALIDATED, **changes)
    assert decision_after(5, stored, *wishes) == Decision(action, b"stale", 5)
    assert limits(stored, *wishes) == until


def test_a_fresh_response_that_the_request_refuses_still_serves_on_an_error() -> None:
    wish, refused = b"Cache-Control: max-age=0", Decision(Action.REVALIDATE, b"request", 5)
    stored, never_stale = kept(MINUTE, ETAG), kept(b"Cache-Control: s-maxage=60", ETAG)
    assert decision_after(5, stored, wish) == decision_after(5, never_stale, wish) == refused
    assert limits(stored, wish) == (60, 60 + DAY_S)
    assert limits(never_stale, wish) == (60, 60)
    demand = b"Cache-Control: no-cache"
    assert decision_after(5, stored, demand) == refused
    assert limits(stored, demand) == (NEVER, NEVER)


@pytest.mark.parametrize("status", [200, 304, 400, 404, 429, 499, 501, 505, 511])
def test_other_statuses_are_no_errors(status: int) -> None:
    assert not stale_allowed_on_error(request(), kept(MINUTE + b", stale-if-error=60"), status, NOW + 70)


@pytest.mark.parametrize(("limit_s", "expected"), [(0, False), (9, False), (10, False), (11, True)])
def test_the_limit_of_the_operator(limit_s: int, expected: bool) -> None:
    options = CachingOptions(stale_if_disconnected_s=limit_s)
    assert stale_allowed_on_error(request(), kept(MINUTE), None, NOW + 70, options) is expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Cache-Control: max-age=60", True),
        (b"Cache-Control: max-age=0", True),
        (b"Expires: 0", True),
        (b"X: no lifetime at all", True),
        (b"Cache-Control: no-cache", False),
        (b"Cache-Control: max-age=0, must-revalidate", False),
        (b"Cache-Control: s-maxage=0", False),
        (b"Age: 1", True),
        (b"Age: 20", False),
    ],
)
def test_what_serves_those_who_waited_for_it(line: bytes, expected: bool) -> None:
    stored = kept(line, ETAG, delay_s=1.5)
    assert answers_waiting(request(), stored, stored.response_time - 0.1) is expected
    assert not answers_waiting(request(), stored, stored.response_time + 0.1)


@pytest.mark.parametrize(
    "line", [b"Cookie: a=b", b"Authorization: x", b"Cache-Control: max-age=0", b"Pragma: no-cache"]
)
def test_who_waits_for_a_response_of_his_own(line: bytes) -> None:
    assert not answers_waiting(request(line), kept(MINUTE, ETAG), NOW)


@pytest.mark.parametrize("wish", [b"max-age=0", b"no-cache", b"no-store", b"min-fresh=4000000000", b"only-if-cached"])
def test_a_file_that_the_cache_has_just_looked_at_needs_no_origin(wish: bytes) -> None:
    stored = replace(kept(MINUTE, ETAG), authoritative=True)
    assert decision_after(5.0, stored, b"Cache-Control: " + wish) == Decision(Action.HIT, b"", 5)
