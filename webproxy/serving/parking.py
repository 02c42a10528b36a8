"""ParkingLot: where jobs wait for anything but a worker, and where connections end.

**States.** A job is *run* by a worker, *queued* (run_queue.py), or waiting for one event:

    run ──Idles──▶ in IdleConnections ──its client sends──▶ run by the first worker that looks
     │                └──time limit──▶ expire(), whose outcome is settled like any other
     ├─WaitsFor WRITABLE──▶ parked here ──its client reads, or is gone──▶ queued
     │                         └──below the minimum rate──▶ closed
     ├─WaitsFor a signal or AnyOf──▶ waiting here ──whatever comes first, or its client has left──▶ queued
     ├─WaitsFor TICKET──▶ in the admission's line ──a ticket, or too long a wait──▶ queued
     ├─WaitsFor TURN──▶ queued
     └─Done──▶ lingering here ──its client has closed, or time limit──▶ closed

**Events.** Workers call settle() with the outcome of each job they ran; nothing else acts on outcomes. The lot has one
thread, which polls the descriptors of parked and waiting jobs and, four times a second, looks at everything that only
time ends: idle connections, parked clients below the minimum rate, time limits, lingering connections. Signals are
given by whoever makes the progress. A client that has closed its side while its job waits for a signal counts as one
that has left (nginx does the same), because a connection that is half closed looks like one that is closed.

**Invariants.** Every job is in exactly one place, and its descriptor is closed by the owner of that place. One that
moves is counted in the next place before it leaves the last: who counts in this order misses none. settle()
never blocks and needs no reply from the thread. A parked job holds no segment, no cache worker and no thread. The lot
knows no protocol: it reads from a connection only to see it end.

**Why not otherwise.** The lot used to read incomplete requests as well, which put a second copy of both protocols here;
they now idle like any other connection. Closing a connection right after the response would let data still in flight
from the client destroy the response (a reset); waiting for the client's end in the worker would cost a worker.
Lingering connections are looked at instead of polled, because one wake-up each would cost more than the response did.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic

from shmchannel.daemonkit.logs import about
from shmchannel.streams.admission import Admission, Ticket
from webproxy.errors import ClientGone
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream, Shutdown
from webproxy.transport.job import AnyOf, Done, Event, IdleJob, Idles, Job, Outcome

log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
LINGERING_MAX = 128
WAITING_MAX = 16_384
_TICK_SECONDS = 0.25


class IdleConnections:
    """Connections whose clients have to send something next: they cost no thread and no wake-up.

    They are between two requests, or in the head of one, or have not said yet what they speak. Their descriptors are in
    one epoll, armed one-shot. An idle worker polls it, and the worker that finds a connection serves it: no thread
    stands between a client's next request and the worker that answers. Thread-safe; owns its connections until they are
    taken or have expired.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self.jobs: dict[int, IdleJob] = {}
        """By descriptor. Also for the hit loop, which puts and takes as put() and take() do."""

    def fileno(self) -> int:
        """Readable while there is a connection to take."""
        return self._epoll_fd

    def put(self, job: IdleJob, seconds: float) -> None:
        """Keep a connection until its client sends something, closes it, or `seconds` have passed; never blocks."""
        job.expires = monotonic() + seconds
        fd = job.fd
        again, job.is_watched = job.is_watched, True
        self.jobs[fd] = job  # first: after the next line another thread may take it and put it back
        try:
            try:
                sockets.watch_once(self._epoll_fd, fd, again=again)
            except FileExistsError:  # another job had the connection before, and put it here too
                sockets.watch_once(self._epoll_fd, fd, again=True)
        except OSError:
            if self.jobs.pop(fd, None) is not None:
                sockets.close(fd)

    def take(self) -> IdleJob | None:
        """A connection on which something has arrived, or None; never blocks."""
        if not self.jobs:
            return None
        fd = sockets.take_ready(self._epoll_fd)
        return None if fd is None else self.jobs.pop(fd, None)

    def expire(self, *, quiet_too: bool = False) -> list[IdleJob]:
        """Remove expired connections; the caller answers and closes them.

        With `quiet_too` also those on which no request has begun to arrive.
        """
        now = monotonic()
        jobs = list(self.jobs.values())
        late = [job for job in jobs if job.expires <= now]
        if quiet_too:
            late += [job for job in jobs if job.expires > now and _is_quiet(job)]
        return [job for job in late if self._take_out(job)]

    def _take_out(self, job: IdleJob) -> bool:
        fd = job.fd
        if self.jobs.get(fd) is not job:  # a worker was faster
            return False
        if self.jobs.pop(fd, None) is not job:
            return False
        sockets.unwatch(self._epoll_fd, fd)  # data that arrives now must not wake a worker
        job.is_watched = False
        return True

    @property
    def count(self) -> int:
        """The number of idle connections."""
        return len(self.jobs)

    def close(self) -> None:
        """Close all of them."""
        while self.jobs:
            sockets.close(self.jobs.popitem()[0])
        self._epoll.close()


