"""Admission: a number of tickets for what may run at the same time, first come, first served; waiting takes no thread.

Theory of operation. try_enter() takes a free ticket or none. enqueue() leaves a callback in the line, which is called
with a ticket: at once if one is free, otherwise by whoever leaves. A ticket passes directly from the one who leaves to
the one who has waited longest and is never free in between, so nobody overtakes, and whoever returns for another turn
goes to the end of the line.

Every callback is called exactly once: with a ticket, or with None when it has waited too long (expire()) or at the end
(close()). It is called without the lock, by any thread, and may enqueue again or leave.

Two things are admitted so: long transfers of a pool with small segments, each of which needs a full width to be fast,
and uploads to a server, which last as long as their producers take and must not hold all of its threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

ADMISSION_SEGMENT_BYTES_MAX = 32_768
"""With segments up to this size, long transfers are faster one after the other at full width than all at once."""


class Ticket:
    """The right to run now; leave() passes it on."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    @property
    def held(self) -> bool:
        """False once it was passed on."""
        return self._admission is not None

    @property
    def wanted(self) -> bool:
        """True while somebody waits for a ticket; no lock."""
        return self._admission is not None and self._admission.waiting > 0

    def leave(self) -> None:
        """Pass the ticket on; may be called twice, by one thread at a time."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._pass_on()


Ready = Callable[[Ticket | None], None]
"""Called once, by any thread: with a ticket, or with None after too long a wait or at the end. Must not block."""


class Admission:
    """`free` tickets and `waiting` callbacks; both may be read without the lock, and may be stale then."""

    __slots__ = ("_closed", "_lock", "_waiters", "free")

    def __init__(self, tickets: int) -> None:
        self.free = tickets
        self._waiters: deque[tuple[float, Ready]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait for a ticket."""
        return len(self._waiters)

    @property
    def full(self) -> bool:
        """Whether a new ticket would have to wait."""
        return not self.free and not self._closed

    def try_enter(self) -> Ticket | None:
        """A ticket if one is free now; never waits."""
        with self._lock:
            if not self.free or self._closed:
                return None
            self.free -= 1
            return Ticket(self)

    def enqueue(self, ready: Ready) -> None:
        """Have `ready` called with a ticket: at once if one is free, otherwise by whoever leaves. Never waits."""
        with self._lock:
            ticket = None
            if not self._closed:
                if not self.free:
                    self._waiters.append((monotonic(), ready))
                    return
                self.free -= 1
                ticket = Ticket(self)
        ready(ticket)

    def _pass_on(self) -> None:
        with self._lock:
            if not self._waiters:
                self.free += 1
                return
            _, ready = self._waiters.popleft()
        ready(Ticket(self))

    def expire(self, limit_s: float) -> None:
        """Call back, without a ticket, those that have waited this long; for housekeeping."""
        before = monotonic() - limit_s
        while True:
            with self._lock:
                if not self._waiters or self._waiters[0][0] > before:
                    return
                _, ready = self._waiters.popleft()
            ready(None)

    def close(self) -> None:
        """Give out no more tickets; those that wait are called back without one."""
        with self._lock:
            self._closed = True
            waiters, self._waiters = self._waiters, deque()
        for _, ready in waiters:
            ready(None)


def admission_for(segment_count: int, segment_bytes: int, segments_per_transfer_max: int) -> Admission | None:
    """One ticket for each full width that fits into a pool; None if long transfers are as fast all at once."""
    if segments_per_transfer_max == 1 or segment_bytes > ADMISSION_SEGMENT_BYTES_MAX:
        return None
    return Admission(max(1, segment_count // segments_per_transfer_max))
