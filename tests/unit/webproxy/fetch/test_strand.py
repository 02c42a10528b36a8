"""Strand and Crew: tasks in their order, one at a time, beside those of others; and threads only as they are needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from shmchannel.daemonkit.logs import about, subject
from tests.support.failing import failing
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.fetch.strand import Crew, Errand, Strand, Task

THREADS = 3


@contextmanager
def crew_of(threads: int = THREADS) -> Iterator[Crew]:
    """A crew that is stopped at the end."""
    crew = Crew(threads)
    try:
        yield crew
    finally:
        crew.stop(WATCHDOG_S)
    assert not threads_of_crews()


def threads_of_crews() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fetch-")]


def waiting(gate: threading.Event, then: Callable[[], object] = lambda: None) -> Callable[[], None]:
    """A task that waits for the test."""

    def task() -> None:
        assert gate.wait(WATCHDOG_S)
        then()

    return task


def test_tasks_run_in_their_order() -> None:
    done: list[int] = []
    with crew_of() as crew:
        strand = Strand(crew)
        for number in range(100):
            strand.post(lambda number=number: done.append(number))  # type: ignore[misc]
        wait_until(lambda: len(done) == 100)
    assert done == list(range(100))


def test_a_task_posts_the_next_one() -> None:
    done: list[int] = []
    with crew_of(1) as crew:
        strand = Strand(crew)

        def step() -> None:
            done.append(len(done))
            if len(done) < 100:
                strand.post(step)

        strand.post(step)
        wait_until(lambda: len(done) == 100)


def test_one_at_a_time_from_any_number_of_threads() -> None:
    """No task is lost, none runs beside another of its strand, and each thread's own run in its order."""
    posts, strands_count, posters = 200, 5, 4
    done: list[list[tuple[int, int]]] = [[] for _ in range(strands_count)]
    inside = [0] * strands_count

    with crew_of() as crew, ThreadPoolExecutor(posters) as pool:
        strands = [Strand(crew) for _ in range(strands_count)]

        def task(index: int, poster: int, number: int) -> None:
            inside[index] += 1
            assert inside[index] == 1
            done[index].append((poster, number))
            inside[index] -= 1

        def post(poster: int) -> None:
            for number in range(posts):
                for index, strand in enumerate(strands):
                    strand.post(lambda index=index, number=number: task(index, poster, number))  # type: ignore[misc]

        list(pool.map(post, range(posters)))
        wait_until(lambda: sum(map(len, done)) == posts * strands_count * posters)
    for of_strand in done:
        for poster in range(posters):
            assert [number for who, number in of_strand if who == poster] == list(range(posts))


def test_a_strand_that_waits_delays_no_other() -> None:
    gate, passed = threading.Event(), threading.Event()
    with crew_of() as crew:
        stuck, other = Strand(crew), Strand(crew)
        stuck.post(waiting(gate))
        stuck.post(waiting(gate))
        other.post(passed.set)
        assert passed.wait(WATCHDOG_S)
        assert len(threads_of_crews()) <= 2
        gate.set()


def test_it_grows_as_it_is_needed_and_no_further() -> None:
    gate = threading.Event()
    done: list[bool] = []
    with crew_of() as crew:
        assert not threads_of_crews()
        for count in range(1, THREADS + 1):
            crew.run(waiting(gate, lambda: done.append(True)))
            assert len(threads_of_crews()) == count
        for _ in range(10):
            crew.run(waiting(gate, lambda: done.append(True)))
        assert len(threads_of_crews()) == THREADS
        gate.set()
        wait_until(lambda: len(done) == THREADS + 10)


def test_a_broken_task_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    passed = threading.Event()
    with crew_of(1) as crew:
        strand = Strand(crew)
        crew.run(failing(ZeroDivisionError("a bug")))
        strand.post(failing(ZeroDivisionError("a bug")))
        strand.post(passed.set)
        assert passed.wait(WATCHDOG_S)
    assert [record.getMessage() for record in caplog.records] == ["task of a fetch broken"] * 2


