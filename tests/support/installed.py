"""Programs that read what `webproxy install-units` writes: troff, shells with a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import pytest

from tests.support.waiting import WATCHDOG_S, wait_until


def optional_program(name: str) -> str:
    """Return where a program is that no test run must have, also not that of CI; without it skip the test."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed")


def groff(page: str) -> str:
    """Return a page as plain text on very long lines. Raises CalledProcessError if troff warns of anything."""
    command = [optional_program("groff"), "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u", "-rLL=2000n"]
    done = subprocess.run(command, input=page, capture_output=True, text=True, encoding="utf-8", timeout=WATCHDOG_S)
    if done.returncode or done.stderr:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout.replace("\u2212", "-").replace("\u2010", "-")


class Terminal:
    """A shell at a terminal of its own, to which a test types."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.shown = ""
        """All that the terminal has shown."""

    def type(self, text: str) -> Self:
        """Type as a person does who does not wait."""
        os.write(self._fd, text.encode())
        return self

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait until the pattern has been shown since the last call, and return its match."""
        found = wait_until(lambda: self._look(pattern), what=f"{pattern!r} at the terminal")
        self.shown = self.shown[found.end() :]
        return found

    def _look(self, pattern: str) -> re.Match[str] | None:
        while select.select([self._fd], [], [], 0)[0]:
            try:
                self.shown += os.read(self._fd, 65536).decode("utf-8", "replace")
            except OSError:  # the shell has ended
                break
        return re.search(pattern, self.shown)


@contextmanager
def terminal(command: Sequence[str], directory: str) -> Iterator[Terminal]:
    """Run a program at a new terminal, in a directory that is also its home."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 200))
    env = {"PATH": os.environ["PATH"], "HOME": directory, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
    try:
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=directory, env=env, start_new_session=True
        )
        try:
            yield Terminal(ours)
        finally:
            process.kill()
            process.wait(WATCHDOG_S)
    finally:
        os.close(theirs)
        os.close(ours)
