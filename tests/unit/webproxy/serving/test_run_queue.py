"""RunQueue: is its descriptor readable once for each entry, and does nothing that waits in it outlive it?"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from tests.support.jobs import FakeJob
from tests.support.tcp import at_end, connected
from webproxy.serving.run_queue import RunQueue


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
