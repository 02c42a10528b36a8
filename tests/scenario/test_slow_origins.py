"""Misses whose origin is slow: they hold no worker of the cache, and those that ask for objects are served."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.support.client import ask
from tests.support.daemons import DaemonYard
from tests.support.waiting import WATCHDOG_S, wait_until
from workloads.origin_stub import OriginStub, Route

BODY = os.urandom(700_001)
SLOW = 12


def test_bodies_that_stand_still_in_the_middle_leave_the_caches_workers_to_hits(yard: DaemonYard) -> None:
    """More fills than the cache has workers, with segments for all of them."""
    yard.start_cache("-t", "2", "--store-bytes", "64m")
    gate = threading.Event()
    slow = {f"/slow-{n}": Route(body=BODY, hold=gate, hold_at=400_000) for n in range(SLOW)}
    with OriginStub({"/hit": Route(body=BODY), **slow}) as origin, ExitStack() as ending:
        proxy = yard.start_proxy("-s", origin.url, "-t", "16", "-n", "32", "-z", "64k")
        wait_until(lambda: ask(proxy.port, "/hit").body == BODY and ask(proxy.port, "/hit").body == BODY)
        crew = ending.enter_context(ThreadPoolExecutor(SLOW))
        ending.callback(gate.set)
        answers = [crew.submit(ask, proxy.port, path) for path in slow]
        for route in slow.values():
            assert route.reached.wait(WATCHDOG_S)
        before = origin.count("/hit")
        for _ in range(5):
            assert ask(proxy.port, "/hit").body == BODY
        assert origin.count("/hit") == before
        gate.set()
        assert [answer.result(WATCHDOG_S).body for answer in answers] == [BODY] * SLOW

        def is_stored(path: str) -> bool:
            asked = origin.count(path)
            return ask(proxy.port, path).body == BODY and origin.count(path) == asked

        for path in slow:
            wait_until(lambda path=path: is_stored(path), what=f"{path} in the cache")
        assert all(origin.count(path) == 1 for path in slow)
    assert proxy.stop() == 0
