"""Acceptor: finds an idle worker's next job: in the run queue, among idle connections, or at the listener.

Every worker waits on an epoll of its own in which these are registered, queue and listener with EPOLLEXCLUSIVE, so that
the kernel wakes one worker for a connection instead of all. A worker that has just finished tries to accept before it
waits: under load no wait is needed at all.

NewConnection is a client's connection until it is known what it asks for; Protocols says who serves that then. A worker
that accepts a connection mostly finds the whole request there, and no NewConnection is made. One that has sent too
little to tell idles like any other connection, for as long as a request may take to come.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading
from time import monotonic

from shmchannel.streams.admission import Ticket
from webproxy.errors import ClientGone
from webproxy.exchange.getfile_request import GetfileRequest, GetfileRequestHandler
from webproxy.getfile import RemoteProtocolError, Status, Wire, parse_request, refusal
from webproxy.serving.http1_server import Http1Server
from webproxy.serving.run_queue import RunQueue
from webproxy.transport import sockets
from webproxy.transport.client_stream import ClientStream
from webproxy.transport.job import Done, Idles, Job, Outcome
from webproxy.transport.keepalive import IdleConnections
from webproxy.transport.listener import BACKLOG
from webproxy.transport.sniffing import Spoken, leans_to_http, spoken_by

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.25
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""With fewer descriptors there is no other way to answer."""


class Protocols:
    """The protocols spoken on the port: getfile, HTTP or both. Shared by all workers."""

    def __init__(
        self,
        getfile: GetfileRequestHandler | None,
        http: Http1Server | None,
        idle: IdleConnections,
        wire: Wire,
        *,
        request_timeout_s: float,
        connections_max: int,
    ) -> None:
        self._getfile = getfile
        self._http = http
        self._idle = idle
        self._wire = wire
        self.request_timeout_s = request_timeout_s
        self._connections_max = connections_max
        self.invalid_total = 0

    def job_for(self, fd: int, data: bytes) -> Job | None:
        """The job for a connection with these first bytes; None while undecided, or while the request is incomplete.

        Raises:
            RemoteProtocolError: no protocol matches.
        """
        spoken = self._spoken_by(data)
        if spoken is Spoken.HTTP and self._http is not None:
            return self._http.connect(fd, data)
        if spoken is Spoken.GETFILE and self._getfile is not None:
            path = parse_request(data)
            return None if path is None else GetfileRequest(self._getfile, fd, path)
        return None

    def _spoken_by(self, data: bytes) -> Spoken:
        if self._http is None:
            return Spoken.GETFILE
        return spoken_by(data) if self._getfile is not None else Spoken.HTTP

    @property
    def are_full(self) -> bool:
        """True while no connection can be kept for a request that is still to come."""
        return self._idle.count >= self._connections_max

    def refuse(self, fd: int, data: bytes, status: int) -> None:
        """The rest of the request does not come; `status` says why to a client of HTTP. Never blocks."""
        if self._http is not None and leans_to_http(data):
            self._http.refuse(fd, status)
        elif self._getfile is not None:
            self.refuse_invalid(fd)

    def refuse_invalid(self, fd: int) -> None:
        """The bytes are not a request of any protocol. Never blocks."""
        self.invalid_total += 1
        self._send(fd, refusal(Status.INVALID, self._wire))

    def refuse_overload(self, fd: int, data: bytes) -> None:
        """The limit of connections is reached. Never blocks."""
        is_http = self._spoken_by(data) is Spoken.HTTP or (self._http is not None and leans_to_http(data))
        self._send(fd, _UNAVAILABLE if is_http else refusal(Status.ERROR, self._wire))

    def _send(self, fd: int, data: bytes) -> None:
        with contextlib.suppress(ClientGone):
            sockets.send(fd, data)


class NewConnection:
    """A job that becomes another one as soon as its first bytes tell which."""

    __slots__ = ("_data", "_protocols", "_until", "expires", "fd", "is_watched", "ticket")

    def __init__(self, protocols: Protocols, fd: int, data: bytes) -> None:
        self._protocols = protocols
        self.fd = fd
        self._data = data
        self._until = monotonic() + protocols.request_timeout_s
        self.expires = 0.0
        self.is_watched = False
        self.ticket: Ticket | None = None

    @property
    def path(self) -> bytes:
        """Not known yet."""
        return b""

    @property
    def stream(self) -> ClientStream:
        """Never waits for its client to read."""
        raise NotImplementedError

    @property
    def in_head(self) -> bool:
        """A request has begun to arrive."""
        return bool(self._data)

    def run(self) -> Outcome:
        """See what has come, and be the request that it is."""
        protocols = self._protocols
        try:
            received = sockets.receive(self.fd)
            self._data += received or b""
            job = protocols.job_for(self.fd, self._data) if self._data else None
        except ClientGone:
            return Done(self)
        except RemoteProtocolError:
            protocols.refuse_invalid(self.fd)
            return Done(self)
        if job is not None:
            return job.run()
        if received == b"":
            protocols.refuse(self.fd, self._data, 400)
            return Done(self)
        if protocols.are_full:
            protocols.refuse_overload(self.fd, self._data)
            return Done(self)
        return Idles(self, self._until - monotonic())

    def expire(self) -> Outcome:
        """The rest has not arrived in time."""
        self._protocols.refuse(self.fd, self._data, 408)
        return Done(self)

    def close(self) -> None:
        """The process ends."""
        sockets.close(self.fd)


