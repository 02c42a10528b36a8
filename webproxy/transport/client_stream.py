"""ClientStream: sending to one client's connection, and measuring slow clients."""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
from dataclasses import dataclass
from time import monotonic

from webproxy.errors import ClientGone, ClientTooSlow
from webproxy.transport import sockets

_POLL_SECONDS = 0.25
LOOK_BYTES = 32_768
"""The minimum space in any kernel's buffer that reports to be writable."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The minimum rate of a client: `bytes_per_s` over `window_s` seconds; 0 disables it."""

    bytes_per_s: int
    window_s: float


class Shutdown:
    """The stages in which this process ends, for everyone about to start or wait for something.

    Both only ever become True; read by every thread, written by the one that ends the process.
    """

    def __init__(self) -> None:
        self.draining = False
        """Running requests complete, and no connection is kept open."""
        self.stopping = False
        """Nothing may be waited for."""


class ClientStream:
    """Sends to a socket with a short kernel send timeout: each send transfers what the client accepted in that time."""

    __slots__ = ("_limit", "_looked_at", "_sent_bytes", "_shutdown", "_window_end", "_window_taken", "fd")

    def __init__(self, fd: int, limit: RateLimit, shutdown: Shutdown) -> None:
        self.fd = fd
        self._limit = limit
        self._shutdown = shutdown
        self._sent_bytes = 0
        self._looked_at = 0
        self._window_end = 0.0
        self._window_taken = 0

    def begin_answer(self, *, looks: bool = True) -> bool:
        """Prepare for another response on the same connection: its rate is measured anew.

        Returns False if the client has left so much of earlier responses unread that this one must wait. `looks` is
        False for a response that can also wait after its first bytes.
        """
        self._window_end = 0.0
        if not looks or self._sent_bytes - self._looked_at < LOOK_BYTES:
            return True
        if not sockets.has_room(self.fd):
            return False
        self._looked_at = self._sent_bytes
        return True

    def reset(self) -> None:
        """Reset the connection: what was sent is incomplete. Its owner closes the descriptor as usual."""
        sockets.reset(self.fd)

    def send_memory(self, address: int, count: int, more: bool = False) -> int:
        """Send what the client accepts of `count` bytes of mapped memory within the patience; returns how many.

        `more`: other bytes follow at once.

        Raises:
            ClientGone: the connection is closed or broken.
        """
        sent = sockets.send_memory(self.fd, address, count, more)
        self._sent_bytes += sent
        return sent

    def send_chunk(self, pointer: object, count: int, more: bool) -> int:
        """As send_memory(), from a ctypes pointer."""
        sent = sockets.send_chunk(self.fd, pointer, count, more)
        self._sent_bytes += sent
        return sent

    def send_with_header(self, header: bytes, address: int, count: int, more: bool) -> int:
        """Send a header and as much of the memory as the client accepts; as send_memory(), whose count it returns."""
        if count > sockets.SMALL_BYTES or more:
            self.send_header(header)
            return self.send_memory(address, count, more)
        sent = sockets.send_with_header(self.fd, header, address, count)
        self._sent_bytes += sent
        if sent < len(header):
            self.send_all(header[sent:])
            return 0
        return sent - len(header)

    def send_header(self, header: bytes) -> None:
        """Send all of a header that content follows. Errors as send_all()."""
        if not self.begin_header(header):
            self.send_all(header)

    def begin_header(self, header: bytes) -> bool:
        """As send_header(); False if the client accepts nothing now."""
        sent = sockets.send_header(self.fd, header)
        self._sent_bytes += sent
        if 0 < sent < len(header):
            self.send_all(header[sent:])
        return sent > 0

    def send_some(self, data: bytes, *, more: bool = False) -> int:
        """Send what the kernel accepts now; returns the number of bytes. Arguments and errors as send_memory()."""
        sent = sockets.send_header(self.fd, data) if more else sockets.send(self.fd, data)
        self._sent_bytes += sent
        return sent

    def send_all(self, data: bytes) -> None:
        """Send everything, waiting as long as the client keeps the minimum rate.

        Raises:
            ClientGone, ClientTooSlow: it did not.
        """
        while True:
            sent = sockets.send(self.fd, data)
            self._sent_bytes += sent
            if sent == len(data):
                return
            data = data[sent:]
            self.wait_writable()

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """Send from a file whose bytes no longer change; returns how many the client accepted within the patience."""
        try:
            sent = os.sendfile(self.fd, fd, offset, count)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        self._sent_bytes += sent
        return sent

    def wait_writable(self) -> None:
        """Wait until a slow client is writable again.

        Raises:
            ClientGone: it closed, or the daemon stops without waiting.
            ClientTooSlow: it took less than the minimum rate over the window.
        """
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        while True:
            for _, events in poll.poll(_POLL_SECONDS * 1000):
                if events & (select.POLLERR | select.POLLHUP):
                    raise ClientGone("connection broken while waiting for the client")
                return
            if self._shutdown.stopping:
                raise ClientGone("the daemon stops")
            self.check_rate()

    def check_rate(self) -> None:
        """Called regularly while waiting for the client.

        Raises:
            ClientTooSlow: it took less than the minimum rate over the window.
        """
        if not self._window_end:
            self._open_window()
        elif self._limit.bytes_per_s and monotonic() >= self._window_end:
            taken = self._taken() - self._window_taken
            if taken < self._limit.bytes_per_s * self._limit.window_s:
                raise ClientTooSlow(f"{taken} bytes in {self._limit.window_s:.0f} s")
            self._open_window()

    def measure_anew(self) -> None:
        """Nobody has waited for the client until now: its rate is measured from here on."""
        self._window_end = 0.0

    def _open_window(self) -> None:
        self._window_end = monotonic() + self._limit.window_s
        self._window_taken = self._taken()

    def _taken(self) -> int:
        """The bytes the client has acknowledged: a slow one reads long before the socket is writable again."""
        queued = array.array("i", [0])
        try:
            fcntl.ioctl(self.fd, termios.TIOCOUTQ, queued)
        except OSError as error:
            raise ClientGone(str(error)) from error
        return self._sent_bytes - queued[0]
