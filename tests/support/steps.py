"""Work in steps, taken by the test: what it yields is waited for here, as a parking lot and workers would."""

from __future__ import annotations

import select
import threading
from time import monotonic
from typing import TypeVar

from tests.support.waiting import WATCHDOG_S
from webproxy.transport.job import AnyOf, Event, Steps, Wait

_T = TypeVar("_T")


def wait_for(wait: Wait, fd: int = -1) -> None:
    """Until one of what a step waits for has happened; the test fails when nothing does."""
    if wait is Event.TURN:
        return
    if wait is Event.WRITABLE:
        wait = AnyOf(is_writable=True)
    assert not isinstance(wait, Event)
    if not isinstance(wait, AnyOf):
        wait = AnyOf((wait,))
    given = threading.Event()
    if [signal.subscribe(given.set) for signal in wait.signals].count(False):
        return
    poll = select.poll()
    if wait.is_readable or wait.is_writable:
        poll.register(fd, (select.POLLIN if wait.is_readable else 0) | (select.POLLOUT if wait.is_writable else 0))
    ends, hangs = monotonic() + wait.limit_s, monotonic() + WATCHDOG_S
    while not given.is_set() and not poll.poll(10) and monotonic() < ends:
        assert monotonic() < hangs, "nothing of it has happened"


def finish(steps: Steps[_T], fd: int = -1) -> _T:
    """Take all steps; returns what they come to."""
    while True:
        try:
            wait = next(steps)
        except StopIteration as end:
            result: _T = end.value
            return result
        wait_for(wait, fd)
