"""Successor: another process that shall take the place of this one, with the same listening socket.

It runs the same command line. So it reads the settings again, and runs the program files that are found there now. Only
once it has said that it is ready does this process stop accepting; if it ends before or takes too long, nothing has
happened but a line in the log, with the reason that it gives. It is the judge of the settings, not this process, whose
program may be older than they are. One that shall not take over after all is told to end, not killed: it may have
accepted requests by then.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
from enum import Enum
from time import monotonic

from shmchannel.daemonkit.exits import shown_status
from shmchannel.daemonkit.readiness import READY, NotifySocket, main_pid, notify
from shmchannel.daemonkit.signals import Wish
from webproxy.daemon.admin_process import AdminProcess
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.handover import SuccessorRole, successor_command, successor_environment

log = logging.getLogger(__name__)

_SIGNALS = {Wish.RELOAD: signal.SIGHUP, Wish.UPGRADE: signal.SIGUSR2, Wish.REOPEN_LOGS: signal.SIGUSR1}
END_GRACE_S = 5.0
"""How much longer than `drain_s` a process may take to end."""


class Succession(Enum):
    """How far it has come."""

    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"


class Successor:
    """Belongs to the main thread."""

    def __init__(self, listener: socket.socket, config: ProxyConfig, admin: AdminProcess | None = None) -> None:
        """Start it; `config` is what this process runs with. It also takes over the socket of the admin server.

        Raises:
            OSError: the program cannot be started.
        """
        self._notices = NotifySocket()
        self._limit_s = config.worker_start_timeout_s
        self._end_s = config.drain_s + END_GRACE_S
        self._expires = monotonic() + self._limit_s
        self._is_ending = False
        role = SuccessorRole(
            listener_fd=listener.fileno(),
            host=config.host,
            port=config.port,
            notify_address=self._notices.address,
            admin_address="" if admin is None else admin.address,
            admin_fd=-1 if admin is None else admin.fileno(),
        )
        inherited = [listener.fileno()] if admin is None else [listener.fileno(), admin.fileno()]
        try:
            self._process = subprocess.Popen(successor_command(), env=successor_environment(role), pass_fds=inherited)
        except BaseException:
            self._notices.close()
            raise
        self.pid = self._process.pid
        self._reason = ""
        """Why it does not start, in its own words."""
        self.refusal = ""
        """Why it was refused."""
        log.info("successor started", extra={"successor": self.pid})

    def look(self) -> Succession:
        """See how far it has come; never blocks. Once it is done, the service manager knows the new main process."""
        if self._is_ending:
            if self.is_running and monotonic() < self._expires:
                return Succession.RUNNING
            self.kill()
            return Succession.REFUSED
        status = self._process.poll()  # before its last words are read
        said = [notice for notice in self._notices.take() if notice.pid == self.pid]
        is_ready = any(READY in notice.messages for notice in said)
        self._reason = next((notice.status for notice in reversed(said) if notice.status), self._reason)
        if is_ready and self.is_running:
            notify(main_pid(self.pid))
            log.info("successor ready", extra={"successor": self.pid})
            self._notices.close()
            return Succession.DONE
        if status is None and monotonic() < self._expires:
            return Succession.RUNNING
        late = f"not ready after {self._limit_s:g} s"
        ended = f"ended with status {shown_status(status)}" + (f": {self._reason}" if self._reason else "")
        self.refusal = late if status is None else ended
        log.error(
            "successor refused", extra={"successor": self.pid, "reason": self.refusal, "remedy": "see its log lines"}
        )
        self.end()
        return Succession.RUNNING if status is None else Succession.REFUSED

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wish(self, wish: Wish) -> None:
        """It has taken over: whatever this process was still to do is for it. Never blocks."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(_SIGNALS[wish])

    def end(self) -> None:
        """It shall not take over: have it complete what it has accepted, and end. Never blocks."""
        if self._is_ending:
            return
        self._is_ending = True
        self._expires = monotonic() + self._end_s
        self._notices.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """Kill it, if it has not ended, and wait for that."""
        self.end()
        self._process.kill()
        self._process.wait()
