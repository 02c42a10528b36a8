"""RunQueue: is its descriptor readable once for each entry, and does nothing that waits in it outlive it?"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.jobs import FakeJob
from tests.support.tcp import at_end, connected
from webproxy.serving.run_queue import LIFO_DEPTH, QueueSettings, RunQueue, Schedule


@pytest.fixture
def run_queue() -> Iterator[RunQueue]:
    made = RunQueue()
    yield made
    made.close()


def readable(run_queue: RunQueue) -> bool:
    poll = select.poll()
    poll.register(run_queue.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def test_the_queue_is_readable_once_for_each_entry_of_both_lines(run_queue: RunQueue) -> None:
    first, second, back = FakeJob(-1), FakeJob(-1), FakeJob(-1)
    assert run_queue.take() is None
    assert run_queue.take_back() is None
    run_queue.put(first)
    run_queue.put(second)
    run_queue.put_back(back)
    assert run_queue.waiting == 3
    assert [readable(run_queue), run_queue.take()] == [True, first]
    assert [readable(run_queue), run_queue.take_back()] == [True, back]
    assert [readable(run_queue), run_queue.take()] == [True, second]
    assert not readable(run_queue)


@pytest.mark.parametrize("is_back", [False, True], ids=["new", "back"])
def test_who_takes_an_entry_while_it_is_put_leaves_nothing_to_read(
    run_queue: RunQueue, is_back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that stays readable keeps every idle worker awake."""
    make_readable = os.eventfd_write
    put, take = (run_queue.put_back, run_queue.take_back) if is_back else (run_queue.put, run_queue.take)
    job, taken = FakeJob(-1), []

    def with_another_worker_about(eventfd: int, count: int) -> None:
        taken.append(take())
        make_readable(eventfd, count)
        taken.append(take())

    with monkeypatch.context() as patched:
        patched.setattr(os, "eventfd_write", with_another_worker_about)
        put(job)
    taken.append(take())
    assert [one for one in taken if one is not None] == [job]
    assert not readable(run_queue)


def test_closing_the_queue_closes_what_waits_in_it() -> None:
    run_queue = RunQueue()
    with connected() as (fd, client), connected() as (other_fd, other):
        run_queue.put(FakeJob(fd))
        run_queue.put_back(FakeJob(other_fd))
        run_queue.close()
        assert at_end(client) == b""
        assert at_end(other) == b""


# -- overload ---------------------------------------------------------------------------------------------------------
class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def bounded(schedule: Schedule, length_max: int = 1000, limit_s: float = 5.0) -> Iterator[tuple[RunQueue, Clock]]:
    clock = Clock()
    run_queue = RunQueue(QueueSettings(schedule, length_max, limit_s), clock)
    yield run_queue, clock
    while run_queue.take() or run_queue.take_back():
        pass
    run_queue.close()


def jobs_of(count: int) -> list[FakeJob]:
    return [FakeJob(-1) for _ in range(count)]


def test_fifo_refuses_the_newest_and_serves_the_oldest() -> None:
    jobs = jobs_of(4)
    with bounded(Schedule.FIFO, length_max=3) as (run_queue, _):
        assert [run_queue.put_bounded(job) for job in jobs] == [None, None, None, jobs[3]]
        assert [run_queue.take() for _ in range(4)] == [*jobs[:3], None]
        assert not readable(run_queue)


def test_lifo_refuses_the_oldest() -> None:
    jobs = jobs_of(4)
    with bounded(Schedule.LIFO, length_max=3) as (run_queue, _):
        assert [run_queue.put_bounded(job) for job in jobs] == [None, None, None, jobs[0]]
        assert [run_queue.take() for _ in range(4)] == [*jobs[1:], None], "a short line is served in order"
        assert not readable(run_queue)


def test_lifo_serves_the_newest_of_a_long_line_first() -> None:
    jobs = jobs_of(LIFO_DEPTH + 2)
    with bounded(Schedule.LIFO) as (run_queue, _):
        for job in jobs:
            run_queue.put(job)
        assert [run_queue.take() for _ in jobs] == [jobs[-1], jobs[-2], *jobs[:-2]]


@pytest.mark.parametrize("schedule", Schedule)
def test_who_has_waited_too_long_is_late(schedule: Schedule) -> None:
    old, new, back = jobs_of(3)
    with bounded(schedule, limit_s=5.0) as (run_queue, clock):
        run_queue.put(old)
        run_queue.put_back(back)
        clock.now = 4.0
        run_queue.put(new)
        assert run_queue.take_late() is None
        clock.now = 5.0
        assert [run_queue.take_late(), run_queue.take_late()] == [old, None]
        assert [run_queue.take(), run_queue.take_back()] == [new, back], "what has begun is never late"
        assert not readable(run_queue)