class Acceptor:
    """Shared by all workers."""

    def __init__(
        self,
        listener: socket.socket,
        run_queue: RunQueue,
        idle: IdleConnections,
        protocols: Protocols,
        worker_count: int,
    ) -> None:
        self._listener = listener
        self._listener_fd = listener.fileno()
        self._run_queue = run_queue
        self._idle = idle
        self._protocols = protocols
        self._accepting = True
        self._back_first = False
        self._waits = [self._new_wait() for _ in range(worker_count)]
        self._reserve_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._reserve_lock = threading.Lock()
        self._is_short = False  # of descriptors, as of the last accept()
        self._pause = threading.Event()
        self.shed_total = 0

    def _new_wait(self) -> select.epoll:
        wait = select.epoll()
        wait.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        wait.register(self._run_queue.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        # An epoll within an epoll cannot be exclusive: all sleeping workers wake.
        wait.register(self._idle.fileno(), select.EPOLLIN)
        return wait

    def take(self, index: int) -> Job | None:
        """The next job for worker `index`, waiting a short while; None if there was none.

        New jobs come first, except that every other time one that has waited does; idle connections with new requests
        and new connections alternate, so that none starves another.
        """
        run_queue = self._run_queue
        self._back_first = back_first = not self._back_first
        job = (run_queue.take_back() if back_first else None) or run_queue.take()
        if job is None and not back_first:
            job = self._idle.take()
        if job is None and self._accepting and (fd := self._accept()) is not None:
            return self._first_job(fd)
        if job is None and back_first:
            job = self._idle.take()
        if job is None:
            job = run_queue.take_back()
        if job is None:
            self._waits[index].poll(WAIT_SECONDS, 1)
        return job

    def _first_job(self, fd: int) -> Job | None:
        try:
            data = sockets.receive(fd)
        except ClientGone:
            sockets.close(fd)
            return None
        try:
            job = self._protocols.job_for(fd, data) if data else None
        except RemoteProtocolError:
            job = None
        return job or NewConnection(self._protocols, fd, data or b"")

    def _accept(self) -> int | None:
        try:
            if not self._is_short:
                return sockets.accept(self._listener_fd)
            with self._reserve_lock:  # otherwise it could take the descriptor that another worker has just released
                fd = sockets.accept(self._listener_fd)
            self._is_short = fd is None
            return fd
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                self._is_short = True
                self._shed(error)
            return None  # everything else: the client has already gone

    def _shed(self, error: OSError) -> None:
        """Out of descriptors: use the reserved one to accept a connection, answer ERROR, and get it back.

        Otherwise the connection would stay in the queue, and every wait would end at once, forever.
        """
        with self._reserve_lock:
            self.shed_total += 1
            if self.shed_total in (1, 100, 10_000):
                log.error(
                    "connection refused",
                    extra={"reason": str(error), "shed": self.shed_total, "remedy": "raise ulimit -n"},
                )
            if self._reserve_fd >= 0:
                self._reserve_fd = self._refuse_one(self._reserve_fd)
            if self._reserve_fd < 0:
                try:
                    self._reserve_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:  # taken by another thread: new clients wait until one is free
                    self._pause.wait(WAIT_SECONDS)

    def _refuse_one(self, reserve_fd: int) -> int:
        """Accept in the reserved descriptor's place, refuse, and put a reserved one in the connection's place again.

        Closing and accepting keep the GIL and dup2(2) is one step, so that hardly ever another thread gets between.
        Returns the new reserved descriptor, -1 when the place was lost.
        """
        sockets.close(reserve_fd)
        try:
            fd = sockets.accept(self._listener_fd)
        except OSError:
            return -1
        if fd is None:
            return -1
        with contextlib.suppress(ClientGone):
            data = sockets.receive(fd)  # left unread, the request would turn the end into a reset
            self._protocols.refuse_overload(fd, data or b"")
        sockets.end_sending(fd)
        return os.dup2(self._run_queue.fileno(), fd, inheritable=False)

    def stop_accepting(self) -> None:
        """Take what clients have sent already, then close the listener: from now on nothing new comes.

        What waits in the listener's queue would be reset. One queue of it is all: who goes on connecting delays no end.
        """
        self._accepting = False
        for _ in range(BACKLOG + 1):  # the kernel queues one more than listen() was told
            if (fd := self._accept()) is None:
                break
            job = self._first_job(fd)
            if isinstance(job, NewConnection) and not job.in_head:  # no request has begun, so nobody waits for a reply
                self._idle.put(job, self._protocols.request_timeout_s)
            elif job is not None:
                self._run_queue.put(job)
        self._pause.set()
        for wait in self._waits:
            with contextlib.suppress(OSError):
                wait.unregister(self._listener)
        self._listener.close()

    def close(self) -> None:
        """Close the listener and the workers' epolls; no worker may be in take()."""
        self._listener.close()
        for wait in self._waits:
            wait.close()
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
