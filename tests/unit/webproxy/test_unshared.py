"""Unshared: for how long, and for how many URLs, it is remembered that their answers are not shared."""

from __future__ import annotations

import pytest

from webproxy import unshared
from webproxy.unshared import UNSHARED_SECONDS, Unshared

NOW = 1000.0


def test_for_a_while() -> None:
    known = Unshared()
    assert not known.holds(b"/x", NOW)
    known.note(b"/x", NOW)
    assert known.holds(b"/x", NOW + UNSHARED_SECONDS - 0.001)
    assert not known.holds(b"/x", NOW + UNSHARED_SECONDS)
    assert not known.holds(b"/y", NOW)


def test_until_it_is_for_everybody() -> None:
    known = Unshared()
    known.note(b"/x", NOW)
    known.forget(b"/x")
    known.forget(b"/never")
    assert not known.holds(b"/x", NOW)


def test_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unshared, "UNSHARED_MAX", 2)
    known = Unshared()
    for key in (b"/1", b"/2", b"/3"):
        known.note(key, NOW)
    assert [known.holds(key, NOW) for key in (b"/1", b"/2", b"/3")] == [False, True, True]
