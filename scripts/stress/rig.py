"""A pair before the scripted origin, both daemons of which may be killed, stopped and started again."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from scripts.daemons import Daemon, PairOptions, running_daemon
from scripts.stress.helper import Helper
from shmchannel.process.reaper import sweep
from shmchannel.tools.leaks import leaks_of

_SOON_S = (("WEBPROXY_DRAIN_S", "1"), ("SIMPLECACHED_DRAIN_S", "1"))  # who waits at the end of a row waits for nothing


class Rig:
    """The origin and both daemons of one row. `running_rig` ends everything that it started, by pid."""

    def __init__(self, directory: str, options: PairOptions, tag: str) -> None:
        self._directory = directory
        self._options = options
        self._tag = tag
        self._stack = ExitStack()
        self._started: list[Daemon] = []
        self.queue_name = f"/{tag}-{os.getpid()}"
        self.origin: Helper
        self.cache: Daemon
        self.proxy: Daemon
        self.port = options.port
        self.left: list[str] = []
        """Names that were there after the end; they have been removed."""

    def start(self) -> None:
        """Start everything. Raises DaemonFailed, HelperFailed."""
        self.origin = self._stack.enter_context(Helper("scripts.stress.origin"))
        url = self.origin.ask()["url"]
        self._options = replace(self._options, origin_url=url, environ=(*_SOON_S, *self._options.environ))
        self.start_cache()
        self.start_proxy()

    def start_cache(self, *, store: str | None = None) -> None:
        """Start a cache on the rig's queue and wait until it is ready; `store` is another than the options say."""
        environ = dict(self._options.environ) | ({"SIMPLECACHED_STORE": store} if store else {})
        self.cache = self._run("simplecached", self._options.cache_command(self.queue_name), environ)
        self.cache.wait_for_event("ready")

    def start_proxy(self) -> None:
        """Start a proxy and wait until it listens; from the second on it has the port of the first."""
        options = replace(self._options, port=self.port)
        self.proxy = self._run("webproxy", options.proxy_command(self.queue_name), dict(options.environ))
        self.port = self.proxy.wait_for_port()

    def end(self) -> None:
        """Stop everything and remove the names that it left, which are in `left`. May be called twice."""
        for daemon in self._started:
            send_signal(daemon, signal.SIGCONT)
        try:
            self._stack.close()
        finally:
            found = leaks_of([daemon.pid for daemon in self._started], self.queue_name)
            self.left += [row.path for row in found]
            if found:
                sweep()

    def logs(self) -> str:
        """All that the daemons have logged."""
        return "\n".join(daemon.log_text() for daemon in self._started)

    def _run(self, name: str, command: list[str], environ: dict[str, str]) -> Daemon:
        log_path = os.path.join(self._directory, f"{self._tag}-{len(self._started)}-{name}.log")
        daemon = self._stack.enter_context(running_daemon(name, command, log_path, environ))
        self._started.append(daemon)
        return daemon


@contextmanager
def running_rig(directory: str, options: PairOptions, tag: str) -> Iterator[Rig]:
    """Run a rig; all that it started has ended behind it."""
    rig = Rig(directory, options, tag)
    try:
        rig.start()
        yield rig
    finally:
        rig.end()


def send_signal(daemon: Daemon, signum: signal.Signals) -> None:
    """Signal a daemon that is running."""
    if daemon.running:
        os.kill(daemon.pid, signum)


def kill(daemon: Daemon) -> None:
    """SIGKILL a daemon and wait for its end."""
    send_signal(daemon, signal.SIGKILL)
    daemon.stop()


def raise_descriptor_limit() -> int:
    """Let this process and those it starts open as many descriptors as it may allow them; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def own_memory_kib(pid: int) -> float:
    """What a process has for itself: no segments, no memory files, no files that it maps."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
        return float(next(line.split()[1] for line in lines if line.startswith("RssAnon")))
