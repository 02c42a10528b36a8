"""HitForMiss: for how long, and for how many URLs, it is remembered that their responses cannot be shared."""

from __future__ import annotations

import sys

import pytest

from webproxy.fetch import http_fetch
from webproxy.fetch.http_fetch import HIT_FOR_MISS_SECONDS, HitForMiss

NOW = 1000.0


def test_for_a_while() -> None:
    known = HitForMiss()
    assert not known.holds(b"/x", NOW)
    known.note(b"/x", NOW)
    assert known.holds(b"/x", NOW + HIT_FOR_MISS_SECONDS - 0.001)
    assert not known.holds(b"/x", NOW + HIT_FOR_MISS_SECONDS)
    assert not known.holds(b"/y", NOW)


def test_until_it_is_for_everybody() -> None:
    known = HitForMiss()
    known.note(b"/x", NOW)
    known.forget(b"/x")
    known.forget(b"/never")
    assert not known.holds(b"/x", NOW)


def test_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_fetch, "HIT_FOR_MISS_MAX", 2)
    known = HitForMiss()
    for key in (b"/1", b"/2", b"/3"):
        known.note(key, NOW)
    assert [known.holds(key, NOW) for key in (b"/1", b"/2", b"/3")] == [False, True, True]


def test_a_long_url_costs_no_more_than_a_short_one() -> None:
    known, key = HitForMiss(), bytes(4000)
    references = sys.getrefcount(key)
    known.note(key, NOW)
    assert known.holds(key, NOW)
    assert sys.getrefcount(key) == references
