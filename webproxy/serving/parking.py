"""Boss: the thread that keeps what would block a worker: unfinished requests, slow clients, ends of connections.

A worker that accepts a connection and finds the whole request there serves it at once. Anything else comes here, and
costs no worker: when the request is whole, the boss puts it on the handoff line; at the time limit or at the client's
end of stream it answers INVALID itself. A response whose client takes no more is parked here, a descriptor and a few
numbers, until the client takes data again. A connection that was answered is closed here when the client has closed its
side, so that no reset destroys data in flight.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from webproxy.errors import ClientGone
from webproxy.exchange.body_transfer import BodyTransfer
from webproxy.getfile import RemoteProtocolError, Status, Wire, parse_request, refusal
from webproxy.serving.run_queue import HttpStart, RunQueue
from webproxy.transport import sockets
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.sniffing import Spoken, leans_to_http, spoken_by

log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
LINGERING_MAX = 128
UNFINISHED_MAX = 10_000
_TICK_SECONDS = 0.25

Waiting = BodyTransfer | HttpConnection
"""A response in its middle, or a connection whose next answer has no room on its way to the client."""


@dataclass(slots=True)
class _Unfinished:
    fd: int
    data: bytes
    expires: float


class ParkingLot:
    """Owns the sockets handed to adopt() and linger() until it hands them on or closes them."""

    def __init__(
        self,
        run_queue: RunQueue,
        *,
        request_timeout_s: float,
        wire: Wire,
        speaks_http: bool = False,
        speaks_getfile: bool = True,
        expire_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """`expire_idle` ends the connections that have idled too long; called a few times a second."""
        self._run_queue = run_queue
        self._speaks_http = speaks_http
        self._speaks_getfile = speaks_getfile
        self.expire_idle = expire_idle
        self._request_timeout_s = request_timeout_s
        self._wire = wire
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._unfinished: dict[int, _Unfinished] = {}
        self._arriving_paused: deque[Waiting] = deque()
        self._paused: dict[int, Waiting] = {}
        self._lingering: deque[tuple[float, int]] = deque()
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._stopping = False
        self._look_again = 0.0
        self._thread = threading.Thread(target=self._run, name="boss", daemon=True)
        self.invalid_total = 0
        self.too_slow_total = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # -- called by workers ---------------------------------------------------------------------------------------
    def adopt(self, fd: int, data: bytes) -> None:
        """Take over a connection whose request is not whole yet; never blocks."""
        self._inbox.append((fd, data))
        os.eventfd_write(self._wake_fd, 1)

    def park(self, waiting: Waiting) -> None:
        """Take over what has a client that takes nothing for now; it goes on when the client takes data again."""
        self._arriving_paused.append(waiting)
        os.eventfd_write(self._wake_fd, 1)

    def linger(self, fd: int) -> None:
        """Take over an answered connection: no more comes from us, and it closes when the client has closed too.

        Costs no wake-up: the boss looks at these now and then. Past the bound the oldest closes at once.
        """
        if not sockets.end_sending(fd):  # the client was faster
            sockets.close(fd)
            return
        self._lingering.append((monotonic(), fd))
        if len(self._lingering) > LINGERING_MAX:
            try:
                sockets.close(self._lingering.popleft()[1])
            except IndexError:  # another thread took the last one
                pass

    @property
    def unfinished(self) -> int:
        """How many connections wait here for the rest of their request."""
        return len(self._unfinished)

    @property
    def parked(self) -> int:
        """How many responses and connections wait here until their clients take what they have been sent."""
        return len(self._paused) + len(self._arriving_paused)

    # -- the thread ----------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                log.exception("parking thread error")

    def _turn(self) -> None:
        for fd, _ in self._epoll.poll(self._next_wait()):
            if fd == self._wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            elif fd in self._unfinished:
                self._receive(fd)
            elif fd in self._paused:
                self._epoll.unregister(fd)
                self._go_on(self._paused.pop(fd))  # also a broken one: its next send says so
        while self._inbox:
            self._enter(*self._inbox.popleft())
        while self._arriving_paused:
            waiting = self._arriving_paused.popleft()
            self._paused[waiting.stream.fd] = waiting
            self._epoll.register(waiting.stream.fd, select.EPOLLOUT)
        self._expire()
        self._end_lingering()
        now = monotonic()
        if now >= self._look_again:  # not in each turn: these look at every connection that they keep
            self._look_again = now + _TICK_SECONDS
            self._drop_too_slow()
            self.expire_idle()

    def _go_on(self, waiting: Waiting) -> None:
        if isinstance(waiting, BodyTransfer):
            self._run_queue.put_paused(waiting)
        else:
            self._run_queue.put(waiting)

    def _next_wait(self) -> float:
        first = next(iter(self._unfinished.values()), None)
        return _TICK_SECONDS if first is None else max(0.0, min(_TICK_SECONDS, first.expires - monotonic()))

    def _enter(self, fd: int, data: bytes) -> None:
        if len(self._unfinished) >= UNFINISHED_MAX:
            self._answer(fd, Status.ERROR)
            return
        self._unfinished[fd] = _Unfinished(fd, data, monotonic() + self._request_timeout_s)
        self._epoll.register(fd, select.EPOLLIN)

    def _receive(self, fd: int) -> None:
        entry = self._unfinished[fd]
        try:
            data = sockets.receive(fd)
        except ClientGone:
            sockets.close(self._leave(fd))
            return
        if data is None:
            return
        if not data:
            self._give_up(entry, 400)
            return
        entry.data += data
        spoken = self._spoken_by(entry.data)
        if spoken is Spoken.HTTP:
            self._run_queue.put(HttpStart(self._leave(fd), entry.data))
        elif spoken is Spoken.GETFILE:
            try:
                path = parse_request(entry.data)
            except RemoteProtocolError:
                self._invalid(fd)
                return
            if path is not None:
                self._run_queue.put((self._leave(fd), path))

    def _spoken_by(self, data: bytes) -> Spoken:
        if not self._speaks_http:
            return Spoken.GETFILE
        return spoken_by(data) if self._speaks_getfile else Spoken.HTTP

    def _give_up(self, entry: _Unfinished, status: int) -> None:
        """The rest of a request does not come; `status` says why to a client of HTTP."""
        if self._speaks_http and leans_to_http(entry.data):
            self._run_queue.put(HttpStart(self._leave(entry.fd), entry.data, status))
        elif self._speaks_getfile:
            self._invalid(entry.fd)
        else:
            self.linger(self._leave(entry.fd))

    def _leave(self, fd: int) -> int:
        self._epoll.unregister(fd)
        return self._unfinished.pop(fd).fd

    def _invalid(self, fd: int) -> None:
        self.invalid_total += 1
        self._answer(self._leave(fd), Status.INVALID)

    def _answer(self, fd: int, status: Status) -> None:
        with contextlib.suppress(ClientGone):
            sockets.send(fd, refusal(status, self._wire))
        self.linger(fd)

    def _expire(self) -> None:
        now = monotonic()
        while self._unfinished:  # in the order of their deadlines: all have the same time limit
            entry = next(iter(self._unfinished.values()))
            if entry.expires > now:
                return
            self._give_up(entry, 408)

    def _drop_too_slow(self) -> None:
        for fd, waiting in list(self._paused.items()):
            try:
                waiting.stream.check_rate()
            except ClientGone as error:
                self._epoll.unregister(fd)
                del self._paused[fd]
                sockets.close(fd)
                self.too_slow_total += 1
                log.info("client dropped", extra={"path": waiting.path, "reason": str(error)})

    def _end_lingering(self) -> None:
        now = monotonic()
        for _ in range(len(self._lingering)):
            try:
                since, fd = self._lingering.popleft()
            except IndexError:
                return
            if now - since < LINGER_SECONDS and not _has_ended(fd):
                self._lingering.append((since, fd))
            else:
                sockets.close(fd)

    def close(self) -> None:
        """Stop the thread and close what it holds."""
        self._stopping = True
        os.eventfd_write(self._wake_fd, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for fd, _ in self._inbox:
            sockets.close(fd)
        for fd in (*self._unfinished, *self._paused):
            sockets.close(fd)
        for waiting in self._arriving_paused:
            sockets.close(waiting.stream.fd)
        for _, fd in self._lingering:
            sockets.close(fd)
        self._epoll.close()
        os.close(self._wake_fd)


def _has_ended(fd: int) -> bool:
    """True when the client closed its side; what it still sends is read and forgotten."""
    try:
        while data := sockets.receive(fd):
            pass
    except ClientGone:
        return True
    return data is not None
