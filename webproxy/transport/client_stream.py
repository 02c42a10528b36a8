"""ClientStream: sending to one client's connection without waiting, and measuring slow clients."""

from __future__ import annotations

import array
import fcntl
import os
import termios
from time import monotonic

from webproxy.errors import ClientGone, ClientTooSlow
from webproxy.transport import sockets
from webproxy.transport.client_rate import RateLimit


class Shutdown:
    """Whether this process ends; read by every thread, written by the one that ends it."""

    def __init__(self) -> None:
        self.draining = False
        """Running requests complete, and each response says that its connection ends."""
        self.closes_idle = False
        """Connections between two requests are closed at once; otherwise their next request is answered first."""


class ClientStream:
    """Each send transfers what the kernel's buffer takes at once; whoever has more to send waits for Event.WRITABLE.

    A call of sendfile(2) cannot be told not to wait: before the first one the socket becomes non-blocking. Others stay
    as they are, because a worker that waits for a client's next request does so in recv(2).
    """

    __slots__ = ("_limit", "_window_end", "_window_taken", "fd", "is_quick", "never_waits", "sent_bytes")

    def __init__(self, fd: int, limit: RateLimit) -> None:
        self.fd = fd
        self.never_waits = False
        """The socket is non-blocking: receiving does not wait either."""
        self.is_quick = False
        """It made room within the time when it was waited for last."""
        self._limit = limit
        self.sent_bytes = 0
        """What the kernel has accepted on this connection."""
        self._window_end = 0.0
        self._window_taken = 0

    def reset(self) -> None:
        """Reset the connection: what was sent is incomplete. Its owner closes the descriptor as usual."""
        sockets.reset(self.fd)

    def send_memory(self, address: int, count: int, more: bool = False) -> int:
        """Send what the kernel accepts now of `count` bytes of mapped memory; returns how many.

        `more`: other bytes follow at once.

        Raises:
            ClientGone: the connection is closed or broken.
        """
        sent = sockets.send_memory(self.fd, address, count, more)
        self.sent_bytes += sent
        return sent

    def send_chunk(self, pointer: object, count: int, more: bool) -> int:
        """As send_memory(), from a ctypes pointer."""
        sent = sockets.send_chunk(self.fd, pointer, count, more)
        self.sent_bytes += sent
        return sent

    def send_with_header(self, header: bytes, address: int, count: int, more: bool) -> int:
        """As send_memory(), with a header before it; returns how many bytes of both together were accepted."""
        if count > sockets.SMALL_BYTES or more:
            sent = self.send_some(header, more=True)
            return sent if sent < len(header) else sent + self.send_memory(address, count, more)
        sent = sockets.send_with_header(self.fd, header, address, count)
        self.sent_bytes += sent
        return sent

    def send_some(self, data: bytes, *, more: bool = False) -> int:
        """As send_memory()."""
        sent = sockets.send_header(self.fd, data) if more else sockets.send(self.fd, data)
        self.sent_bytes += sent
        return sent

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """As send_memory(), from a file whose bytes no longer change; 0 also at its end."""
        if not self.never_waits:
            os.set_blocking(self.fd, False)
            self.never_waits = True
        try:
            sent = os.sendfile(self.fd, fd, offset, count)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGone(str(error)) from error
        self.sent_bytes += sent
        return sent

    def has_room_within(self, wait_ms: int) -> bool:
        """Wait so long for the client to make room, or for the connection to break; whether it did.

        For one that did so once the kernel takes as much as its buffer holds: fewer waits.
        """
        was_quick, self.is_quick = self.is_quick, sockets.has_room(self.fd, wait_ms)
        if self.is_quick and not was_quick:
            sockets.lift_unsent_limit(self.fd)
        return self.is_quick

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
        """Another response begins, or nobody waited for the client until now: its rate is measured anew."""
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
        return self.sent_bytes - queued[0]
