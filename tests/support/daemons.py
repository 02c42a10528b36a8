"""Whole daemons for tests: started as a user starts them, watched through their log, ended by pid.

A DaemonYard owns what it started: at its end every daemon is killed and the names it left are removed. A daemon that
ended by itself must have left none: if it did, the yard's end fails the test. Its workers and successors, which write
into the same log, count as it does.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from shmchannel.errors import ResourceError
from shmchannel.messages.posix_queue import CommandSender
from tests.support import names
from tests.support.queue_room import wait_for_queue_room
from tests.support.waiting import WATCHDOG_S, wait_until

_OWN_PREFIXES = ("SIMPLECACHED_", "WEBPROXY_", "GFCACHE_")
NO_HOT_TABLE = {"SIMPLECACHED_HOT_TABLE_BYTES": "0"}
"""For a cache whose commands are counted: a hot table would answer some of the requests without one."""

_READY_EVENTS = {"simplecached": "ready", "webproxy": "listening"}
Event = dict[str, Any]


class DaemonEnded(AssertionError):
    """A daemon ended where the test needs it alive; the text has its exit status and log."""


@dataclass(frozen=True, slots=True)
class Resources:
    """A process's resources at one moment."""

    resident_bytes: int
    threads: int
    descriptors: int


class DaemonProcess:
    """One daemon. Its log, and anything else it prints, goes to a file of the yard's directory."""

    def __init__(
        self, program: str, arguments: tuple[str, ...], env: Mapping[str, str], log_path: str, wrap: Sequence[str] = ()
    ) -> None:
        """`wrap` are the words of a program that becomes the daemon at its end, such as prlimit with its flags."""
        self.program = program
        self.command = [*wrap, sys.executable, "-m", program, *arguments]
        self._log_path = log_path
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_PREFIXES)}
        json_log = {f"{program.upper()}_LOG_FORMAT": "json", f"{program.upper()}_LOG_LIMIT_S": "0"}
        with open(log_path, "wb") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**inherited, **json_log, **env}
            )

    @property
    def pid(self) -> int:
        """Its pid; also after its end."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended; a stopped one runs."""
        return self._process.poll() is None

    @property
    def port(self) -> int:
        """The port a proxy listens on; waits until it does."""
        return int(self.wait_event("listening")["port"])

    def log_text(self) -> str:
        """All that it printed."""
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def events(self, name: str | None = None) -> list[Event]:
        """Its log events as fields, oldest first; with `name` only these. An incomplete line is left out."""
        found = []
        for line in self.log_text().splitlines():
            if line.startswith("{"):
                try:
                    event = json.loads(line)
                except ValueError:  # being written now
                    continue
                if name in (None, event["event"]):
                    found.append(event)
        return found

    def wait_event(self, name: str, *, count: int = 1, watchdog_s: float = WATCHDOG_S) -> Event:
        """Wait until an event was logged `count` times, and return the last of these. Raises DaemonEnded."""

        def seen() -> Event | None:
            running = self.running  # asked first: what it logged before its end counts
            found = self.events(name)
            if len(found) >= count:
                return found[count - 1]
            if not running:
                raise DaemonEnded(f"{self.program} ended with {self._process.returncode}:\n{self.log_text()}")
            return None

        event = wait_until(seen, watchdog_s, what=f"event {name!r} of {self.program} (log: {self._log_path})")
        assert event is not None
        return event

    def wait_ready(self, watchdog_s: float = WATCHDOG_S) -> Self:
        """Wait until it serves. Raises DaemonEnded when it ended instead."""
        self.wait_event(_READY_EVENTS[self.program], watchdog_s=watchdog_s)
        return self

    def signal(self, signum: int) -> None:
        """Send a signal."""
        self._process.send_signal(signum)

    def stop(self, watchdog_s: float = WATCHDOG_S) -> int:
        """Ask it to end with SIGTERM and return its exit code; may be called twice."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait_exit(watchdog_s)

    def kill(self) -> None:
        """SIGKILL it and wait until it is gone; may be called twice."""
        self._process.kill()
        self.wait_exit()

    def workers(self, of: int = 0) -> list[int]:
        """The pids of its worker processes, or of those of its successor `of`; one that is just starting included."""
        try:
            with open(f"/proc/{of or self.pid}/task/{of or self.pid}/children", encoding="ascii") as children:
                return [pid for pid in map(int, children.read().split()) if is_alive(pid) and _is_worker(pid)]
        except OSError:
            return []

    def ready_workers(self, of: int = 0) -> list[int]:
        """Those that have said that they are ready."""
        said = {event["worker"] for event in self.events("worker ready")}
        return [pid for pid in self.workers(of) if pid in said]

    def all_pids(self) -> set[int]:
        """Its own pid, and those of its workers and successors, as far as one has said something or it of them."""
        said = [event.get(name) for event in self.events() for name in ("pid", "worker", "successor")]
        return {self.pid, *self.workers(), *(pid for pid in said if isinstance(pid, int))}

    def wait_all_ended(self) -> None:
        """Wait until neither it nor a worker or successor of it is there."""
        wait_until(lambda: not [pid for pid in self.all_pids() if is_alive(pid)], what="the end of all its processes")

    def wait_exit(self, watchdog_s: float = WATCHDOG_S) -> int:
        """Wait for its end; returns the exit code, negative for the signal that killed it."""
        return self._process.wait(watchdog_s)

    def is_stopped(self) -> bool:
        """Whether it is held by SIGSTOP."""
        return self._status()["State"].startswith(("T", "t"))

    def ignores(self, signum: int) -> bool:
        """Whether a signal is nothing to it."""
        return bool(int(self._status()["SigIgn"], 16) >> (signum - 1) & 1)

    def resident_bytes(self) -> int:
        """Its own memory: without segments and memory files, which are shared."""
        status = self._status()
        return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024

    def thread_count(self) -> int:
        """How many threads it has."""
        return int(self._status()["Threads"])

    def descriptor_count(self) -> int:
        """How many descriptors it holds open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def settled_descriptor_count(self) -> int:
        """How many descriptors it holds once the connections of earlier tests are closed."""
        counts = [self.descriptor_count()]

        def unchanged() -> bool:
            counts.append(self.descriptor_count())
            return len(counts) > 50 and min(counts) == counts[-1]

        wait_until(unchanged)
        return counts[-1]

    def resources(self) -> Resources:
        """Memory, threads and descriptors."""
        return Resources(self.resident_bytes(), self.thread_count(), self.descriptor_count())

    def _status(self) -> dict[str, str]:
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as status:
            return {name: value.strip() for name, value in (line.split(":", 1) for line in status)}


