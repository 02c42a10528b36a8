"""Acceptor: finds an idle worker's next job: in the run queue, among idle connections, or at the listener.

A worker that has just finished looks at all of them before it sleeps (idle_workers.py): under load no sleep is needed
at all.

Accepted connections inherit the listener's options (listener.py). WorkerDemand looks at the same sources
as the workers do, and takes nothing.

Beyond the bound of connections a new one is told so at once by the worker that accepts it, and lingers. Without
descriptors it is told so in the place of a reserved one. If not even that works, nobody accepts for a moment: what
waits in the listener's queue would wake the workers in vain.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from webproxy.errors import ClientGone
from webproxy.exchange.fast_path import Unsent
from webproxy.getfile import RemoteProtocolError
from webproxy.serving.idle_workers import SLEEP_SECONDS, IdleWorkers
from webproxy.serving.new_connection import NewConnection, Protocols
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.job import Job
from webproxy.transport.listener import BACKLOG

if TYPE_CHECKING:
    from webproxy.serving.native_hits import HitLoop

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.25
GATHER_SECONDS = 0.002
GATHER_DEPTH = 64
_GATHER_MAX = 128
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class _Refusal(NamedTuple):
    """Why a connection is refused; of equal kinds the log has one line in a while."""

    kind: str
    reason: str
    remedy: str = "see Overload in docs/operations.md"


_TOO_MANY = _Refusal("connections", "too many connections", "raise connections_max")


class Acceptor:
    """Shared by all workers."""

    def __init__(
        self,
        listener: socket.socket,
        run_queue: RunQueue,
        idle: IdleConnections,
        parking: ParkingLot,
        protocols: Protocols,
        workers: IdleWorkers,
        hit_loop: HitLoop | None = None,
    ) -> None:
        """The `hit_loop` accepts too, and answers what it knows."""
        self._hit_loop = hit_loop
        self.listener = listener
        """Also for a process that shall inherit it."""
        self._listener_fd = listener.fileno()
        self._run_queue = run_queue
        self._idle = idle
        self._parking = parking
        self._protocols = protocols
        self._connections_max = protocols.limits.connections
        self._room = 0
        """How many more connections may be accepted before they are counted again, which costs as much as parsing."""
        self._accepting = True
        self._pauses_until = math.inf
        """When accepting goes on while it pauses; never after stop_accepting()."""
        self._back_first = False
        self._gathers_at = 0.0
        self._workers = workers
        for source in (self._listener_fd, run_queue.fileno(), idle.fileno()):
            workers.add(source)
        self._reserve_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._reserve_lock = threading.Lock()
        """Also held while accepting pauses, goes on or stops."""
        self._is_short = False  # of descriptors, as of the last accept()
        self.refused_total = 0

    def take(self, index: int) -> Job | None:
        """The next job for worker `index`, waiting a short while; None if there was none."""
        job = self._look()
        if job is None:
            self._workers.sleep(index, SLEEP_SECONDS if self._accepting else min(SLEEP_SECONDS, PAUSE_SECONDS))
            job = self._look()
            self._workers.share()
        return job

    def _look(self) -> Job | None:
        """The next job, if there is one.

        New jobs come first, except that every other time one that has waited does; idle connections with new requests
        and new connections alternate, so that none starves another.
        """
        run_queue = self._run_queue
        now = monotonic()
        if now >= self._gathers_at:
            self._gathers_at = now + GATHER_SECONDS
            self._room = 0  # those that have left give room again
            if self._accepting and self._workers.spare <= 0:
                self._gather()
        self._back_first = back_first = not self._back_first
        job = (run_queue.take_back() if back_first else None) or run_queue.take()
        if job is None and not back_first:
            job = self._idle.take()
        if job is None and (self._accepting or self._goes_on()):
            job = self._accept_job()
            if job is not None:
                return job
        if job is None and back_first:
            job = self._idle.take()
        if job is None:
            job = run_queue.take_back()
        return job

    def _gather(self) -> None:
        """All are busy. If the listener's line is long, accept what is in it, so that all can be served or refused.

        In the kernel's line nobody could be refused, and beyond its end a client tries again after a second.
        """
        run_queue, connections_max = self._run_queue, self._connections_max
        while (late := run_queue.take_late()) is not None:
            self._turn_away(late.fd, _Refusal("workers", "waited for a worker for too long"))
        if not run_queue.has_new and sockets.backlog(self.listener) <= GATHER_DEPTH:
            return
        for _ in range(_GATHER_MAX):
            if (fd := self._accept()) is None:
                return
            if self._parking.connections >= connections_max:
                self._turn_away(fd, _TOO_MANY)
            elif (refused := run_queue.put_bounded(NewConnection(self._protocols, fd, b""))) is not None:
                self._turn_away(refused.fd, _Refusal("workers", "too many requests wait for a worker"))

    def _turn_away(self, fd: int, refusal: _Refusal) -> None:
        """Tell the client of a connection of which nothing has been read."""
        try:
            data = sockets.receive(fd)
        except ClientGone:
            sockets.close(fd)
            return
        self._refuse(fd, data, refusal)

    def _refuse(self, fd: int, data: bytes | None, refusal: _Refusal) -> None:
        self._protocols.refuse_overload(fd, data or b"", refusal.reason)
        self._parking.linger(fd)
        self._note_refused(refusal)

    def _accept_job(self) -> Job | None:
        """The job of a connection that waits at the listener, unless the hit loop has answered all that do."""
        if self._hit_loop is None or self._is_short or not self._has_room():
            fd = self._accept()
            return None if fd is None else self._first_job(fd)
        try:
            accepted = self._hit_loop.accept(self._listener_fd)
        except OSError as error:
            self._note_not_accepted(error)
            return None
        if accepted is None:
            return None
        fd, told = accepted
        if isinstance(told, tuple):
            return self._protocols.go_on_with(fd, Unsent(*told))
        return self._first_job(fd) if told is None else self._job_of(fd, told)

    def _first_job(self, fd: int) -> Job | None:
        try:
            data = sockets.receive(fd)
        except ClientGone:
            sockets.close(fd)
            return None
        return self._job_of(fd, data)

    def _job_of(self, fd: int, data: bytes | None) -> Job | None:
        """The job of a connection on which this was received; it is refused if there is no room for one more."""
        if not self._has_room():
            self._refuse(fd, data, _TOO_MANY)
            return None
        self._room -= 1
        try:
            job = self._protocols.job_for(fd, data) if data else None
        except RemoteProtocolError:
            job = None
        return job or NewConnection(self._protocols, fd, data or b"")

    def _has_room(self) -> bool:
        if self._room <= 0:
            self._room = self._connections_max - self._parking.connections
        return self._room > 0

    def _accept(self) -> int | None:
        try:
            if not self._is_short:
                return sockets.accept(self._listener_fd)
            with self._reserve_lock:  # otherwise it could take the descriptor that another worker has just released
                fd = sockets.accept(self._listener_fd)
            self._is_short = fd is None
            return fd
        except OSError as error:
            self._note_not_accepted(error)
            return None

    def _note_not_accepted(self, error: OSError) -> None:
        if error.errno in _OUT_OF_DESCRIPTORS:  # everything else: the client has already gone
            self._is_short = True
            self._shed(error)

    def _shed(self, error: OSError) -> None:
        """Out of descriptors: use the reserved one to accept a connection, answer ERROR, and get it back.

        Otherwise the connection would stay in the queue, and every wait would end at once, forever.
        """
        with self._reserve_lock:
            is_stuck = False
            if self._reserve_fd >= 0:
                try:
                    self._reserve_fd = self._refuse_one(self._reserve_fd, str(error))
                except OSError:  # of memory, or it is the whole system that is out of descriptors
                    self._reserve_fd, is_stuck = -1, True
            if self._reserve_fd < 0:
                try:
                    self._reserve_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:  # taken by another thread
                    is_stuck = True
            if is_stuck and self._accepting:
                self._accepting, self._pauses_until = False, monotonic() + PAUSE_SECONDS
                self._ignore_listener()

    def _refuse_one(self, reserve_fd: int, reason: str) -> int:
        """Accept in the reserved descriptor's place, refuse, and put a reserved one in the connection's place again.

        Closing and accepting keep the GIL and dup2(2) is one step, so that hardly ever another thread gets between.
        Returns the new reserved descriptor, -1 if nobody was waiting.

        Raises:
            OSError: the place was lost, and the connection still waits.
        """
        sockets.close(reserve_fd)
        fd = sockets.accept(self._listener_fd)
        if fd is None:
            return -1
        with contextlib.suppress(ClientGone):
            data = sockets.receive(fd)  # left unread, the request would turn the end into a reset
            self._protocols.refuse_overload(fd, data or b"")
        sockets.end_sending(fd)
        reserve_fd = os.dup2(self._run_queue.fileno(), fd, inheritable=False)
        self._note_refused(_Refusal("descriptors", reason, "raise ulimit -n"))
        return reserve_fd

    def _note_refused(self, refusal: _Refusal) -> None:
        self.refused_total += 1
        log.warning("connection refused", extra={**refusal._asdict(), "refused": self.refused_total})

    def _goes_on(self) -> bool:
        """Whether accepting goes on after a pause."""
        if monotonic() < self._pauses_until:
            return False
        with self._reserve_lock:
            if not self._accepting and monotonic() >= self._pauses_until:
                self._accepting, self._pauses_until = True, math.inf
                self._workers.add(self._listener_fd)
        return self._accepting

    def _ignore_listener(self) -> None:
        with contextlib.suppress(OSError):
            self._workers.remove(self._listener_fd)

    def stop_accepting(self) -> None:
        """Take what clients have sent already, then close the listener: from now on nothing new comes.

        What waits in the listener's queue would be reset, unless another process has the same socket, which cannot be
        known here. One queue of it is all: who goes on connecting delays no end.
        """
        with self._reserve_lock:
            self._accepting, self._pauses_until = False, math.inf
        for _ in range(BACKLOG + 1):  # the kernel queues one more than listen() was told
            if (fd := self._accept()) is None:
                break
            job = self._first_job(fd)
            if isinstance(job, NewConnection) and not job.in_head:  # no request has begun, so nobody waits for a reply
                self._idle.put(job, self._protocols.limits.keepalive_s)
            elif job is not None:
                self._run_queue.put(job)
        self._ignore_listener()
        self.listener.close()

    def close(self) -> None:
        """Close the listener; no worker may be in take()."""
        self.listener.close()
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)


class WorkerDemand:
    """Tells a job that could yield whether others need its worker. It looks only, and takes nothing in."""

    def __init__(self, workers: IdleWorkers) -> None:
        self._workers = workers

    def others_wait(self) -> bool:
        """True when no worker can be woken, and a job in the queue, a new connection or a next request needs one."""
        return self._workers.spare <= 0 and self._workers.work_waits()

    def has_spare(self) -> bool:
        """True when at least two workers could be woken: one may be about to take a job."""
        return self._workers.spare > 1
