"""A program in a terminal of its own: a pseudo terminal whose screen is kept as a person would see it."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import pyte

from tests.support.waiting import WATCHDOG_S, wait_until

_PRIVATE = re.compile(rb"\x1b\[[<=>?][0-9;]*[a-zA-Z$]+")
"""Sequences of one terminal or another that pyte would print; what a screen shows does not depend on them."""
_SETTINGS = ("COLUMNS", "LINES", "NO_COLOR", "COLORTERM", "TERM_PROGRAM", "TEXTUAL", "FORCE_COLOR", "CI")


class Terminal:
    """Runs a command; a context manager, at whose end the program is killed if it still runs."""

    def __init__(self, command: Sequence[str], *, columns: int = 120, rows: int = 50) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._master, self._slave = os.openpty()
        self._set_size(columns, rows)
        self.modes_before = termios.tcgetattr(self._slave)
        self.received = b""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        self._process = subprocess.Popen(
            command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**environment, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        )
        os.set_blocking(self._master, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)
        os.close(self._slave)

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size; the program is told."""
        self._screen.resize(rows, columns)
        self._screen.reset()
        self._set_size(columns, rows)

    def text(self) -> str:
        """What is on the screen now."""
        try:
            while data := os.read(self._master, 1 << 16):
                self.received += data
                self._stream.feed(_PRIVATE.sub(b"", data))
        except BlockingIOError:
            pass
        return "\n".join(line.rstrip() for line in self._screen.display)

    def wait_for(self, *wanted: str, without: str | None = None) -> str:
        """Wait until all of it is on the screen, and this is not; returns the screen."""

        def seen() -> str | None:
            text = self.text()
            found = all(part in text for part in wanted) and (without is None or without not in text)
            return text if found else None

        try:
            text = wait_until(seen, what=f"{wanted} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.text()}") from None
        assert text is not None
        return text

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def signal(self, signum: signal.Signals) -> None:
        """Send the program a signal."""
        self._process.send_signal(signum)

    def wait_exit(self) -> int:
        """Read what it still says, and wait for its end; returns its exit code."""

        def ended() -> bool:
            self.text()  # or it would wait for room
            return self._process.poll() is not None

        wait_until(ended, WATCHDOG_S, what="the end of the program")
        self.text()
        return self._process.wait()

    def is_restored(self) -> bool:
        """Whether the terminal is as it was: its modes, the normal screen, the cursor seen, no mouse reports."""
        same = termios.tcgetattr(self._slave) == self.modes_before
        return same and all(
            self.received.rfind(off) >= self.received.rfind(on)
            for on, off in (
                (b"\x1b[?1049h", b"\x1b[?1049l"),
                (b"\x1b[?25l", b"\x1b[?25h"),
                (b"\x1b[?1000h", b"\x1b[?1000l"),
                (b"\x1b[?1003h", b"\x1b[?1003l"),
            )
        )
