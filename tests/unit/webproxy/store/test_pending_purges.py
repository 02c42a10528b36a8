"""PendingPurges: what the cache was not told is withheld until it was told twice; too many become one of everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webproxy.store import pending_purges
from webproxy.store.pending_purges import EVERYTHING, SETTLE_SECONDS, PendingPurges, Purge

X = Purge(b"/x", below=True)


def tell(pending: PendingPurges, now: float) -> list[Purge]:
    """Tell all that is due and possible; returns it."""
    told = [one for one in pending.due(now) if one.is_possible()]
    for one in told:
        pending.told(one, now)
    return [one.purge for one in told]


@pytest.mark.parametrize("key", [b"/x", b"/x\0", b"/x\0partial"])
def test_a_key_and_all_below_it_are_withheld_until_it_was_told_twice(key: bytes) -> None:
    pending = PendingPurges()
    assert not pending.withholds(key)
    pending.add(X, 5.0)
    assert pending.withholds(key)
    assert not pending.withholds(b"/xy")
    assert tell(pending, 5.0) == [X]
    assert pending.withholds(key), "what was being stored may become visible after the first time"
    assert tell(pending, 5.0) == []
    assert tell(pending, 5.0 + SETTLE_SECONDS) == [X]
    assert not pending.withholds(key)
    assert len(pending) == 0


def test_one_that_is_asked_for_anew_on_its_way_is_told_twice_again() -> None:
    pending = PendingPurges()
    pending.add(X, 0.0)
    tell(pending, 0.0)
    (on_its_way,) = pending.due(SETTLE_SECONDS)
    pending.add(X, SETTLE_SECONDS)
    pending.told(on_its_way, SETTLE_SECONDS)
    assert pending.withholds(b"/x")
    assert tell(pending, SETTLE_SECONDS) == [X]
    assert tell(pending, 2 * SETTLE_SECONDS) == [X]
    assert not pending.withholds(b"/x")


def test_it_is_not_told_before_the_obstacle_is_gone_even_if_asked_for_anew() -> None:
    pending, gone = PendingPurges(), False
    pending.add(X, 0.0, lambda: gone)
    pending.add(X, 0.0)
    assert tell(pending, 9.0) == []
    gone = True
    assert tell(pending, 9.0) == [X]


def test_two_of_one_key_are_independent() -> None:
    pending = PendingPurges()
    pending.add(X, 0.0)
    pending.add(Purge(b"/x\0", prefix=True), SETTLE_SECONDS)
    tell(pending, 0.0)
    assert len(tell(pending, SETTLE_SECONDS)) == 2
    assert pending.withholds(b"/x")
    tell(pending, 2 * SETTLE_SECONDS)
    assert not pending.withholds(b"/x")


def test_too_many_become_one_of_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_purges, "PENDING_MAX", 2)
    pending, gone = PendingPurges(), False
    assert not pending.add(Purge(b"/a"), 0.0, lambda: gone)
    assert not pending.add(Purge(b"/b"), 0.0)
    assert not pending.add(Purge(b"/b"), 0.0), "known"
    assert pending.add(Purge(b"/c"), 0.0)
    assert pending.withholds(b"/never purged")
    assert not pending.add(Purge(b"/d"), 0.0), "said already"
    assert len(pending) == 1
    assert tell(pending, 0.0) == [], "what one of them waits for, it waits for"
    gone = True
    assert tell(pending, 0.0) == [EVERYTHING]
    assert pending.withholds(b"/never purged")
    assert tell(pending, SETTLE_SECONDS) == [EVERYTHING]
    assert not pending.withholds(b"/a")
    assert len(pending) == 0


@given(st.lists(st.tuples(st.sampled_from([b"/a", b"/b", b"/c"]), st.booleans()), max_size=20))
def test_nothing_is_withheld_longer_than_it_is_pending(steps: list[tuple[bytes, bool]]) -> None:
    pending, now = PendingPurges(), 0.0
    for key, is_asked in steps:
        now += SETTLE_SECONDS / 2
        if is_asked:
            pending.add(Purge(key, below=True), now)
        else:
            tell(pending, now)
        for one in (b"/a", b"/b", b"/c"):
            is_due = Purge(one, below=True) in {one.purge for one in pending.due(now + 2 * SETTLE_SECONDS)}
            assert pending.withholds(one) is is_due
    for _ in range(2):
        now += SETTLE_SECONDS
        tell(pending, now)
    assert not pending
    assert not pending.withholds(b"/a")
