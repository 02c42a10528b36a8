"""Workers outlive their jobs and end when they are told to."""

from __future__ import annotations

import logging
import threading

import pytest

from shmchannel.deadline import Deadline
from shmchannel.workers import WorkerPool
from tests.support.waiting import WATCHDOG_S, wait_until


def test_all_work_until_stopped() -> None:
    seen: set[tuple[int, str]] = set()
    workers = WorkerPool("job", 3, lambda index: seen.add((index, threading.current_thread().name)))
    workers.start()
    wait_until(lambda: len(seen) == 3)
    workers.request_stop()
    assert workers.join(Deadline.after(WATCHDOG_S)) == 0
    assert seen == {(0, "job-0"), (1, "job-1"), (2, "job-2")}


def test_outlives_a_failing_job(caplog: pytest.LogCaptureFixture) -> None:
    jobs = threading.Semaphore(0)
    done: list[int] = []

    def step(index: int) -> None:
        assert jobs.acquire(timeout=WATCHDOG_S)
        done.append(index)
        if len(done) == 1:
            raise ValueError("the first one breaks")

    workers = WorkerPool("job", 1, step)
    with caplog.at_level(logging.ERROR):
        workers.start()
        jobs.release()
        jobs.release()
        wait_until(lambda: len(done) == 2)
        workers.request_stop()
        jobs.release()
        assert workers.join(Deadline.after(WATCHDOG_S)) == 0
    assert [record.message for record in caplog.records] == ["job failed"]
    assert "the first one breaks" in caplog.text


def test_join_says_how_many_are_stuck() -> None:
    stuck, go = threading.Event(), threading.Event()

    def step(index: int) -> None:
        if index == 0:
            stuck.set()
            go.wait(WATCHDOG_S)

    workers = WorkerPool("job", 2, step)
    workers.start()
    assert stuck.wait(WATCHDOG_S)
    workers.request_stop()
    wait_until(lambda: [thread.name for thread in threading.enumerate()].count("job-1") == 0)
    assert workers.join(Deadline.after(0.05)) == 1
    assert workers.join(Deadline.after(WATCHDOG_S), interrupted=lambda: True) == 1
    go.set()
    assert workers.join(Deadline.after(WATCHDOG_S)) == 0


def test_who_only_waits_for_work_is_no_unfinished_one() -> None:
    waiting, go = threading.Event(), threading.Event()

    def step(index: int) -> None:
        workers.idle[index] = True
        waiting.set()
        go.wait(WATCHDOG_S)
        workers.idle[index] = False

    workers = WorkerPool("job", 1, step)
    workers.start()
    assert waiting.wait(WATCHDOG_S)
    workers.request_stop()
    threading.Timer(0.0, go.set).start()
    assert workers.join(Deadline(0)) == 0


def test_join_wakes_who_waits_for_work() -> None:
    work = threading.Semaphore(0)

    def step(index: int) -> None:
        workers.idle[index] = True
        assert work.acquire(timeout=WATCHDOG_S)

    workers = WorkerPool("job", 3, step, wake=work.release)
    workers.start()
    wait_until(lambda: all(workers.idle))
    workers.request_stop()
    assert workers.join(Deadline(0)) == 0


def test_join_before_start() -> None:
    assert WorkerPool("job", 2, lambda _: None).join(Deadline(0)) == 0


def test_stack_size_is_restored() -> None:
    before = threading.stack_size()
    workers = WorkerPool("job", 1, lambda _: None)
    workers.start()
    assert threading.stack_size() == before
    workers.request_stop()
    assert workers.join(Deadline.after(WATCHDOG_S)) == 0
