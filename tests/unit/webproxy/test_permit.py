"""StorePermit: after it was withdrawn nothing is stored, and withdrawing waits for what is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.permit import StorePermit


def test_it_is_granted_until_it_is_withdrawn() -> None:
    permit = StorePermit()
    for _ in range(2):
        with permit.use() as granted:
            assert granted
    assert permit.withdraw(0.0)
    assert permit.withdrawn
    with permit.use() as granted:
        assert not granted


def test_who_withdraws_waits_for_the_one_use_that_runs() -> None:
    permit = StorePermit()
    with ThreadPoolExecutor(1) as crew:
        with permit.use() as granted:
            assert granted
            purge = crew.submit(permit.withdraw, WATCHDOG_S)
            wait_until(lambda: permit.withdrawn)
            assert not purge.done()
        assert purge.result(WATCHDOG_S)


def test_it_does_not_wait_for_ever() -> None:
    permit = StorePermit()
    with permit.use():
        assert not permit.withdraw(0.0)
        assert not permit.withdraw(-1.0)


def test_a_use_that_fails_is_over() -> None:
    permit = StorePermit()
    with pytest.raises(ZeroDivisionError), permit.use():
        raise ZeroDivisionError
    assert permit.withdraw(0.0)
