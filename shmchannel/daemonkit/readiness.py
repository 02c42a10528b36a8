"""Tells the service manager about readiness, life and shutdown, with the datagrams of `sd_notify(3)`; and hears them.

Without a service manager (no `NOTIFY_SOCKET`) nothing happens. Errors are never raised: a manager that cannot be
reached is no reason to stop serving. A supervisor is to its workers what the service manager is to it: it gives them
the address of a `NotifySocket`.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

READY = "READY=1"
STOPPING = "STOPPING=1"
WATCHDOG = "WATCHDOG=1"
"""A sign of life."""

STATUS_CHARACTERS_MAX = 400
_STATUS = "STATUS="

SEND_TIMEOUT_S = 1.0


def notify(*messages: str, environ: Mapping[str, str] | None = None) -> bool:
    """Send messages (`READY`, `STOPPING`) to the service manager; return whether they were sent.

    Never raises; blocks for at most a second. `environ` defaults to the process's own environment.
    """
    return send((os.environ if environ is None else environ).get("NOTIFY_SOCKET", ""), *messages)


def main_pid(pid: int) -> str:
    """Return the message that another process is the service's main process from now on."""
    return f"MAINPID={pid}"


def status(text: str) -> str:
    """Return the message that says how the process stands, in words; a line of at most STATUS_CHARACTERS_MAX."""
    return _STATUS + " ".join(text.split())[:STATUS_CHARACTERS_MAX]


def send(address: str, *messages: str) -> bool:
    """As `notify()`, to the socket of this address, in the notation of `NOTIFY_SOCKET`."""
    if address[:1] not in ("/", "@") or not messages:
        return False
    try:
        name = os.fsencode(address)
        if name.startswith(b"@"):
            name = b"\0" + name[1:]  # an abstract socket: a name without a file
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            # A manager that reads slowly must not miss READY, and one that hangs must not block the daemon.
            manager.settimeout(SEND_TIMEOUT_S)
            manager.sendto("\n".join(messages).encode("utf-8", "replace"), name)
    except (OSError, ValueError):
        return False
    return True


class Notice(NamedTuple):
    """The messages of one datagram and the process that sent it, as the kernel says."""

    pid: int
    messages: tuple[str, ...]

    @property
    def status(self) -> str:
        """What it says by status(); empty if it says nothing by that."""
        said = [message.removeprefix(_STATUS) for message in self.messages if message.startswith(_STATUS)]
        return said[-1] if said else ""


class NotifySocket:
    """Hears what processes of the same user say by `notify()`; belongs to one thread.

    Its name is abstract and chosen by the kernel, so that nothing is left in a directory. Any user can send to it:
    what is not from this user is dropped.
    """

    _CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))
    _NOTICE_BYTES = 4096

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind("")
        except BaseException:
            self._socket.close()
            raise
        self.address = "@" + self._socket.getsockname()[1:].decode()
        """For `NOTIFY_SOCKET`."""

    def fileno(self) -> int:
        """Return the descriptor, which is readable while there is something to take."""
        return self._socket.fileno()

    def take(self) -> list[Notice]:
        """Return what has been said since the last call, oldest first; never blocks."""
        notices: list[Notice] = []
        while True:
            try:
                data, ancillary, *_ = self._socket.recvmsg(
                    self._NOTICE_BYTES, socket.CMSG_SPACE(self._CREDENTIALS.size)
                )
            except (BlockingIOError, InterruptedError):
                return notices
            for _level, kind, credentials in ancillary:
                if kind != socket.SCM_CREDENTIALS:
                    continue
                pid, uid, _ = self._CREDENTIALS.unpack(credentials)
                if uid == os.getuid():
                    notices.append(Notice(pid, tuple(data.decode("utf-8", "replace").splitlines())))

    def close(self) -> None:
        """Close the socket; its name goes with it."""
        self._socket.close()
