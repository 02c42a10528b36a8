"""The life of a daemon, from its arguments to its exit code: what both daemons do alike, written once.

    settings -> log -> build -> start, READY -> [signal] -> STOPPING -> drain -> finish -> exit code

A daemon declares itself as a `Daemon` and builds a `Service`; `run_daemon` does the rest, in the main thread. Until
the signal trap is set, SIGINT raises `KeyboardInterrupt`, which is the caller's; from then on a signal is something
to wait for, also one that arrives while the service is being built. The first signal begins the drain: the service
takes no new work, and work in progress may end within `drain_s`. A second signal cuts the drain short. What the
service acquired is on the `ExitStack` it was given, and is undone on every way out.

Errors become exit codes here and nowhere else: `Daemon.exit_codes` says which, the nearest base class counts.
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from dataclasses import Field, dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from shmchannel.daemonkit import logs
from shmchannel.daemonkit.exits import ExitCode, exit_code_of
from shmchannel.daemonkit.limits import raise_file_limit
from shmchannel.daemonkit.options import load_or_exit, refuse
from shmchannel.daemonkit.readiness import READY, STOPPING, notify
from shmchannel.daemonkit.signals import SignalTrap, ending_signals, insist

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 0.02


class DaemonConfig(Protocol):
    """A dataclass with the settings that every daemon has."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def log_level(self) -> str:
        """A value of `LogLevel`."""

    @property
    def log_format(self) -> str:
        """A value of `LogForm`."""

    @property
    def drain_s(self) -> float:
        """Seconds that work in progress may take after the first signal."""


class Drain:
    """The time that is left to work in progress once a daemon was asked to end."""

    def __init__(self, signals: SignalTrap, limit_s: float) -> None:
        self._signals = signals
        self._interrupted = False
        self.expires_ns = monotonic_ns() + int(limit_s * 1e9)
        """When the limit ends, on CLOCK_MONOTONIC."""

    @property
    def remaining_s(self) -> float:
        """Seconds until the limit, never below 0."""
        return max(0.0, (self.expires_ns - monotonic_ns()) / 1e9)

    def interrupted(self, wait_s: float = 0.0) -> bool:
        """Whether a second signal said not to wait any longer; waits up to `wait_s` seconds for one."""
        self._interrupted = self._interrupted or insist(self._signals.wait(wait_s))
        return self._interrupted

    def wait_while(self, busy: Callable[[], bool]) -> None:
        """Wait until nothing is busy, the limit has passed or a second signal came."""
        while busy() and self.remaining_s and not self.interrupted(min(_LOOK_AGAIN_SECONDS, self.remaining_s)):
            pass


class Service(Protocol):
    """What a daemon is made of; the methods are called in this order, all in the main thread."""

    def start(self) -> None:
        """Start the threads and log that the service is there."""

    def housekeep(self) -> None:
        """Do what is due, once in `HOUSEKEEPING_SECONDS` while the service runs."""

    def stop_accepting(self) -> None:
        """Take no new work; what is in progress continues."""

    def is_busy(self) -> bool:
        """Whether work is in progress."""

    def finish(self, drain: Drain) -> int:
        """Stop the threads, log what was done, and return how many pieces of work were left unfinished."""


C = TypeVar("C", bound="DaemonConfig")


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon(Generic[C]):
    """A daemon as a declaration; `build` puts the undoing of what it acquires on the stack."""

    prog: str
    description: str
    version: Callable[[], str]
    config_type: type[C]
    build: Callable[[C, ExitStack], Service]
    exit_codes: Mapping[type[Exception], ExitCode]


def run_daemon(daemon: Daemon[C], argv: Sequence[str] | None = None) -> int:
    """Run a daemon until a signal asks it to end; returns the exit code.

    `argv` are the process's own arguments unless given. Ends by `SystemExit` with code 2 and one line on the error
    stream when the settings are refused, and with 0 after `--help` and `--version`.
    """
    loaded = load_or_exit(
        daemon.config_type, prog=daemon.prog, description=daemon.description, version=daemon.version, argv=argv
    )
    if loaded.check_only:
        sys.stdout.write(loaded.describe() + "\n")
        return int(ExitCode.OK)
    config = loaded.config
    logs.configure(config.log_level, prog=daemon.prog, form=config.log_format)
    for warning in loaded.warnings:
        log.warning("setting ignored", extra={"reason": warning})
    try:
        code = _serve(daemon, config)
    except tuple(daemon.exit_codes) as error:
        code = exit_code_of(error, daemon.exit_codes)
        if code is ExitCode.USAGE:
            refuse(daemon.prog, error)
        log.error("cannot start", extra={"reason": str(error)})
    except OSError as error:  # what every start needs: descriptors, memory
        log.error("cannot start", extra={"reason": f"{error} (see ulimit -a)"})
        code = ExitCode.CANNOT_START
    except Exception:
        log.exception("failed")
        code = ExitCode.SOFTWARE
    return int(code)


def _serve(daemon: Daemon[C], config: C) -> ExitCode:
    raise_file_limit()
    with ExitStack() as resources:
        signals = resources.enter_context(SignalTrap(*ending_signals()))
        service = daemon.build(config, resources)
        service.start()
        notify(READY)
        while not signals.wait(HOUSEKEEPING_SECONDS):
            service.housekeep()
        notify(STOPPING)
        service.stop_accepting()
        drain = Drain(signals, config.drain_s)
        drain.wait_while(service.is_busy)
        return ExitCode.INTERRUPTED if service.finish(drain) else ExitCode.OK
