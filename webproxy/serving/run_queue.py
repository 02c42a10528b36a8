"""RunQueue: the jobs that can run and wait for a worker.

**States.** A job is in one of two lines, for new jobs and for jobs that come back from a wait, or has left. New jobs
come from the acceptor while it closes; the others from whoever saw the awaited event: the parking thread, the previous
holder of a ticket, or a worker whose job yields.

**Events.** put() and put_back() append to a line and wake one worker; take() and take_back() remove the oldest entry.
None of them blocks, and any thread may call them.

**Invariants.** The descriptor is a semaphore that is readable once per entry. It is raised *before* the entry becomes
visible: a worker that took an entry not yet counted would leave the descriptor readable for ever, and every idle worker
awake. The opposite race is harmless: a worker woken before it can see the entry looks again. An entry belongs to the
worker that took it. The number of connections bounds both lines.

**Why not otherwise.** A single line would keep order but not fairness: a burst of new requests would delay responses
that are nearly done, and long responses that yield would delay new requests; the acceptor takes from both lines in
turn. A queue.Queue has a lock and a condition variable, and a worker cannot wait for it and a listener at once; a pipe
needs a byte written and read per entry, and blocks when full. A request that is complete when its connection is
accepted passes through no queue at all: the worker that accepts it serves it.
"""

from __future__ import annotations

import os
from collections import deque

from webproxy.transport import sockets
from webproxy.transport.job import Job


class RunQueue:
    """For many threads."""

    def __init__(self) -> None:
        self._new: deque[Job] = deque()
        self._back: deque[Job] = deque()
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def fileno(self) -> int:
        """The descriptor to poll for reading."""
        return self._fd

    def put(self, job: Job) -> None:
        """Add a new job and wake one worker."""
        sockets.raise_event(self._fd)
        self._new.append(job)

    def put_back(self, job: Job) -> None:
        """Add a job that has waited for something and wake one worker."""
        sockets.raise_event(self._fd)
        self._back.append(job)

    def take(self) -> Job | None:
        """The oldest new job, or None."""
        return self._take(self._new) if self._new else None

    def take_back(self) -> Job | None:
        """The oldest of those that have waited, or None."""
        return self._take(self._back) if self._back else None

    def _take(self, line: deque[Job]) -> Job | None:
        try:
            job = line.popleft()
        except IndexError:  # another worker was faster
            return None
        sockets.lower_event(self._fd)
        return job

    @property
    def waiting(self) -> int:
        """How many jobs no worker has taken yet."""
        return len(self._new) + len(self._back)

    def close(self) -> None:
        """Close the descriptor and what still waits."""
        for line in (self._new, self._back):
            while line:
                line.popleft().close()
        os.close(self._fd)
