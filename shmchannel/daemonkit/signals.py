"""Lets the main loop wait for signals instead of acting on them in handlers.

    with SignalTrap(*ending_signals()) as signals:
        while not stopping:
            for signum in signals.wait(timeout_s=1.0):
                ...

The interpreter writes the number of each signal into a pipe when it arrives, in whichever thread the kernel chose.
No signal is lost and no handler runs at a bad moment, even while a C library keeps the interpreter waiting.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType, TracebackType

_READ_BYTES = 4096
_NO_DESCRIPTOR = -1


class SignalTrap:
    """Collects some signals for the duration of a `with` block, then restores their handlers.

    Belongs to the main thread of one process; a nested trap takes over until it ends. A forked child inherits the
    pipe and must `close` the trap before signals can reach it, or its parent receives them.
    """

    def __init__(self, *signums: int) -> None:
        self._signums = frozenset(signums)
        self._read_fd = _NO_DESCRIPTOR
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Start collecting.

        Raises `RuntimeError` outside the main thread, when entered twice, or if a handler was set by C code and could
        not be restored; `OSError` or `ValueError` for a signal that cannot be handled.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("SignalTrap belongs to the main thread: only there can signal handlers be set")
        if self._read_fd != _NO_DESCRIPTOR:
            raise RuntimeError("this SignalTrap is entered already")
        with ExitStack() as undo:
            read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            undo.callback(os.close, read_fd)
            undo.callback(os.close, write_fd)
            # The pipe exists before the first handler and outlives the last, so no signal falls between them.
            # A full pipe holds 65,536 unread signals; further ones may be lost silently.
            previous_fd = signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
            undo.callback(signal.set_wakeup_fd, previous_fd)
            for signum in self._signums:
                handler = _replaceable_handler(signum)
                signal.signal(signum, _ignore)
                undo.callback(signal.signal, signum, handler)
            self._read_fd = read_fd
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restore the handlers."""
        self.close()

    def close(self) -> None:
        """Restore the handlers and close the descriptors; signals not yet waited for are dropped.

        May be called more than once, and by a forked child for its own copy.
        """
        self._read_fd = _NO_DESCRIPTOR
        self._undo.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable while signals are pending, to poll it with others; never read it.

        Raises `RuntimeError` outside the `with`.
        """
        if self._read_fd == _NO_DESCRIPTOR:
            raise RuntimeError("this SignalTrap is not entered")
        return self._read_fd

    def wait(self, timeout_s: float) -> list[int]:
        """Return the signals that arrived, oldest first, each as often as it arrived; an empty list on timeout.

        Blocks for at most `timeout_s` seconds, and less if a signal of another handler arrives; 0 does not block.
        Raises `RuntimeError` outside the `with`.
        """
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        if not poll.poll(max(0.0, timeout_s) * 1000):
            return []
        # Python's other handlers write to the same pipe.
        return [signum for signum in self._read() if signum in self._signums]

    def _read(self) -> bytes:
        pieces = []
        while True:
            try:
                piece = os.read(self._read_fd, _READ_BYTES)
            except BlockingIOError:
                break
            pieces.append(piece)
            if len(piece) < _READ_BYTES:
                break
        return b"".join(pieces)


def ending_signals() -> tuple[int, ...]:
    """Return the signals that stop a daemon; SIGHUP (the terminal closed) only if it is not ignored, as under nohup."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangup)


def insist(signums: Iterable[int]) -> bool:
    """Return whether signals after the first one end the drain; SIGHUP does not: a closing terminal sends it twice."""
    return any(signum != signal.SIGHUP for signum in signums)


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """Be the handler, so that the interpreter writes to the pipe."""


def _replaceable_handler(signum: int) -> signal._HANDLER:
    handler = signal.getsignal(signum)
    if handler is None:
        raise RuntimeError(f"the handler of signal {signum} was set outside Python and could not be restored")
    return handler
