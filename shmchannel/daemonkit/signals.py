"""Lets the main loop wait for signals instead of acting on them in handlers, and says what they mean.

    with trapped(*SIGNALS) as signals:
        wishes = Wishes(signals)
        while not stopping:
            for wish in wishes.wait(timeout_s=1.0):
                ...

The interpreter writes the number of each signal into a pipe when it arrives, in whichever thread the kernel chose.
No signal is lost and no handler runs at a bad moment, even while a C library keeps the interpreter waiting.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import FrameType

_PIPE_BYTES = 65_536
"""What a pipe holds: one octet for each signal. A full one may lose further signals silently."""


class Wish(Enum):
    """What an operator asks of a running daemon by a signal."""

    STOP = "stop"
    """SIGTERM, SIGINT, or SIGHUP because the terminal has closed."""
    RELOAD = "reload"
    """SIGHUP otherwise."""
    REOPEN_LOGS = "reopen logs"
    """SIGUSR1."""
    UPGRADE = "upgrade"
    """SIGUSR2."""


_WISHES = {
    signal.SIGTERM: Wish.STOP,
    signal.SIGINT: Wish.STOP,
    signal.SIGUSR1: Wish.REOPEN_LOGS,
    signal.SIGUSR2: Wish.UPGRADE,
}
NO_END = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Those that would end a process which does not handle them, although nobody who sends them to a daemon wants that."""
SIGNALS = (*_WISHES, signal.SIGHUP)
"""Those that mean something to a daemon."""


def let_through() -> None:
    """Let the signals through that a program blocks at its very beginning, because their default action would end it.

    To be called once they are trapped, or by a command that never traps them.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NO_END)


class SignalTrap:
    """The signals that have arrived since the trap was set; belongs to the main thread of one process."""

    def __init__(self, signums: Collection[int], read_fd: int) -> None:
        self._signums = signums
        self._read_fd = read_fd

    def fileno(self) -> int:
        """Return a descriptor that is readable while signals wait to be taken."""
        return self._read_fd

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
def trapped(*signums: int, ignored_afterwards: Collection[int] = ()) -> Iterator[SignalTrap]:
    """Collect some signals for the duration of the block, then restore their handlers; an inner trap takes over.

    Those in `ignored_afterwards` are ignored from then on instead: by a process that only has to end, which takes the
    interpreter a tenth of a second. Signals not waited for are dropped. Raises `ValueError` outside the main thread;
    `OSError` or `ValueError` for a signal that cannot be handled.
    """
    with ExitStack() as undo:
        read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        undo.callback(os.close, read_fd)
        undo.callback(os.close, write_fd)
        # The pipe exists before the first handler and outlives the last, so no signal falls between them.
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False))
        for signum in signums:
            before = signal.signal(signum, _ignore)
            undo.callback(signal.signal, signum, signal.SIG_IGN if signum in ignored_afterwards else before)
        yield SignalTrap(signums, read_fd)


def insist(signums: Iterable[int]) -> int:
    """Return how many of the signals during a drain ask for its end: no wish but a second one to stop does."""
    return sum(_WISHES.get(signal.Signals(signum)) is Wish.STOP for signum in signums)


class Wishes:
    """The meaning of the signals in a trap that was set for `SIGNALS`.

    SIGHUP means two things: an operator wants the settings to be read again, or the terminal has closed. A daemon that
    has a terminal when this is made, and none when the signal comes, was told of its end, and stops; under `nohup`,
    which has SIGHUP ignored, it does not.
    """

    def __init__(self, signals: SignalTrap, *, survives_hangup: bool) -> None:
        """`survives_hangup`: SIGHUP was ignored before the trap was set."""
        self.signals = signals
        self._survives_hangup = survives_hangup
        self._has_terminal = _has_terminal()

    def wait(self, timeout_s: float) -> list[Wish]:
        """Return the wishes of the signals that arrived, oldest first; blocks as `SignalTrap.wait` does."""
        wishes = [self._wish(signum) for signum in self.signals.wait(timeout_s)]
        return [wish for wish in wishes if wish is not None]

    def _wish(self, signum: int) -> Wish | None:
        if signum != signal.SIGHUP:
            return _WISHES.get(signal.Signals(signum))
        if not self._has_terminal or _has_terminal():
            return Wish.RELOAD
        self._has_terminal = False
        return None if self._survives_hangup else Wish.STOP


def ignores_hangup() -> bool:
    """Return whether SIGHUP is ignored now, as under `nohup`."""
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4)): the kernel takes it away before it sends SIGHUP."""
    with suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK))
        return True
    return False


def _ignore(_signum: int, _frame: FrameType | None) -> None:
    """Be the handler, so that the interpreter writes to the pipe."""
