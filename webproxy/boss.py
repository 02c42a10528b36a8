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

from webproxy import sockets
from webproxy.errors import ClientGone
from webproxy.getfile import RemoteProtocolError, Status, Wire, parse_request, refusal
from webproxy.handoff import Handoff, HttpStart
from webproxy.hit import HitResponse
from webproxy.protocols import Spoken, spoken_by

log = logging.getLogger(__name__)

LINGER_SECONDS = 2.0
LINGERING_MAX = 128
UNFINISHED_MAX = 10_000
_TICK_SECONDS = 0.25


@dataclass(slots=True)
class _Unfinished:
    fd: int
    data: bytes
    expires: float


class Boss:
    """Owns the sockets handed to adopt() and linger() until it hands them on or closes them."""

    def __init__(
        self,
        handoff: Handoff,
        *,
        request_timeout_s: float,
        wire: Wire,
        speaks_http: bool = False,
        expire_idle: Callable[[], None] = lambda: None,
    ) -> None:
        """`expire_idle` ends the connections that have idled too long; called a few times a second."""
        self._handoff = handoff
        self._speaks_http = speaks_http
        self.expire_idle = expire_idle
        self._request_timeout_s = request_timeout_s
        self._wire = wire
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._unfinished: dict[int, _Unfinished] = {}
        self._arriving_paused: deque[HitResponse] = deque()
        self._paused: dict[int, HitResponse] = {}
        self._lingering: deque[tuple[float, int]] = deque()
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._stopping = False
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

    def park(self, response: HitResponse) -> None:
        """Take over a response whose client takes nothing for now; it goes on when the client takes data again."""
        self._arriving_paused.append(response)
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
        """How many responses wait here for their clients."""
        return len(self._paused) + len(self._arriving_paused)

    # -- the thread ----------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception:
                log.exception("boss failed in a turn")

    def _turn(self) -> None:
        for fd, _ in self._epoll.poll(self._next_wait()):
            if fd == self._wake_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(fd)
            elif fd in self._unfinished:
                self._receive(fd)
            elif fd in self._paused:
                self._epoll.unregister(fd)
                self._handoff.put_paused(self._paused.pop(fd))  # also a broken one: its next send says so
        while self._inbox:
            self._enter(*self._inbox.popleft())
        while self._arriving_paused:
            response = self._arriving_paused.popleft()
            self._paused[response.stream.fd] = response
            self._epoll.register(response.stream.fd, select.EPOLLOUT)
        self._drop_too_slow()
        self._expire()
        self.expire_idle()
        self._end_lingering()

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
        entry.data += data
        if self._speaks_http and data:
            spoken = spoken_by(entry.data)
            if spoken is Spoken.HTTP:
                whole = entry.data
                self._handoff.put(HttpStart(self._leave(fd), whole))
                return
            if spoken is Spoken.UNDECIDED:
                return
        try:
            path = parse_request(entry.data) if data else None
        except RemoteProtocolError:
            self._invalid(fd)
            return
        if path is not None:
            self._handoff.put((self._leave(fd), path))
        elif not data:
            self._invalid(fd)

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
            fd, entry = next(iter(self._unfinished.items()))
            if entry.expires > now:
                return
            self._invalid(fd)

    def _drop_too_slow(self) -> None:
        for fd, response in list(self._paused.items()):
            try:
                response.stream.check_rate()
            except ClientGone as error:
                self._epoll.unregister(fd)
                del self._paused[fd]
                sockets.close(fd)
                self.too_slow_total += 1
                log.info("client dropped", extra={"path": response.key, "reason": str(error)})

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
        for response in self._arriving_paused:
            sockets.close(response.stream.fd)
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
