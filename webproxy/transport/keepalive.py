"""IdleConnections: connections whose clients have to send something next: they cost no thread and no wake-up.

They are between two requests, or in the head of one, or have not said yet what they speak. Their descriptors are in
one epoll, armed one-shot. An idle worker polls it, and the worker that finds a connection serves it: no thread stands
between a client's next request and the worker that answers.
"""

from __future__ import annotations

import select
from time import monotonic

from webproxy.transport import sockets
from webproxy.transport.job import IdleJob


class IdleConnections:
    """Thread-safe set; owns its connections until they are taken or have expired."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self._jobs: dict[int, IdleJob] = {}

    def fileno(self) -> int:
        """Readable while there is a connection to take."""
        return self._epoll_fd

    def put(self, job: IdleJob, seconds: float) -> None:
        """Keep a connection until its client sends something, closes it, or `seconds` have passed; never blocks."""
        job.expires = monotonic() + seconds
        fd = job.fd
        again, job.is_watched = job.is_watched, True
        self._jobs[fd] = job  # first: after the next line another thread may take it and put it back
        try:
            try:
                sockets.watch_once(self._epoll_fd, fd, again=again)
            except FileExistsError:  # another job had the connection before, and put it here too
                sockets.watch_once(self._epoll_fd, fd, again=True)
        except OSError:
            if self._jobs.pop(fd, None) is not None:
                sockets.close(fd)

    def take(self) -> IdleJob | None:
        """A connection on which something has arrived, or None; never blocks."""
        if not self._jobs:
            return None
        fd = sockets.take_ready(self._epoll_fd)
        return None if fd is None else self._jobs.pop(fd, None)

    def expire(self, *, quiet_too: bool = False) -> list[IdleJob]:
        """Remove expired connections; the caller answers and closes them.

        With `quiet_too` also those on which no request has begun to arrive.
        """
        now = monotonic()
        jobs = list(self._jobs.values())
        late = [job for job in jobs if job.expires <= now]
        if quiet_too:
            late += [job for job in jobs if job.expires > now and _is_quiet(job)]
        return [job for job in late if self._take_out(job)]

    def _take_out(self, job: IdleJob) -> bool:
        fd = job.fd
        if self._jobs.get(fd) is not job:  # a worker was faster
            return False
        if self._jobs.pop(fd, None) is not job:
            return False
        sockets.unwatch(self._epoll_fd, fd)  # data that arrives now must not wake a worker
        job.is_watched = False
        return True

    @property
    def count(self) -> int:
        """The number of idle connections."""
        return len(self._jobs)

    def close(self) -> None:
        """Close all of them."""
        while self._jobs:
            sockets.close(self._jobs.popitem()[0])
        self._epoll.close()


def _is_quiet(job: IdleJob) -> bool:
    return not job.in_head and not sockets.has_arrived(job.fd)
