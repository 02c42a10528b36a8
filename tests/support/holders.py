"""Processes that hold something of shmchannel's until the test ends or kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import posix_ipc
import pytest

from shmchannel.process.reaper import FoundName, survey, sweep
from tests.support import names
from tests.support.waiting import WATCHDOG_S

_ENDING = """
print("holding", flush=True)
sys.stdin.read()
"""


class Holder:
    """A child that ran a script to its end and holds on; `said` is what it printed before."""

    def __init__(self, source: str, *arguments: str) -> None:
        script = "import sys\n" + textwrap.dedent(source) + _ENDING
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.said: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "holding\n":
                return
            self.said.append(line.rstrip("\n"))
        raise AssertionError(f"the child ended with status {self._process.wait(WATCHDOG_S)}")

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate(timeout=WATCHDOG_S)

    def release(self) -> int:
        """Let it go to its end; its exit status."""
        self._process.communicate(timeout=WATCHDOG_S)
        return self._process.returncode


@contextmanager
def holding(source: str, *arguments: str) -> Iterator[Holder]:
    """A holder that is killed after the block, if it still runs, and whose names are removed then."""
    holder = Holder(source, *arguments)
    try:
        yield holder
    finally:
        holder.kill()
        names.remove(names_of(holder.pid))


def free_lock(guard_path: str) -> None:
    """Free the lock of a guard of this process and leave its file, as the kernel does when its owner is killed."""
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed the folder
            locks = "lock:" in Path(f"/proc/self/fdinfo/{number}").read_text()
            if locks and os.readlink(f"/proc/self/fd/{number}") == guard_path:
                nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nothing, int(number), inheritable=False)  # its owner closes it yet, and must not close another
                os.close(nothing)


def names_of(pid: int = 0) -> list[FoundName]:
    """The names of this owner (of this process)."""
    return [found for found in survey() if found.owner_pid == (pid or os.getpid())]


def swept(pid: int) -> list[FoundName]:
    """Sweep, as any process of the machine may; what of this owner's went with it."""
    before = {found.path for found in names_of(pid)}
    return [found for found in sweep() if found.path in before]


@contextmanager
def another_users_queue(name: str) -> Iterator[None]:
    """A message queue that this user cannot remove during the block; nobody holds its guard."""
    unlink = posix_ipc.unlink_message_queue
    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o600)

    def refuse(wanted: str) -> None:
        if wanted == name:
            raise posix_ipc.PermissionsError("Permission denied")
        unlink(wanted)

    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(posix_ipc, "unlink_message_queue", refuse)
            yield
    finally:
        queue.close()
        unlink(name)  # fails when it is gone