def is_alive(pid: int) -> bool:
    """Whether there is a process of that pid that has not ended.

    The first thread of one that was killed may be gone before the others, which hold its descriptors and locks.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
            state, *others = stat.read().rpartition(")")[2].split()
            return state not in ("Z", "X") or int(others[16]) > 1  # num_threads (proc_pid_stat(5))
    except OSError:
        return False


def _is_worker(pid: int) -> bool:
    """Whether it is none of its parent's successors."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
        return b"/dev/fd/" in command.read()
    return False


def _kill(pids: Collection[int]) -> None:
    """Kill processes that are not ours to wait for, and wait for their end."""
    for pid in pids:
        with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as command:
            if b"webproxy" in command.read():  # the pid may be another's by now
                os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not [pid for pid in pids if is_alive(pid)], what="the end of workers and successors")


class DaemonYard:
    """Starts daemons on a queue name of its own; a context manager. For one test, or for a module that shares them."""

    def __init__(self, directory: str | os.PathLike[str], *, cache_env: Mapping[str, str] | None = None) -> None:
        """`cache_env` is for each cache that is started, unless the test says otherwise."""
        self._directory = os.fspath(directory)
        self._cache_env = cache_env or {}
        self.queue = f"/gft-{os.getpid()}-{secrets.token_hex(4)}"
        self.started: list[DaemonProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def start_cache(
        self,
        *arguments: str,
        content: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
        wrap: Sequence[str] = (),
    ) -> DaemonProcess:
        """Start a cache on the yard's queue (unless -q is given) that serves `content`; `wait` until it is ready."""
        wait_for_queue_room()
        served = () if content is None else ("-c", os.fspath(content))
        both = {**self._cache_env, **(env or {})}
        return self._start("simplecached", (*self._queue_flag(arguments), *served, *arguments), both, wait, wrap)

    def start_proxy(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        wait: bool = True,
        wrap: Sequence[str] = (),
        has_port: bool = True,
    ) -> DaemonProcess:
        """Start a proxy on the yard's queue and a free port (unless -q and -p are given); `wait` until it listens.

        Without `has_port` it has the port of a settings file.
        """
        port = () if "-p" in arguments or not has_port else ("-p", "0")
        return self._start("webproxy", (*self._queue_flag(arguments), *port, *arguments), env, wait, wrap)

    def _queue_flag(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return () if "-q" in arguments else ("-q", self.queue)

    def _start(
        self, program: str, arguments: tuple[str, ...], env: Mapping[str, str] | None, wait: bool, wrap: Sequence[str]
    ) -> DaemonProcess:
        log_path = os.path.join(self._directory, f"{program}-{len(self.started)}{self.queue.replace('/', '-')}.log")
        daemon = DaemonProcess(program, arguments, env or {}, log_path, wrap)
        self.started.append(daemon)
        return daemon.wait_ready() if wait else daemon

    def has_cache(self) -> bool:
        """Whether a living cache serves the yard's queue."""
        try:
            sender = CommandSender(self.queue)
        except ResourceError:
            return False
        sender.close()
        return True

    def end(self) -> None:
        """Kill what runs and remove what it left; may be called twice. Fails for names of one that ended by itself."""
        stopped_by_itself: set[int] = set()
        pids: set[int] = set()
        for daemon in self.started:
            own = daemon.all_pids()
            if not daemon.running and daemon.wait_exit() >= 0 and not any(map(is_alive, own)):
                stopped_by_itself |= own
            daemon.kill()
            while own - pids:  # those that were killed last may have started others before
                _kill(own - pids - {daemon.pid})
                pids |= own
                own = daemon.all_pids()
        found = names.names_of(pids)
        names.remove(found)
        for pid in pids:
            names.note_ended(pid)
        leaked = [row.path for row in found if row.owner_pid in stopped_by_itself and not row.alive]
        assert not leaked, f"left by a daemon that stopped cleanly: {leaked}"
