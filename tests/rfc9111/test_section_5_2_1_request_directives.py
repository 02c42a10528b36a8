"""RFC 9111 sections 5.2.1 and 5.4: what a client may ask of the cache."""

import pytest

from tests.rfc9111.exchanges import DATE, ETAG, action_after, decision_after, kept
from tests.support.http_values import NOW, request
from webproxy.caching.decision import Action, Decision, decide

HIT, REVALIDATE, PASS, MISS_504 = Action.HIT, Action.REVALIDATE, Action.PASS, Action.ONLY_IF_CACHED_MISS
STORED = kept(b"Cache-Control: max-age=60", ETAG)


def asking(seconds: float, control: bytes) -> Action:
    return action_after(seconds, STORED, b"Cache-Control: " + control)


@pytest.mark.parametrize(
    ("seconds", "control", "action"),
    [
        pytest.param(10, b"max-age=10", HIT, id="no older than that"),
        pytest.param(10.5, b"max-age=10", REVALIDATE, id="a little older"),
        pytest.param(11, b"max-age=10", REVALIDATE, id="older"),
        pytest.param(0, b"max-age=0", REVALIDATE, id="a reload"),
        pytest.param(0.5, b"max-age=0", REVALIDATE, id="a reload in the first second"),
        pytest.param(5, b"max-age=x", REVALIDATE, id="no number is 0"),
        pytest.param(5, b"max-age=600", HIT, id="more than it will ever be"),
        pytest.param(61, b"max-age=600", REVALIDATE, id="allows nothing stale"),
        pytest.param(61, b"max-age=600, max-stale=10", HIT, id="but together with max-stale"),
        pytest.param(61, b"max-age=10, max-stale=10", REVALIDATE, id="which does not make it younger"),
        (60, b"max-stale", HIT),
        (1_000_000, b"max-stale", HIT),
        (70, b"max-stale=10", HIT),
        (70.5, b"max-stale=10", REVALIDATE),
        (60, b"max-stale=0", HIT),
        (5, b"max-stale=0", HIT),
        (0, b"min-fresh=60", HIT),
        (30, b"min-fresh=30", HIT),
        (30.5, b"min-fresh=30", REVALIDATE),
        (5, b"min-fresh=2000", REVALIDATE),
        (5, b"min-fresh=x", HIT),
        (65, b"min-fresh=5, max-stale=100", REVALIDATE),
        (5, b"only-if-cached", HIT),
        (65, b"only-if-cached", MISS_504),
        (65, b"only-if-cached, max-stale=10", HIT),
        (5, b"only-if-cached, no-cache", MISS_504),
        (5, b"only-if-cached, max-age=1", MISS_504),
        (5, b"only-if-cached, min-fresh=100", MISS_504),
        (65, b"only-if-cached, no-store", MISS_504),
    ],
)
def test_age_and_only_if_cached(seconds: float, control: bytes, action: Action) -> None:
    assert asking(seconds, control) is action


def test_min_fresh_counts_the_age_it_came_with() -> None:
    stored = kept(b"Cache-Control: max-age=1500", DATE, b"Age: 1000", ETAG)
    assert action_after(0, stored, b"Cache-Control: min-fresh=500") is HIT
    assert action_after(0, stored, b"Cache-Control: min-fresh=501") is REVALIDATE


@pytest.mark.parametrize("wish", [b"Cache-Control: no-cache", b"Cache-Control: NO-CACHE, max-stale"])
def test_no_cache(wish: bytes) -> None:
    assert decision_after(5, STORED, wish)[:2] == (REVALIDATE, b"request")
    assert decision_after(65, STORED, wish)[:2] == (REVALIDATE, b"stale")


def test_no_cache_and_nothing_to_validate_with() -> None:
    stored = kept(b"Cache-Control: max-age=60")
    assert decision_after(5, stored, b"Cache-Control: no-cache")[:2] == (Action.FETCH, b"request")


def test_no_store_gets_what_is_stored_and_leaves_nothing() -> None:
    """Section 5.2.1.5 forbids to store its answer, not to use one that is stored."""
    assert asking(5, b"no-store") is HIT
    assert asking(65, b"no-store") is PASS
    assert asking(5, b"no-store, no-cache") is PASS
    assert decide(request(b"Cache-Control: no-store"), None, NOW).action is PASS


def test_only_if_cached_without_a_stored_response() -> None:
    expected = Decision(MISS_504, b"uri-miss")
    assert decide(request(b"Cache-Control: only-if-cached"), None, NOW) == expected


@pytest.mark.parametrize("control", [b"no-transform", b"unknown", b"public", b"must-revalidate", b's="no-cache"', b""])
def test_other_directives_change_nothing(control: bytes) -> None:
    assert asking(5, control) is HIT
    assert asking(65, control) is REVALIDATE
