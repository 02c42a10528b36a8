"""RunQueue: the jobs that can run and wait for a worker.

**States.** A job is in one of two lines, for new jobs and for jobs that come back from a wait, or has left. New jobs
come from the acceptor: while it closes, and under overload, when it accepts more than can be served at once. The others
come from whoever saw the awaited event: the parking thread, the previous holder of a ticket, or a worker whose job
yields.

**Events.** put() and put_back() append to a line and wake one worker; take() and take_back() remove an entry. None of
them blocks, and any thread may call them.

**Overload.** The line of new jobs has a bound, of length and of time; what is beyond it is returned to be refused: the
newest under FIFO, the oldest under LIFO. LIFO takes the newest first while the line is longer than LIFO_DEPTH. Then a
few wait until they are refused and the others hardly at all, while under FIFO all wait for nearly as long as clients
have patience: of what is served late, much is served in vain.

**Invariants.** The descriptor is a semaphore that is readable once per entry. It is raised *before* the entry becomes
visible: a worker that took an entry not yet counted would leave the descriptor readable for ever, and every idle worker
awake. The opposite race is harmless: a worker woken before it can see the entry looks again. An entry belongs to who
took it. What comes back is bounded by what may wait, and never refused: it has been begun.

**Why not otherwise.** A single line would keep order but not fairness: a burst of new requests would delay responses
that are nearly done, and long responses that yield would delay new requests; the acceptor takes from both lines in
turn. A queue.Queue has a lock and a condition variable, and a worker cannot wait for it and a listener at once; a pipe
needs a byte written and read per entry, and blocks when full. A request that is complete when its connection is
accepted passes through no queue at all: the worker that accepts it serves it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from time import monotonic
from typing import NamedTuple, TypeVar

from webproxy.transport import sockets
from webproxy.transport.job import Job

LIFO_DEPTH = 64
"""A line that is no longer is served in order by either schedule: it is a burst, and soon over."""


class Schedule(StrEnum):
    """Which new request is served first when there are more than can be served."""

    FIFO = "fifo"
    LIFO = "lifo"


class QueueSettings(NamedTuple):
    """The schedule and the bounds of the line of new jobs."""

    schedule: Schedule = Schedule.FIFO
    length_max: int = 4096
    limit_s: float = 5.0


_T = TypeVar("_T")


DEFAULTS = QueueSettings()


class _Entry(NamedTuple):
    job: Job
    since: float


class RunQueue:
    """For many threads."""

    def __init__(self, settings: QueueSettings = DEFAULTS, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._is_lifo = settings.schedule is Schedule.LIFO
        self._clock = clock
        self._new: deque[_Entry] = deque()
        self._back: deque[Job] = deque()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def put(self, job: Job) -> None:
        """Add a new job and wake one worker, whatever the bounds."""
        sockets.raise_event(self._fd)
        self._new.append(_Entry(job, self._clock()))

    def put_bounded(self, job: Job) -> Job | None:
        """As put(); beyond the length, returns one to be refused: this job, or that whose place it takes."""
        if len(self._new) < self._settings.length_max:
            self.put(job)
            return None
        if not self._is_lifo:
            return job
        entry = self._pop(self._new.popleft)
        self.put(job)
        return None if entry is None else entry.job

    def put_back(self, job: Job) -> None:
        """Add a job that has waited for something and wake one worker."""
        sockets.raise_event(self._fd)
        self._back.append(job)

    def take(self) -> Job | None:
        """The new job whose turn it is, or None."""
        new = self._new
        if not new:
            return None
        entry = self._pop(new.pop if self._is_lifo and len(new) > LIFO_DEPTH else new.popleft)
        return None if entry is None else entry.job

    def take_late(self) -> Job | None:
        """The oldest new job if it has waited for longer than the limit, to be refused; or None."""
        try:
            entry = self._new[0]
            if entry.since + self._settings.limit_s > self._clock():
                return None
            self._new.remove(entry)
        except (IndexError, ValueError):  # another worker was faster
            return None
        sockets.lower_event(self._fd)
        return entry.job

    def take_back(self) -> Job | None:
        """The oldest of those that have waited, or None."""
        return self._pop(self._back.popleft) if self._back else None

    def _pop(self, pop: Callable[[], _T]) -> _T | None:
        try:
            taken = pop()
        except IndexError:  # another worker was faster
            return None
        sockets.lower_event(self._fd)
        return taken

    @property
    def has_new(self) -> bool:
        """Whether new jobs wait."""
        return bool(self._new)

    @property
    def waiting(self) -> int:
        """How many jobs no worker has taken yet."""
        return len(self._new) + len(self._back)

    def close(self) -> None:
        """Close the descriptor and what still waits."""
        while (job := self.take() or self.take_back()) is not None:
            job.close()
        os.close(self._fd)