def _is_quiet(job: IdleJob) -> bool:
    return not job.in_head and not sockets.has_arrived(job.fd)


class _Waiting:
    """A job that waits for a signal; several threads may want to wake it, and one of them gets it.

    Nobody gets it before it is armed: until then it is with the thread that makes it wait.
    """

    __slots__ = ("_armed", "_is_woken", "_job", "events", "expires", "path", "request_id", "stream")

    def __init__(self, job: Job, wait: AnyOf) -> None:
        self._job = job
        self._armed: list[Job] = []
        self._is_woken = False
        self.path, self.request_id = job.path, job.request_id
        self.stream = job.stream if wait.is_writable else None
        self.expires = monotonic() + wait.limit_s
        self.events = (
            select.EPOLLRDHUP
            | (select.EPOLLIN if wait.is_readable else 0)
            | (select.EPOLLOUT if wait.is_writable else 0)
        )

    def is_served_by(self, mask: int) -> bool:
        """Whether it is what the job waits for, and not merely the client's end."""
        return bool(mask & self.events & (select.EPOLLIN | select.EPOLLOUT))

    def arm(self) -> bool:
        """It may be woken from now on; True if somebody has wanted to before, who may have got it by now."""
        self._armed.append(self._job)
        return self._is_woken

    def claim(self) -> Job | None:
        """The job, for the first who asks."""
        self._is_woken = True
        try:
            return self._armed.pop()  # atomic
        except IndexError:
            return None


