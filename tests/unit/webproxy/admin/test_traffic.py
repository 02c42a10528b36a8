"""The kinds of traffic: every outcome and status has one, and the ratios are those of what was answered."""

from __future__ import annotations

import pytest

from webproxy.admin.traffic import KINDS, kind_of, traffic_as_json, traffic_of
from webproxy.telemetry.metrics import FROM_CACHE, FROM_ORIGIN, OUTCOMES, STATUSES


@pytest.mark.parametrize(
    ("outcome", "status", "kind"),
    [
        ("hot", "2xx", "cache"),
        ("revalidated", "3xx", "cache"),
        ("collapsed", "2xx", "origin"),
        ("purged", "2xx", "own"),
        ("miss", "4xx", "client"),
        ("pass", "none", "client"),
        ("given_up", "2xx", "client"),
        ("client_gone", "2xx", "client"),
        ("pass", "5xx", "server"),
        ("cut_short", "2xx", "server"),
        ("error", "none", "server"),
    ],
)
def test_the_kind_of_a_request(outcome: str, status: str, kind: str) -> None:
    assert kind_of(outcome, status) == kind


def test_each_request_has_one_kind_and_what_was_answered_is_a_hit_or_not() -> None:
    rows = {("http", outcome, status): 1.0 for outcome in OUTCOMES for status in STATUSES}
    found = traffic_of(rows, {("cache",): 30.0, ("origin",): 10.0, ("proxy",): 5.0})
    assert set(found.requests) == set(KINDS)
    assert found.requests_total == len(rows)
    hits, misses = 2 * len(FROM_CACHE), 2 * len(FROM_ORIGIN)
    assert found.hit_ratio == hits / (hits + misses)
    assert (found.byte_hit_ratio, found.sent_total) == (0.75, 45)


def test_saved_is_what_no_origin_was_asked_for() -> None:
    numbers = {"hot": 1.0, "hit": 2.0, "stale": 4.0, "collapsed": 8.0, "revalidated": 16.0, "miss": 32.0, "pass": 64.0}
    found = traffic_of({("http", outcome, "2xx"): number for outcome, number in numbers.items()}, {})
    assert found.saved_requests == 15


def test_of_nothing_there_are_no_ratios() -> None:
    plain = traffic_as_json(traffic_of({}, {}))
    assert (plain["hit_ratio"], plain["byte_hit_ratio"], plain["saved_requests"]) == (None, None, 0)
    assert plain["requests"] == dict.fromkeys(KINDS, 0)
    assert {outcome for outcome, kind in plain["kinds"].items() if kind == "cache"} == FROM_CACHE
