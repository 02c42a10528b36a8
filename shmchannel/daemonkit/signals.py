"""Lets the main loop wait for signals instead of acting on them in handlers.

    with trapped(*ending_signals()) as signals:
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
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import FrameType

_PIPE_BYTES = 65_536
"""What a pipe holds: one octet for each signal. A full one may lose further signals silently."""


class SignalTrap:
    """The signals that have arrived since the trap was set; belongs to the main thread of one process."""

    def __init__(self, signums: Collection[int], read_fd: int) -> None:
        self._signums = signums
        self._read_fd = read_fd

    def wait(self, timeout_s: float) -> list[int]:
        """Return the signals that arrived, oldest first, each as often as it arrived; an empty list on timeout.

        Blocks for at most `timeout_s` seconds, and less if a signal of another handler arrives; 0 does not block.
        """
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        if not poll.poll(max(0.0, timeout_s) * 1000):
            return []
        # Python's other handlers write to the same pipe.
        return [signum for signum in os.read(self._read_fd, _PIPE_BYTES) if signum in self._signums]


@contextmanager
def trapped(*signums: int) -> Iterator[SignalTrap]:
    """Collect some signals for the duration of the block, then restore their handlers; an inner trap takes over.

    Signals not waited for are dropped. Raises `ValueError` outside the main thread; `OSError` or `ValueError` for a
    signal that cannot be handled.
    """
    with ExitStack() as undo:
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        undo.callback(os.close, read_fd)
        undo.callback(os.close, write_fd)
        # The pipe exists before the first handler and outlives the last, so no signal falls between them.
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False))
        for signum in signums:
            undo.callback(signal.signal, signum, signal.signal(signum, _ignore))
        yield SignalTrap(signums, read_fd)


def ending_signals() -> tuple[int, ...]:
    """Return the signals that stop a daemon; SIGHUP (the terminal closed) only if it is not ignored, as under nohup."""
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return (signal.SIGTERM, signal.SIGINT, *hangup)


def insist(signums: Iterable[int]) -> bool:
    """Return whether signals after the first one end the drain; SIGHUP does not: a closing terminal sends it twice."""
    return any(signum != signal.SIGHUP for signum in signums)


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """Be the handler, so that the interpreter writes to the pipe."""