class ParkingLot:
    """Owns the jobs handed to settle() until they are queued again or closed."""

    def __init__(
        self,
        run_queue: RunQueue,
        idle: IdleConnections,
        admission: Admission | None,
        shutdown: Shutdown,
        *,
        lingering_max: int = LINGERING_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        """Without an `admission` nobody needs a ticket."""
        self._waiting_max = waiting_max
        self._run_queue = run_queue
        self._idle = idle
        self._admission = admission
        self._shutdown = shutdown
        self._arriving: deque[Job] = deque()
        self._parked: dict[int, Job] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._on_the_way: set[object] = set()
        """Waits for a ticket, and those that have ended and whose jobs are not in the run queue yet."""
        self._lingering_max = lingering_max
        self._lingering: deque[tuple[float, int]] = deque()
        self._epoll = select.epoll()
        self._epoll_fd = self._epoll.fileno()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._listener_fd = -1
        self._accept: Callable[[], bool] = lambda: True
        self._is_accepting_late = False
        self._stopping = False
        self._next_tick = 0.0
        self._thread = threading.Thread(target=self._run, name="parking", daemon=True)
        self.too_slow_total = 0
        self.turns = 0
        """How often the thread has turned: it does so four times a second at least, unless something holds it up."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def listen(self, fd: int, accept: Callable[[], bool]) -> None:
        """Have the thread call `accept` when a connection waits at this listener.

        If that returns False, it is called again after a moment only.
        """
        self._listener_fd, self._accept = fd, accept
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)

    def unlisten(self) -> None:
        """Not from now on; the listener's owner closes it."""
        fd, self._listener_fd = self._listener_fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(fd)

    def _listen_on(self) -> None:
        self._is_accepting_late = False
        with contextlib.suppress(OSError):  # the listener may just have been closed
            self._epoll.modify(self._listener_fd, select.EPOLLIN | select.EPOLLONESHOT)

    def settle(self, outcome: Outcome) -> None:
        """Take over the job whose outcome this is; never blocks."""
        if isinstance(outcome, Done):
            (self.linger if outcome.lingers else sockets.close)(outcome.job.fd)
        elif isinstance(outcome, Idles):
            self._idle.put(outcome.job, outcome.limit_s)
        else:
            job, event = outcome
            if event is Event.WRITABLE:
                self._arriving.append(job)
                sockets.raise_event(self._wake_fd)
            elif event is Event.TICKET and self._admission is not None:
                wait = object()
                self._on_the_way.add(wait)
                self._admission.enqueue(partial(self._admit, job, wait))
            elif isinstance(event, Event):
                self._run_queue.put_back(job)
            else:
                self._await(job, event if isinstance(event, AnyOf) else AnyOf((event,)))

    def _await(self, job: Job, wait: AnyOf) -> None:
        """Until one of these happens, or the client leaves."""
        waiting = _Waiting(job, wait)
        self._waiting[job.fd] = waiting
        try:
            sockets.watch(self._epoll_fd, job.fd, waiting.events)
        except OSError as error:  # no room for another watch
            with about(job.request_id):
                log.error("client not watched", extra={"path": job.path, "reason": str(error)})
        wake = partial(self._wake, waiting)
        is_due = [signal.subscribe(wake) for signal in wait.signals].count(False) > 0
        if waiting.arm() or is_due:
            wake()

    def _wake(self, waiting: _Waiting, *, is_broken: bool = False) -> None:
        """Queue the job, unless somebody else was faster; `is_broken`: its connection is of no use any longer."""
        job = waiting.claim()
        if job is None:
            return
        self._on_the_way.add(waiting)
        del self._waiting[job.fd]
        sockets.unwatch(self._epoll_fd, job.fd)
        job.has_left = is_broken
        self._run_queue.put_back(job)
        self._on_the_way.discard(waiting)  # last, so that a drain sees it in one place at any time

    def _admit(self, job: Job, wait: object, ticket: Ticket | None) -> None:
        """Its turn has come; called by the thread that gives a ticket back."""
        job.ticket = ticket
        self._run_queue.put_back(job)
        self._on_the_way.discard(wait)

    def linger(self, fd: int) -> None:
        """Take over an answered connection: no more comes from us, and it closes when the client has closed too.

        Costs no wake-up: the thread looks at these now and then. Past the bound the oldest closes at once.
        """
        if not sockets.end_sending(fd):  # the client was faster
            sockets.close(fd)
            return
        self._lingering.append((monotonic(), fd))
        if len(self._lingering) > self._lingering_max:
            try:
                _, oldest = self._lingering.popleft()
            except IndexError:  # another thread took the last one
                return
            _end(oldest)

    @property
    def parked(self) -> int:
        """How many jobs wait here, for their clients to take what they have been sent or for a signal."""
        return len(self._arriving) + len(self._parked) + len(self._waiting)

    def is_full(self) -> bool:
        """Whether no request that would have to wait may begin; those that have begun may, whatever they wait for."""
        return self.parked >= self._waiting_max

    @property
    def connections(self) -> int:
        """How many connections there are, but for those that a worker has or that only linger."""
        return self._idle.count + self.waiting

    @property
    def waiting(self) -> int:
        """How many jobs wait for anything but a client's next request: what a drain waits for."""
        return self.parked + len(self._on_the_way) + self._run_queue.waiting  # in the order in which a job moves

    # -- the thread ----------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                log.exception("parking thread error")

    def _turn(self) -> None:
        self.turns += 1
        for fd, mask in self._epoll.poll(_TICK_SECONDS):
            if fd == self._wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            elif fd == self._listener_fd:
                if self._accept():
                    self._listen_on()
                else:
                    self._is_accepting_late = True
            elif (waiting := self._waiting.get(fd)) is not None:
                # The event may be of an earlier connection with this descriptor: it is looked at once more.
                self._wake(waiting, is_broken=not waiting.is_served_by(mask) and sockets.has_left(fd))
            elif (job := self._parked.get(fd)) is not None:
                self._epoll.unregister(fd)
                self._run_queue.put_back(job)  # also a broken one: its next send says so
                del self._parked[fd]  # afterwards: at any time a drain finds it in one place
        while self._arriving:
            job = self._arriving[0]
            self._parked[job.fd] = job
            self._arriving.popleft()
            self._epoll.register(job.fd, select.EPOLLOUT)
        now = monotonic()
        if now >= self._next_tick:  # not in each turn: these look at every connection that they keep
            self._next_tick = now + _TICK_SECONDS
            self._end_lingering()
            self._drop_too_slow()
            self._wake_expired(now)
            if self._is_accepting_late:
                self._listen_on()
            for idle in self._idle.expire(quiet_too=self._shutdown.closes_idle):
                self.settle(idle.expire())

    def _drop_too_slow(self) -> None:
        for fd, job in list(self._parked.items()):
            if self._is_too_slow(job.stream, job):
                self._epoll.unregister(fd)
                del self._parked[fd]
                job.close()

    def _wake_expired(self, now: float) -> None:
        for waiting in list(self._waiting.values()):
            if waiting.stream is not None and self._is_too_slow(waiting.stream, waiting):
                self._wake(waiting, is_broken=True)
            elif waiting.expires <= now:
                self._wake(waiting)

    def _is_too_slow(self, stream: ClientStream, named: Job | _Waiting) -> bool:
        try:
            stream.check_rate()
        except ClientGone as error:
            with about(named.request_id):
                log.info("client dropped", extra={"path": named.path, "reason": str(error)})
            self.too_slow_total += 1
            return True
        return False

    def _end_lingering(self) -> None:
        now = monotonic()
        for _ in range(len(self._lingering)):
            try:
                since, fd = self._lingering.popleft()
            except IndexError:
                return
            if now - since < LINGER_SECONDS and not sockets.has_ended(fd):
                self._lingering.append((since, fd))
            else:
                _end(fd)

    def close(self) -> None:
        """Stop the thread and close what it holds."""
        self._stopping = True
        sockets.raise_event(self._wake_fd)
        if self._thread.ident is not None:
            self._thread.join()
        waiting = [waiting.claim() for waiting in list(self._waiting.values())]
        for job in (*self._parked.values(), *self._arriving, *waiting):
            if job is not None:
                job.close()
        for _, fd in self._lingering:
            _end(fd)
        self._epoll.close()
        os.close(self._wake_fd)


def _end(fd: int) -> None:
    """Close it. What the client has sent is read before: otherwise it would be reset, with what is still on its way."""
    sockets.has_ended(fd)
    sockets.close(fd)
