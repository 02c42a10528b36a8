"""StoreToken: after it was revoked nothing is stored, and revoking it waits for what is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.store.fill import StoreToken


def test_it_is_granted_until_it_is_revoked() -> None:
    token = StoreToken()
    for _ in range(2):
        with token.use() as granted:
            assert granted
    assert token.revoke(0.0)
    assert token.revoked
    with token.use() as granted:
        assert not granted


def test_who_revokes_waits_for_the_one_use_that_runs() -> None:
    token = StoreToken()
    with ThreadPoolExecutor(1) as crew:
        with token.use() as granted:
            assert granted
            purge = crew.submit(token.revoke, WATCHDOG_S)
            wait_until(lambda: token.revoked)
            assert not purge.done()
        assert purge.result(WATCHDOG_S)


def test_it_does_not_wait_for_ever() -> None:
    token = StoreToken()
    with token.use():
        assert not token.revoke(0.0)
        assert not token.revoke(-1.0)


def test_a_use_that_fails_is_over() -> None:
    token = StoreToken()
    with pytest.raises(ZeroDivisionError), token.use():
        raise ZeroDivisionError
    assert token.revoke(0.0)