def test_out_of_threads_the_others_do_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    gate, passed = threading.Event(), threading.Event()
    with crew_of() as crew:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", failing(RuntimeError("can't start new thread")))
            assert not crew.is_manned()
        assert crew.is_manned()
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", failing(RuntimeError("can't start new thread")))
            assert crew.is_manned()
            crew.run(waiting(gate))
            crew.run(passed.set)
        gate.set()
        assert passed.wait(WATCHDOG_S)
        assert len(threads_of_crews()) == 1
    assert "no thread for fetches" in caplog.text


def test_stopping_runs_what_was_posted() -> None:
    gate = threading.Event()
    done: list[int] = []
    crew = Crew(1)
    strand = Strand(crew)
    strand.post(waiting(gate))
    for number in range(5):
        strand.post(lambda number=number: done.append(number))  # type: ignore[misc]
    gate.set()
    crew.stop(WATCHDOG_S)
    assert done == list(range(5))
    assert not threads_of_crews()


def test_stopping_waits_no_longer_than_it_is_told() -> None:
    gate, begun = threading.Event(), threading.Event()
    crew = Crew(2)
    crew.run(waiting(gate))
    crew.run(begun.set)
    assert begun.wait(WATCHDOG_S)
    crew.stop(0.01)
    assert len(threads_of_crews()) >= 1
    gate.set()
    crew.stop(WATCHDOG_S)
    assert not threads_of_crews()


def test_tasks_are_about_the_request_that_made_their_strand() -> None:
    """Whoever posts them: another request that shares the fetch, or a thread that knows of none."""
    seen: list[bytes] = []
    with crew_of(1) as crew:
        with about(b"a-1"):
            first = Strand(crew)
        with about(b"a-2"):
            second = Strand(crew)
            first.post(lambda: seen.append(subject()))
        second.post(lambda: seen.append(subject()))
        crew.run(lambda: seen.append(subject()))
        wait_until(lambda: len(seen) == 3)
    assert seen == [b"a-1", b"a-2", b""]


# -- errands ---------------------------------------------------------------------------------------------------------
def test_what_is_lent_is_run_by_whoever_took_it_and_what_comes_after_it_too() -> None:
    done: list[tuple[str, int]] = []
    lent: list[Errand] = []
    with crew_of() as crew:
        strand = Strand(crew)

        def task(name: str) -> Task:
            return lambda: done.append((name, threading.get_ident()))

        strand.post(task("first"), lambda errand: lent.append(errand) is None)
        strand.post(task("second"))
        assert not done
        lent.pop().run()
        strand.post(task("third"))
        wait_until(lambda: len(done) == 3)
    me = threading.get_ident()
    assert [name for name, _ in done] == ["first", "second", "third"]
    assert [thread == me for _, thread in done] == [True, True, False]


def test_what_nobody_takes_or_is_handed_over_the_crew_runs() -> None:
    lent: list[Errand] = []
    ran: list[str] = []
    with crew_of() as crew:
        Strand(crew).post(lambda: ran.append("refused"), lambda _: False)
        wait_until(lambda: ran == ["refused"])
        Strand(crew).post(lambda: ran.append("handed over"), lambda errand: lent.append(errand) is None)
        lent.pop().hand_over()
        wait_until(lambda: ran == ["refused", "handed over"])


def test_a_task_that_was_lent_leaves_the_rest_to_the_crew() -> None:
    """It goes before those that were posted in the meantime."""
    lent: list[Errand] = []
    done: list[tuple[str, bool, bool]] = []
    me = threading.get_ident()
    with crew_of() as crew:
        strand = Strand(crew)

        def note(name: str) -> None:
            done.append((name, strand.is_lent, threading.get_ident() == me))

        def begins() -> None:
            note("begins")
            strand.post(lambda: note("posted"))
            strand.move(lambda: note("goes on"))

        strand.post(begins, lambda errand: lent.append(errand) is None)
        lent.pop().run()
        wait_until(lambda: len(done) == 3)
    assert done == [("begins", True, True), ("goes on", False, False), ("posted", False, False)]
