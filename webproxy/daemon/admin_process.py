"""AdminProcess: the admin server as a process of its own, which is started again if it ends.

The socket is opened here, so that an address that cannot be had is refused at the start, and stays open while there is
no server: who asks then waits a moment.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import subprocess
from time import monotonic

from shmchannel.daemonkit.exits import shown_status
from webproxy.admin.address import open_admin_listener
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.handover import Inherited, module_command
from webproxy.errors import StartupError

log = logging.getLogger(__name__)

_REMEDIES = {
    errno.EADDRINUSE: "another process listens there, or a file is in the way: choose another --admin",
    errno.ENOENT: "its directory is missing: create it, or choose another --admin",
    errno.EACCES: "its directory cannot be written to, or the port is below 1024: choose another --admin",
}

PAUSE_SECONDS = 1.0
_END_SECONDS = 2.0


class AdminProcess:
    """Belongs to the main thread of the process that it shows, or of its supervisor."""

    def __init__(self, address: str, listener: socket.socket | None = None) -> None:
        """Open the socket, or take over one that is listening there; look() starts the server.

        The path of a socket that was taken over is another process's, until keep_path().

        Raises:
            StartupError: the address cannot be listened on.
        """
        self.address = address
        try:
            self._listener = listener or open_admin_listener(address)
        except OSError as error:
            raise StartupError(_why_not(address, error)) from error
        self._is_path_own = listener is None
        self._process: subprocess.Popen[bytes] | None = None
        self._due_s = 0.0

    def look(self) -> None:
        """Start the server if there is none; never waits."""
        process = self._process
        if process is not None:
            status = process.poll()
            if status is None:
                return
            log.warning("admin server ended", extra={"pid_": process.pid, "status": shown_status(status)})
            self._process, self._due_s = None, monotonic() + PAUSE_SECONDS
        if monotonic() < self._due_s:
            return
        fd = self._listener.fileno()
        flags = ("--listener-fd", str(fd), "--owner", str(os.getpid()), "--address", self.address)
        command = module_command("webproxy.admin", *flags)
        try:
            self._process = subprocess.Popen(command, pass_fds=(fd,), stdin=subprocess.DEVNULL, process_group=0)
        except OSError as error:
            self._due_s = monotonic() + PAUSE_SECONDS
            log.warning("admin server not started", extra={"reason": str(error)})

    def fileno(self) -> int:
        """The listening socket, for a successor."""
        return self._listener.fileno()

    def keep_path(self) -> None:
        """This process has taken the place of the one that opened the socket."""
        self._is_path_own = True

    def close(self, *, is_handed_over: bool = False) -> None:
        """End the server and close the socket; may be called twice. A socket that was handed over keeps its path."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._listener.fileno() >= 0:
            if self._listener.family == socket.AF_UNIX and self._is_path_own and not is_handed_over:
                with contextlib.suppress(OSError):
                    os.unlink(self.address)
            self._listener.close()


def _why_not(address: str, error: OSError) -> str:
    if error.errno is None:  # no system call has seen it
        return f"cannot listen on {address} (admin): {error} (a socket's path has at most 107 bytes: choose another)"
    code = error.errno
    # Below 0 it is of a resolver; Python adds the address, which the text has already.
    reason = os.strerror(code) if code > 0 else str(error.strerror).partition(" (while")[0]
    return f"cannot listen on {address} (admin): {reason} ({_REMEDIES.get(code, 'check --admin')})"


def open_admin(config: ProxyConfig, inherited: Inherited) -> AdminProcess | None:
    """The admin server of a proxy's main process; None if there shall be none, and for a worker.

    Without close() it ends with this process.

    Raises:
        StartupError: its address cannot be listened on.
    """
    if inherited.worker is not None:
        return None
    listener = inherited.admin_listener(config.admin or "")
    return None if config.admin is None else AdminProcess(config.admin, listener)
