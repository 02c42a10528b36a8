"""Admission: does nobody overtake, is every place handed on, and is whoever waits called exactly once?"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shmchannel.streams import admission as module
from shmchannel.streams.admission import Admission, Ticket
from tests.support.waiting import WATCHDOG_S


class Line:
    """The callbacks that were called, in order, with their arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Ticket | None]] = []

    def ready(self, number: int) -> Callable[[Ticket | None], None]:
        """The callback of this number."""
        return lambda ticket: self.calls.append((number, ticket))

    @property
    def numbers(self) -> list[int]:
        """The numbers of the callbacks that were called."""
        return [number for number, _ in self.calls]


def entered(admission: Admission) -> Ticket:
    """A place that is free."""
    ticket = admission.try_enter()
    assert ticket is not None
    return ticket


def test_places_are_handed_on_in_order() -> None:
    admission, line = Admission(2), Line()
    first, second = entered(admission), entered(admission)
    assert admission.full
    assert admission.try_enter() is None
    for number in range(3):
        admission.enqueue(line.ready(number))
    assert admission.waiting == 3
    assert first.wanted
    second.leave()
    first.leave()
    assert line.numbers == [0, 1]
    assert admission.try_enter() is None, "nobody overtakes who waits"
    for index in range(3):
        ticket = line.calls[index][1]
        assert ticket is not None
        assert ticket.held
        ticket.leave()
    assert line.numbers == [0, 1, 2]
    assert (admission.waiting, admission.free) == (0, 2)


def test_a_free_place_is_had_at_once() -> None:
    admission, line = Admission(1), Line()
    admission.enqueue(line.ready(0))
    assert line.numbers == [0]
    assert admission.full


def test_a_place_is_left_once() -> None:
    admission = Admission(1)
    ticket = entered(admission)
    assert not ticket.wanted
    for _ in range(2):
        ticket.leave()
        assert admission.free == 1
    assert not ticket.held
    assert not ticket.wanted


def test_who_has_waited_too_long_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    admission, line = Admission(1), Line()
    ticket = entered(admission)
    for number in range(3):
        admission.enqueue(line.ready(number))
        now += 1.0
    admission.expire(10.0)
    assert not line.calls
    now = 1011.5
    admission.expire(10.0)
    assert line.calls == [(0, None), (1, None)]
    assert admission.waiting == 1
    ticket.leave()
    assert line.numbers == [0, 1, 2]
    assert admission.full


def test_nobody_waits_after_the_end() -> None:
    admission, line = Admission(1), Line()
    ticket = entered(admission)
    admission.enqueue(line.ready(0))
    admission.close()
    admission.enqueue(line.ready(1))
    assert line.calls == [(0, None), (1, None)]
    assert not admission.full
    assert admission.try_enter() is None
    ticket.leave()
    assert admission.waiting == 0


def test_many_threads_never_hold_more_places_than_there_are() -> None:
    """Each enters or lines up, and leaves from whichever thread it was called by."""
    admission, held, most, lock = Admission(2), 0, 0, threading.Lock()
    ended = [threading.Event() for _ in range(400)]

    def go(number: int, ticket: Ticket | None) -> None:
        nonlocal held, most
        assert ticket is not None
        with lock:
            held += 1
            most = max(most, held)
        with lock:
            held -= 1
        ticket.leave()
        ended[number].set()

    def come(number: int) -> None:
        ticket = admission.try_enter() if random.random() < 0.5 else None
        if ticket is not None:
            go(number, ticket)
        else:
            admission.enqueue(lambda ticket: go(number, ticket))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come, range(len(ended))))
    assert all(event.wait(WATCHDOG_S) for event in ended)
    assert most <= 2
    assert (admission.free, admission.waiting) == (2, 0)
