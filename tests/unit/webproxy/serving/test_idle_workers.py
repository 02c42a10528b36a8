"""IdleWorkers: one event wakes one sleeper, no event is lost, and more are awake when those wait for something."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.serving.acceptor import WorkerDemand
from webproxy.serving.idle_workers import AWAKE_MIN, AWAKE_MIN_OF_SEVERAL, AwakeLimit, IdleWorkers
from webproxy.transport import sockets


class Source:
    """Work that is counted: each worker takes one piece, and keeps it until it is told to go on."""

    def __init__(self, count: int) -> None:
        self.workers = IdleWorkers(count)
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
        self.workers.add(self.fd)
        self.goes_on = threading.Semaphore(0)
        self.taken: list[int] = []
        self.looks = 0
        self.is_ending = False

    def offer(self, count: int = 1) -> None:
        for _ in range(count):
            sockets.raise_event(self.fd)

    def work(self, index: int) -> None:
        """As a worker of the proxy."""
        while not self.is_ending:
            if not self._take(index):
                self.workers.sleep(index, 2 * WATCHDOG_S)
                self.looks += 1
                is_taken = self._take(index, shares=True)
                if not is_taken:
                    continue
            self.goes_on.acquire()

    def _take(self, index: int, *, shares: bool = False) -> bool:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            is_taken = False
        else:
            is_taken = True
            self.taken.append(index)
        if shares:
            self.workers.share()
        return is_taken


@contextmanager
def working(count: int) -> Iterator[Source]:
    source = Source(count)
    source.workers.start()
    with ThreadPoolExecutor(count) as crew:
        jobs = [crew.submit(source.work, index) for index in range(count)]
        wait_until(lambda: source.workers.awake == 0, what="all sleep")
        try:
            yield source
        finally:
            source.is_ending = True
            source.goes_on.release(100 * count)
            source.workers.end()
            for job in jobs:
                job.result(WATCHDOG_S)
    source.workers.close()
    os.close(source.fd)


def test_each_piece_of_work_wakes_a_worker() -> None:
    with working(4) as source:
        for count in range(1, 5):
            source.offer()
            wait_until(lambda count=count: len(source.taken) == count, what="it is taken")
        assert sorted(source.taken) == [0, 1, 2, 3]
        source.offer(2)  # while all are busy
        source.goes_on.release(2)
        wait_until(lambda: len(source.taken) == 6, what="who becomes free takes it")


def test_what_comes_at_once_is_shared() -> None:
    with working(4) as source:
        source.offer(3)
        wait_until(lambda: len(source.taken) == 3, what="each has one")
        assert len(set(source.taken)) == 3


def test_one_piece_wakes_no_more_than_one_worker() -> None:
    with working(8) as source:
        for count in range(1, 51):
            source.offer()
            wait_until(lambda count=count: len(source.taken) == count, what="it is taken")
            source.goes_on.release()
            wait_until(lambda: source.workers.awake == 0, what="it sleeps again")
        assert source.looks == 50


def test_no_wake_up_is_lost_between_two_that_fall_asleep() -> None:
    with working(3) as source:
        source.goes_on.release(1000)
        for count in range(1, 301):
            source.offer()
            wait_until(lambda count=count: len(source.taken) == count, what="it is taken")


def test_when_as_many_as_may_be_awake_only_wait_more_are_woken() -> None:
    count = AWAKE_MIN + 4
    with working(count) as source:
        source.offer(count)
        wait_until(lambda: len(source.taken) == count, what="the lookout lets all of them run")
        assert len(set(source.taken)) == count


def test_who_sleeps_is_spare_and_work_for_nobody_waits() -> None:
    workers = IdleWorkers(AWAKE_MIN + 2)
    demand = WorkerDemand(workers)
    fd = os.eventfd(1, os.EFD_CLOEXEC)
    assert not demand.others_wait(), "nothing is there"
    workers.add(fd)
    assert demand.others_wait()
    workers.sleeping[0] = workers.sleeping[1] = 1
    assert demand.others_wait(), "as many are awake as may be"
    workers.sleeping[2] = 1
    assert (demand.others_wait(), demand.has_spare()) == (False, False), "one is about to take it"
    workers.sleeping[3] = 1
    assert demand.has_spare()
    workers.sleeping[:] = bytes(len(workers.sleeping))
    workers.remove(fd)
    assert not demand.others_wait()
    os.close(fd)
    workers.close()


# -- AwakeLimit -------------------------------------------------------------------------------------------------------
def test_a_process_that_is_blocked_while_work_waits_gets_more_workers_up_to_all() -> None:
    limit = AwakeLimit(50)
    seen = []
    for _ in range(6):
        limit.tick(work_waits=True, busy_share=0.02)
        seen.append(limit.value)
    assert seen == [AWAKE_MIN, 2 * AWAKE_MIN, 4 * AWAKE_MIN, 50, 50, 50]
    assert limit.is_raised


@pytest.mark.parametrize(("work_waits", "busy_share"), [(True, 0.9), (False, 0.0)], ids=["computing", "no work"])
def test_otherwise_it_stays_and_sinks_slowly(work_waits: bool, busy_share: float) -> None:
    limit = AwakeLimit(50)
    for _ in range(100):
        assert not limit.tick(work_waits=work_waits, busy_share=busy_share)
    assert limit.value == AWAKE_MIN
    for _ in range(2):
        limit.tick(work_waits=True, busy_share=0.0)
    assert limit.value == 2 * AWAKE_MIN
    for _ in range(10):
        limit.tick(work_waits=work_waits, busy_share=busy_share)
    assert limit.value == 2 * AWAKE_MIN - 1
    for _ in range(100):
        limit.tick(work_waits=work_waits, busy_share=busy_share)
    assert (limit.value, limit.is_raised) == (AWAKE_MIN, False)


@pytest.mark.parametrize(("awake_min", "busy_share"), [(AWAKE_MIN, 0.09), (AWAKE_MIN_OF_SEVERAL, 0.25)])
def test_the_fewer_may_be_awake_the_more_they_may_compute_and_still_be_blocked(
    awake_min: int, busy_share: float
) -> None:
    limit = AwakeLimit(50, awake_min)
    assert [limit.tick(work_waits=True, busy_share=share) for share in (0.3, 0.3, busy_share, busy_share)][3:] == [True]
    assert limit.value == 2 * awake_min


def test_a_moment_is_not_enough() -> None:
    limit = AwakeLimit(50)
    for _ in range(20):
        limit.tick(work_waits=True, busy_share=0.0)
        limit.tick(work_waits=True, busy_share=0.5)
    assert limit.value == AWAKE_MIN


def test_few_workers_may_all_be_awake() -> None:
    limit = AwakeLimit(3)
    assert not any(limit.tick(work_waits=True, busy_share=0.0) for _ in range(5))
    assert limit.value == 3
