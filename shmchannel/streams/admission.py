"""Admission: how many of a kind go at a time (long transfers of a pool, PUTs of a cache), first come first served.

Who waits holds no thread.

Whoever leaves hands its place to who has waited longest: nobody overtakes, and who comes back stands at the end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

ADMISSION_SEGMENT_BYTES_MAX = 32_768
"""Up to this size of segments a full width is worth more to long transfers than going all at the same time."""


class Ticket:
    """The right to go on now; leave() it in the end."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission

    @property
    def held(self) -> bool:
        """False once it was left."""
        return self._admission is not None

    @property
    def wanted(self) -> bool:
        """True while somebody waits for a place; no lock."""
        return self._admission is not None and self._admission.waiting > 0

    def leave(self) -> None:
        """Hand the place on; may be called twice, by one thread at a time."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._hand_on()


Ready = Callable[[Ticket | None], None]
"""Called once, by any thread: with a place, or with None after too long a wait, or at the end. Never blocks."""


class Admission:
    """`free` places and `waiting` transfers; both may be read without the lock, and are old then."""

    __slots__ = ("_closed", "_line", "_lock", "free")

    def __init__(self, tickets: int) -> None:
        self.free = tickets
        self._line: deque[tuple[float, Ready]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._line)

    @property
    def full(self) -> bool:
        """True while a place has to be waited for."""
        return not self.free and not self._closed

    def try_enter(self) -> Ticket | None:
        """A place, if one is free now; never waits."""
        with self._lock:
            if not self.free or self._closed:
                return None
            self.free -= 1
            return Ticket(self)

    def enqueue(self, ready: Ready) -> None:
        """Have `ready` called with a place: at once when one is free, otherwise by who hands one on. Never waits."""
        with self._lock:
            ticket = None
            if not self._closed:
                if not self.free:
                    self._line.append((monotonic(), ready))
                    return
                self.free -= 1
                ticket = Ticket(self)
        ready(ticket)

    def _hand_on(self) -> None:
        with self._lock:
            if not self._line:
                self.free += 1
                return
            _, ready = self._line.popleft()
        ready(Ticket(self))

    def expire(self, limit_s: float) -> None:
        """Let go, without a place, of who has waited so long; called now and then."""
        before = monotonic() - limit_s
        while True:
            with self._lock:
                if not self._line or self._line[0][0] > before:
                    return
                _, ready = self._line.popleft()
            ready(None)

    def close(self) -> None:
        """Nobody waits from now on, and no place is given; who waits goes on without."""
        with self._lock:
            self._closed = True
            line, self._line = self._line, deque()
        for _, ready in line:
            ready(None)


def admission_for(segment_count: int, segment_bytes: int, stripe: int) -> Admission | None:
    """As many places as full widths fit into a pool; None where long transfers are as fast all at the same time."""
    if stripe == 1 or segment_bytes > ADMISSION_SEGMENT_BYTES_MAX:
        return None
    return Admission(max(1, segment_count // stripe))
