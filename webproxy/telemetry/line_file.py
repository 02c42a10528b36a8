"""LineFile: a file that several processes append lines to; who adds a line never waits.

Theory of operation
===================

Lines are queued, and one thread writes them: whole lines, as many as PIPE_BUF holds, by one write(2) to a descriptor
that appends, so that lines of several processes do not mix, neither in a file nor in a pipe. The thread sleeps until
there is a line, waits for GATHER_SECONDS for others, and writes what has come (docs/decisions/0036-access-log.md).

What cannot be written is dropped and counted, with a warning in the daemon's log: everything while a disk is full; the
newest lines once LINES_MAX are queued, because nobody reads a pipe or a disk is too slow. Only the thread waits for
these.

A write to a regular file keeps the GIL (as the calls in transport/sockets.py): giving it away each time would leave the
thread behind busy workers. A file system that turns out to be slow is written to without it for SLOW_SECONDS.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import select
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeAlias

from webproxy.errors import StartupError

log = logging.getLogger(__name__)

STANDARD_OUTPUT: Final = "-"
LINES_MAX: Final = 65_536
GATHER_SECONDS: Final = 0.01
SLOW_LINE_SECONDS: Final = 0.0005
SLOW_BATCH_SECONDS: Final = 0.02
SLOW_SECONDS: Final = 10.0
"""A batch that took SLOW_BATCH_SECONDS, and SLOW_LINE_SECONDS for a line, shows that a file system is slow."""
QUIET_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 1.0
"""How long the end waits for what is queued to be written."""
_LOOK_AGAIN_MS = 100
_MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # which regular files ignore
_SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

Put: TypeAlias = Callable[[int, bytes, int], int]
"""Descriptor, bytes and their number; returns how many were written, -1 if none could be."""

Line: TypeAlias = bytes | tuple[Callable[..., bytes], tuple[Any, ...]]
"""A line, or the function that makes it and its arguments: called by the thread, where its code is warm as well."""

_keeps_gil = ctypes.PyDLL(None, use_errno=True)
_write, _send = _keeps_gil.write, _keeps_gil.send
_write_without_gil = ctypes.CDLL(None, use_errno=True).write
_write.restype = _send.restype = _write_without_gil.restype = ctypes.c_ssize_t
_FULL = (errno.EAGAIN, errno.EINTR)
_BATCH_BYTES_MAX = select.PIPE_BUF - 1
"""What a pipe takes whole (pipe(7)), but for the end of a torn line."""


class LineFile:
    """Thread-safe. Owns its descriptor and its thread."""

    def __init__(self, path: str) -> None:
        """Open the file at `path`, which is created if it is not there; STANDARD_OUTPUT is that of the process.

        Raises:
            StartupError: it cannot be opened.
        """
        self._path = path
        try:
            self._fd = _open_standard_output() if path == STANDARD_OUTPUT else os.open(path, _FLAGS | os.O_CREAT, _MODE)
        except OSError as error:
            raise StartupError(_why_not(path, error)) from error
        self._put, self._put_slowly = _puts_of(self._fd)
        self._lock = threading.Lock()
        self._lines: deque[Line] = deque()
        self._sources: list[Callable[[], bytes]] = []
        self._is_told = False
        self._told = threading.Event()
        self._ends = threading.Event()
        self._ends_at = 0.0
        self._slow_until = 0.0
        self._is_torn = False
        self._quiet_until = 0.0
        self.dropped_total = 0
        """How many lines could not be written, or not whole."""
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def add(self, line: Line) -> None:
        """Queue a line, or several, which end in a line end and together are shorter than PIPE_BUF; never blocks."""
        lines = self._lines
        if len(lines) >= LINES_MAX:
            self._drop("lines are not taken as fast as requests end")
            return
        lines.append(line)
        self.tell()

    def tell(self) -> None:
        """There is a line, here or with somebody who is asked for lines."""
        if not self._is_told:  # after the line is there: the thread clears this before it looks
            self._is_told = True
            self._told.set()

    def ask(self, take_lines: Callable[[], bytes]) -> None:
        """Ask for lines too, whenever told that there are some; never more than a pipe takes at a time."""
        self._sources.append(take_lines)

    def reopen(self) -> None:
        """Continue in the file that now has the path: the other one has been renamed, or removed. Never raises.

        The descriptor's number stays the same, so that a write at this moment goes whole to one or the other.
        """
        if self._path == STANDARD_OUTPUT:
            return
        try:
            fd = os.open(self._path, _FLAGS | os.O_CREAT, _MODE)
        except OSError as error:
            log.error("access log not reopened", extra={"reason": _why_not(self._path, error)})
            return
        os.dup2(fd, self._fd, inheritable=False)
        os.close(fd)
        self._is_torn, self._quiet_until = False, 0.0
        log.info("access log reopened", extra={"path": self._path})

    def close(self) -> None:
        """Write what is queued, for CLOSE_SECONDS at most, and close the file; nobody may add a line any longer."""
        self._ends_at = monotonic() + CLOSE_SECONDS
        self._ends.set()
        self._told.set()
        self._thread.join()
        os.close(self._fd)

    # -- the thread ----------------------------------------------------------------------------------------------
    def _run(self) -> None:
        while not self._ends.is_set() or self._lines:
            if not self._ends.is_set():
                self._told.wait()
                self._ends.wait(GATHER_SECONDS)
            self._told.clear()
            self._is_told = False
            self._take_in()
            self._write_queued(len(self._lines))
        self._take_in()
        self._write_queued(len(self._lines))

    def _take_in(self) -> None:
        for take_lines in self._sources:
            lines = take_lines()
            if lines:
                self._lines.append(lines)

    def _write_queued(self, count: int) -> None:
        lines, began = self._lines, monotonic()
        put = self._put if began >= self._slow_until else self._put_slowly
        batch: list[bytes] = []
        room = _BATCH_BYTES_MAX
        for _ in range(count):
            queued = lines.popleft()
            line = queued if isinstance(queued, bytes) else queued[0](*queued[1])
            room -= len(line)
            if room < 0 and batch:
                self._write(put, b"".join(batch))
                batch.clear()
                room = _BATCH_BYTES_MAX - len(line)
            batch.append(line)
        if batch:
            self._write(put, b"".join(batch))
        took_s = monotonic() - began
        if took_s > max(SLOW_BATCH_SECONDS, count * SLOW_LINE_SECONDS):
            self._slow_until = began + took_s + SLOW_SECONDS

    def _write(self, put: Put, data: bytes) -> None:
        """Write whole lines."""
        if self._is_torn:
            data = b"\n" + data  # the last one ended in its middle
        written = put(self._fd, data, len(data))
        if written == len(data):
            self._is_torn = False
        else:
            self._not_written(data, written)

    def _not_written(self, data: bytes, written: int) -> None:
        """Lines were not taken, or only their beginning: wait for room, or drop them."""
        code = ctypes.get_errno()
        while written < 0 and code in _FULL and not (self._ends.is_set() and monotonic() >= self._ends_at):
            _wait_for_room(self._fd)
            written = self._put(self._fd, data, len(data))
            code = ctypes.get_errno()
        if written > 0:
            self._is_torn = not data.endswith(b"\n", 0, written)
        lost = data.count(b"\n", max(written, data.startswith(b"\n")))
        if lost:
            self._drop(os.strerror(code) if written < 0 else "no room for a whole line", lost)

    def _drop(self, reason: str, lines: int = 1) -> None:
        now = monotonic()
        with self._lock:
            self.dropped_total += lines
            if now < self._quiet_until:
                return
            self._quiet_until = now + QUIET_SECONDS
        facts = {"path": self._path, "reason": reason, "dropped": self.dropped_total}
        log.warning("access log lines dropped", extra=facts)


def _why_not(path: str, error: OSError) -> str:
    if error.errno == errno.ENXIO:  # open(2)
        return f"access_log {path!r} cannot be opened: nobody reads this pipe (start its reader first)"
    return f"access_log {path!r} cannot be opened: {error.strerror} (give a file in a directory that is there, or -)"


def _open_standard_output() -> int:
    """A descriptor of one's own of the standard output, so that its flags are nobody else's."""
    with contextlib.suppress(OSError):  # a socket, or a file of another user
        return os.open("/proc/self/fd/1", _FLAGS)
    return os.dup(1)


def _puts_of(fd: int) -> tuple[Put, Put]:
    """The call that appends to this kind of file without waiting, and the one for a slow file system."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return _write, _write_without_gil
    if stat.S_ISSOCK(mode):
        return _send_at_once, _send_at_once
    # The flags of a blocking one are shared with others, so that it cannot be told not to wait.
    put = _write_if_there_is_room if os.get_blocking(fd) else _write
    return put, put


def _send_at_once(fd: int, line: bytes, count: int) -> int:
    return int(_send(fd, line, count, _SEND_FLAGS))


def _write_if_there_is_room(fd: int, line: bytes, count: int) -> int:
    return int(_write(fd, line, count)) if _wait_for_room(fd, 0) else -1


def _wait_for_room(fd: int, limit_ms: int = _LOOK_AGAIN_MS) -> bool:
    """Wait so long until something can be written; whether it can."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    ctypes.set_errno(errno.EAGAIN)  # what a write would say
    return bool(poll.poll(limit_ms))
