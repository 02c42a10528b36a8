"""Start the daemons as a user would, wait for their log lines, stop them by pid. For the demo and the benchmark."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
_LOOK_INTERVAL_S = 0.02
_PORT = re.compile(r"""["']?\bport["']?\s*[=:]\s*(\d+)""")


ENDING_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class DaemonFailed(Exception):
    """A daemon ended early or did not log the expected event; the text has the end of its log."""


class _Interruption:
    """The single KeyboardInterrupt of this program, in the main thread, which starts the daemons."""

    def __init__(self) -> None:
        self._came = False
        self._held_back = False

    def install(self) -> None:
        """Handle the terminating signals; earlier ones are forgotten."""
        self._came = False
        for signum in ENDING_SIGNALS:
            signal.signal(signum, self._on_signal)

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        first, self._came = not self._came, True
        if first and not self._held_back:
            raise KeyboardInterrupt

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Delay the interrupt by a signal to the end of the block. Not to be nested."""
        came_before = self._came
        self._held_back = True
        try:
            yield
        finally:
            self._held_back = False
            if self._came and not came_before:
                raise KeyboardInterrupt


_interruption = _Interruption()


def interrupt_on_ending_signals() -> None:
    """Turn the first terminating signal into a KeyboardInterrupt, so that the daemons are stopped on the way out.

    Later ones are ignored: an interrupted clean-up would leave a daemon running. It takes at most STOP_TIMEOUT_S per
    daemon.
    """
    _interruption.install()


def executable(name: str) -> str:
    """The path of a console command of this environment."""
    return os.path.join(os.path.dirname(sys.executable), name)


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith(("WEBPROXY_", "SIMPLECACHED_"))}


class Daemon:
    """One child process whose log goes to a file. Owns the process, not the file.

    It gets the user's environment without the settings of our daemons, because all settings are given here.

    It is a process group of its own, so that Ctrl-C reaches only the program that started it and stops it in order.
    """

    def __init__(
        self, name: str, command: Sequence[str], log_path: str, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._log_path = log_path
        with open(log_path, "wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                env=_without_settings(os.environ) | dict(environ or {}),
            )

    @property
    def pid(self) -> int:
        """Its pid, even after it has ended."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it is still running."""
        return self._process.poll() is None

    def log_text(self) -> str:
        """Everything it has logged."""
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def wait_for_event(self, event: str, timeout_s: float = START_TIMEOUT_S) -> str:
        """Block until a line of its log contains the word `event`, and return that line.

        Raises:
            DaemonFailed: it ended, or did not log it in time.
        """
        word = re.compile(rf"\b{re.escape(event)}\b")
        give_up = time.monotonic() + timeout_s
        while True:
            running = self.running
            found = next((line for line in self.log_text().splitlines() if word.search(line)), None)
            if found is not None:
                return found
            if not running:
                raise DaemonFailed(f"{self.name} ended with status {self._process.returncode}:\n{self._log_end()}")
            if time.monotonic() > give_up:
                raise DaemonFailed(f"{self.name} did not log '{event}' within {timeout_s:.0f} s:\n{self._log_end()}")
            time.sleep(_LOOK_INTERVAL_S)

    def wait_until_accepting(self, port: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Block until it accepts connections on the port; for programs that do not log it. Raises DaemonFailed."""
        give_up = time.monotonic() + timeout_s
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            if not self.running or time.monotonic() > give_up:
                raise DaemonFailed(f"{self.name} does not accept connections on port {port}:\n{self._log_end()}")
            time.sleep(_LOOK_INTERVAL_S)

    def wait_for_port(self) -> int:
        """Block until it listens, and return the port. Raises DaemonFailed as wait_for_event() does."""
        line = self.wait_for_event("listening")
        match = _PORT.search(line)
        if match is None:
            raise DaemonFailed(f"{self.name} did not log its port: {line}")
        return int(match[1])

    def stop(self) -> int:
        """Ask it to end, kill it if it does not, and return its exit status; may be called twice."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(STOP_TIMEOUT_S)
            self._process.kill()
        return self._process.wait()

    def kill(self) -> None:
        """End it as `kill -9` does, and wait until it has ended."""
        self._process.kill()
        self._process.wait()

    def _log_end(self) -> str:
        return "\n".join(self.log_text().splitlines()[-20:]) or "(it logged nothing)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairOptions:
    """Configuration of the pair. `source` (directory or file map) is the cache's, `origin_url` the proxy's."""

    source: str | None = None
    origin_url: str | None = None
    cache_threads: int = 8
    proxy_threads: int = 8
    segment_count: int = 8
    segment_bytes: int = 262_144
    port: int = 0
    environ: tuple[tuple[str, str], ...] = ()

    def cache_command(self, queue_name: str) -> list[str]:
        """The command line of the cache."""
        source = ["-c", self.source] if self.source else []
        return [executable("simplecached"), "-t", str(self.cache_threads), "-q", queue_name, *source]

    def proxy_command(self, queue_name: str) -> list[str]:
        """The command line of the proxy."""
        origin = ["-s", self.origin_url] if self.origin_url else []
        numbers = ["-t", self.proxy_threads, "-n", self.segment_count, "-z", self.segment_bytes, "-p", self.port]
        return [executable("webproxy"), *map(str, numbers), "-q", queue_name, *origin]


@dataclass(frozen=True, slots=True)
class Pair:
    """A running cache and proxy."""

    cache: Daemon
    proxy: Daemon
    port: int
    queue_name: str

    @property
    def pids(self) -> tuple[int, int]:
        """Both pids, the cache's first."""
        return self.cache.pid, self.proxy.pid

    def stop(self) -> dict[str, int]:
        """Stop the proxy, then the cache; their exit statuses by name. May be called twice."""
        return {daemon.name: daemon.stop() for daemon in (self.proxy, self.cache)}


@contextmanager
def running_daemon(
    name: str, command: Sequence[str], log_path: str, environ: Mapping[str, str] | None = None
) -> Iterator[Daemon]:
    """Run one child process; it is always stopped at the end, even if a signal arrives while it is being started."""
    daemon = None
    try:
        with _interruption.held_back():  # otherwise it could run unnoticed
            daemon = Daemon(name, command, log_path, environ)
        yield daemon
    finally:
        if daemon is not None:
            daemon.stop()


@contextmanager
def running_pair(options: PairOptions, log_directory: str, tag: str) -> Iterator[Pair]:
    """Run both daemons on a queue name of their own; they are always stopped at the end.

    Raises:
        DaemonFailed: one of them did not start.
    """
    queue_name = f"/{tag}-{os.getpid()}"
    with ExitStack() as started:

        def start(name: str, command: Sequence[str]) -> Daemon:
            log_path = os.path.join(log_directory, f"{tag}-{name}.log")
            return started.enter_context(running_daemon(name, command, log_path, dict(options.environ)))

        cache = start("simplecached", options.cache_command(queue_name))
        cache.wait_for_event("ready")
        proxy = start("webproxy", options.proxy_command(queue_name))
        yield Pair(cache, proxy, proxy.wait_for_port(), queue_name)
