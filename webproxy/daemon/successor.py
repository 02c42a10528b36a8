"""Successor: another process that shall take the place of this one, with the same listening socket.

It runs the same command line. So it reads the settings again, and runs the program files that are found there now. Only
once it has said that it is ready does this process stop accepting; if it ends before or takes too long, nothing has
happened but a line in the log.
"""

from __future__ import annotations

import logging
import subprocess
from enum import Enum
from time import monotonic

from shmchannel.daemonkit.readiness import READY, NotifySocket, main_pid, notify
from webproxy.daemon.handover import SuccessorRole, successor_command, successor_environment

log = logging.getLogger(__name__)


class Succession(Enum):
    """How far it has come."""

    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"


class Successor:
    """Belongs to the main thread; `start_s` is how long it may take to be ready."""

    def __init__(self, listener_fd: int, start_s: float) -> None:
        """Start it.

        Raises:
            OSError: the program cannot be started.
        """
        self._notices = NotifySocket()
        self._limit_s = start_s
        self._expires = monotonic() + start_s
        role = SuccessorRole(listener_fd=listener_fd, notify_address=self._notices.address)
        try:
            self._process = subprocess.Popen(
                successor_command(), env=successor_environment(role), pass_fds=(listener_fd,)
            )
        except OSError:
            self._notices.close()
            raise
        self.pid = self._process.pid
        self.refusal = ""
        """Why it was refused."""
        log.info("successor started", extra={"successor": self.pid})

    def look(self) -> Succession:
        """See how far it has come; never blocks. Once it is done, the service manager knows the new main process."""
        is_ready = any(notice.pid == self.pid and READY in notice.messages for notice in self._notices.take())
        status = self._process.poll()
        if is_ready and status is None:
            notify(main_pid(self.pid))
            log.info("successor ready", extra={"successor": self.pid})
            self._notices.close()
            return Succession.DONE
        if status is None and monotonic() < self._expires:
            return Succession.RUNNING
        self.refusal = f"not ready after {self._limit_s:g} s" if status is None else f"ended with status {status}"
        self.end()
        log.error(
            "successor refused", extra={"successor": self.pid, "reason": self.refusal, "remedy": "see its log lines"}
        )
        return Succession.REFUSED

    def end(self) -> None:
        """It shall not take over: kill it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._notices.close()
