"""Acceptor: where an idle worker gets its next request from: the handoff line first, then the listener.

Every worker waits on an epoll of its own in which both are registered with EPOLLEXCLUSIVE, so that the kernel wakes one
worker for a connection, not all of them. A worker that has just finished tries to accept before it waits: under load no
wait is needed at all.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import threading

from webproxy.errors import ClientGone
from webproxy.exchange.body_transfer import BodyTransfer, LongRequest
from webproxy.getfile import RemoteProtocolError, Status, Wire, parse_request, refusal
from webproxy.getfile.messages import SCHEME
from webproxy.serving.parking import ParkingLot
from webproxy.serving.run_queue import HttpStart, Request, RunQueue
from webproxy.transport import sockets
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.keepalive import IdleConnections
from webproxy.transport.listener import BACKLOG
from webproxy.transport.sniffing import Spoken, spoken_by

log = logging.getLogger(__name__)

Job = Request | LongRequest | HttpStart | HttpConnection | BodyTransfer
"""What a worker can be given to do."""

WAIT_SECONDS = 0.25
_UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
"""Without descriptors there is no connection to answer on in any other way."""
_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """The workers' side of listener, handoff line and boss."""

    def __init__(
        self,
        listener: socket.socket,
        run_queue: RunQueue,
        parking: ParkingLot,
        worker_count: int,
        wire: Wire,
        *,
        idle: IdleConnections | None = None,
        speaks_getfile: bool = True,
    ) -> None:
        """`idle` are the HTTP connections between two requests; None when HTTP is not spoken here."""
        self._listener = listener
        self._listener_fd = listener.fileno()
        self._run_queue = run_queue
        self._parking = parking
        self._wire = wire
        self._idle = idle
        self._speaks_getfile = speaks_getfile
        self._accepting = True
        self._paused_turn = False
        self._waits = [self._new_wait() for _ in range(worker_count)]
        self._reserve_fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._reserve_lock = threading.Lock()
        self._is_short = False  # of descriptors, as far as the last accept() tells
        self._pause = threading.Event()
        self.shed_total = 0
        self.invalid_total = 0

    def _new_wait(self) -> select.epoll:
        wait = select.epoll()
        wait.register(self._listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        wait.register(self._run_queue.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        if self._idle is not None:  # an epoll in an epoll cannot be exclusive: of the workers that sleep all wake
            wait.register(self._idle.fileno(), select.EPOLLIN)
        return wait

    def take(self, index: int) -> Job | None:
        """The next job for worker `index`, waiting a short while; None when there was none.

        New requests go first, and every other time a paused response does; old connections with their next requests
        and new ones take turns: none can starve another.
        """
        run_queue = self._run_queue
        self._paused_turn = not self._paused_turn
        turn = self._paused_turn
        job: Job | None = (run_queue.take_paused() if turn else None) or run_queue.take()
        if job is not None:
            return job
        if not turn and self._idle is not None and (connection := self._idle.take()) is not None:
            return connection
        fd = self._accept() if self._accepting else None
        if fd is not None:
            return self._read(fd)
        if turn and self._idle is not None and (connection := self._idle.take()) is not None:
            return connection
        response = run_queue.take_paused()
        if response is None:
            self._waits[index].poll(WAIT_SECONDS, 1)
        return response

    def others_wait(self) -> bool:
        """True when a request or a paused response waits for a worker; takes what clients have sent, never blocks."""
        if self._run_queue.waiting:
            return True
        connection = self._idle.take() if self._idle is not None else None
        if connection is not None:
            self._run_queue.put(connection)
            return True
        fd = self._accept() if self._accepting else None
        request = self._read(fd) if fd is not None else None
        if request is not None:
            self._run_queue.put(request)
        return request is not None

    def _accept(self) -> int | None:
        try:
            if not self._is_short:
                return sockets.accept(self._listener_fd)
            with self._reserve_lock:  # else it could take the descriptor that another worker has just given up
                fd = sockets.accept(self._listener_fd)
            self._is_short = fd is None
            return fd
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                self._is_short = True
                self._shed(error)
            return None  # everything else: the client was gone before we came

    def _read(self, fd: int) -> Request | HttpStart | None:
        try:
            data = sockets.receive(fd)
        except ClientGone:
            sockets.close(fd)
            return None
        if not self._speaks_getfile and data == b"":
            self._parking.linger(fd)
            return None
        if data is None or (data and self._idle is not None and not (self._speaks_getfile and data.startswith(SCHEME))):
            data = data or b""
            spoken = Spoken.UNDECIDED if not data else spoken_by(data) if self._speaks_getfile else Spoken.HTTP
            if spoken is Spoken.HTTP:
                return HttpStart(fd, data)
            if spoken is Spoken.UNDECIDED:
                self._parking.adopt(fd, data)
                return None
        return self._read_getfile(fd, data)

    def _read_getfile(self, fd: int, data: bytes) -> Request | None:
        path: bytes | None = None
        if data and self._speaks_getfile:
            try:
                path = parse_request(data)
            except RemoteProtocolError:
                data = b""
        if path is not None:
            return fd, path
        if data:
            self._parking.adopt(fd, data)
        else:
            self.invalid_total += 1
            with contextlib.suppress(ClientGone):
                sockets.send(fd, refusal(Status.INVALID, self._wire))
            self._parking.linger(fd)
        return None

    def _shed(self, error: OSError) -> None:
        """Out of descriptors: give up the reserved one to accept a connection, answer ERROR, and take it back.

        Left alone, the connection would stay in the queue and the wait would end at once, for ever.
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
                except OSError:  # taken by another thread meanwhile: who connects now waits until one is free
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
            sockets.send(fd, _UNAVAILABLE if self._is_http(data or b"") else refusal(Status.ERROR, self._wire))
        sockets.end_sending(fd)
        return os.dup2(self._run_queue.fileno(), fd, inheritable=False)

    def _is_http(self, data: bytes) -> bool:
        return self._idle is not None and (not self._speaks_getfile or spoken_by(data) is Spoken.HTTP)

    def stop_accepting(self) -> None:
        """Take what clients have sent already, then close the listener: from now on nothing new comes.

        What waits in the listener's queue would be reset. One queue of it is all: who goes on connecting delays no end.
        """
        self._accepting = False
        for _ in range(BACKLOG + 1):  # the kernel queues one more than listen() was told
            if (fd := self._accept()) is None:
                break
            request = self._read(fd)
            if request is not None:
                self._run_queue.put(request)
        self._pause.set()
        for wait in self._waits:
            with contextlib.suppress(OSError):
                wait.unregister(self._listener)
        self._listener.close()

    def close(self) -> None:
        """Close the listener and the workers' epolls; no worker may be in take() any more."""
        self._listener.close()
        for wait in self._waits:
            wait.close()
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
