"""RunQueue: the jobs that wait for a worker, pollable beside the listener; and WorkerDemand, which tells that some do.

**States.** A job is in one of two lines, of new ones and of those that come back from a wait, or no longer here. It
came in by whoever made it (the acceptor at its end, a worker that found more than it can run), or by whoever saw what
it waited for (the parking thread, the last holder of a ticket).

**Events.** put() and put_back() add at the end of a line and wake one worker; take() and take_back() remove the oldest.
None of them blocks, and each may be called by any thread.

**Invariants.** The descriptor is a semaphore that is readable once for each entry. It is made readable *before* the
entry is visible: who took an entry that is not counted yet would leave the descriptor readable for ever, and every idle
worker awake. The other order of failures is harmless: a worker that is woken before it can see the entry looks again.
An entry belongs to whoever took it, and to nobody else. The number of connections bounds both lines.

**Why not otherwise.** One line would do for order, but not for fairness: a burst of new requests would keep responses
from their end, and long responses that yield keep new requests waiting; the acceptor takes from both in turn. A
queue.Queue has a lock and a condition, which a worker cannot wait for beside a listener; a pipe needs a byte read and
written for each entry and has a bound that blocks. And no queue stands on the way of a request that is whole when its
connection is accepted: the worker that accepts is the one that serves.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import deque

from webproxy.transport.job import Job
from webproxy.transport.keepalive import IdleConnections


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
        os.eventfd_write(self._fd, 1)
        self._new.append(job)

    def put_back(self, job: Job) -> None:
        """Add a job that has waited for something and wake one worker."""
        os.eventfd_write(self._fd, 1)
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
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        return job

    def wake(self, workers: int) -> None:
        """Wake so many workers though there is nothing to take, to see that they shall end; it stays readable."""
        for _ in range(workers):  # each write wakes one of those that wait exclusively
            os.eventfd_write(self._fd, 1)

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


class WorkerDemand:
    """Tells a job that could yield whether others need its worker. It looks only, and takes nothing in."""

    def __init__(
        self, run_queue: RunQueue, listener: socket.socket, idle: IdleConnections, idle_workers: list[bool]
    ) -> None:
        """`idle_workers` has an item for each worker: True while it only waits for work."""
        self._run_queue = run_queue
        self._idle_workers = idle_workers
        self._arrivals = select.epoll()
        self._arrivals.register(listener, select.EPOLLIN)
        self._arrivals.register(idle.fileno(), select.EPOLLIN)

    def others_wait(self) -> bool:
        """True when every worker is busy, and a job in the queue, a new connection or a next request needs one."""
        if any(self._idle_workers):
            return False
        return self._run_queue.waiting > 0 or bool(self._arrivals.poll(0, 1))

    def close(self) -> None:
        """Close the epoll; no further calls are allowed."""
        self._arrivals.close()
