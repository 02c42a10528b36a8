"""Runs a daemon from its command line to its exit code; both daemons share this code.

    settings -> log -> build -> start, READY -> [wish] -> STOPPING -> drain -> finish -> exit code

A daemon is declared as a `Daemon` and builds a `Service`; `run_daemon` does the rest, in the main thread. Before the
signal trap is set, SIGINT raises `KeyboardInterrupt`, which is left to the caller. From then on signals are collected
and acted on between the steps above, including those that arrive while the service is being built. The first one that
asks to stop starts the drain: the service accepts no new work, and work in progress may take up to `drain_s`. A second
one cuts the drain short. All other wishes are for the service, which may say that another process has taken its place:
then it drains as well, and may wait for more until the first signal that asks to stop. A daemon may also run as several
processes: what it declares as `supervise` does so. Whatever the service acquired is on the `ExitStack` it was given and
is released on every way out.

Errors are mapped to exit codes here and nowhere else, by `Daemon.exit_codes`; the nearest base class counts.
"""

from __future__ import annotations

import logging
import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from shmchannel.daemonkit import logs
from shmchannel.daemonkit.exits import ExitCode, exit_code_of
from shmchannel.daemonkit.limits import raise_file_limit
from shmchannel.daemonkit.output import put_out
from shmchannel.daemonkit.readiness import READY, STOPPING, WATCHDOG, notify
from shmchannel.daemonkit.settings import SettingError, option
from shmchannel.daemonkit.signals import (
    NO_END,
    SIGNALS,
    SignalTrap,
    Wish,
    Wishes,
    ignores_hangup,
    insist,
    let_through,
    trapped,
)
from shmchannel.daemonkit.sources import Loaded, load, refuse, settings_parser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shmchannel.daemonkit.command_line import SettingsParser

log = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 1.0
"""Also how often the service manager is given a sign of life, at least."""
_LOOK_AGAIN_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """The settings that every daemon has."""

    log_level: logs.LogLevel = option(
        logs.LogLevel.INFO, "lowest level of events that are logged", flags=("--log-level",), metavar="L"
    )
    log_format: logs.LogForm = option(logs.LogForm.CONSOLE, "format of log events")
    log_limit_s: float = option(
        60.0,
        "time in which equal log events are written once, with a count of the others; 0: no limit",
        low=0,
        high=3600,
    )
    drain_s: float = option(10.0, "how long running requests may continue after SIGTERM", low=0, high=3600)


class Drain:
    """The time left for work in progress after a daemon was asked to stop."""

    def __init__(
        self,
        signals: SignalTrap,
        limit_s: float,
        *,
        forewarn: Callable[[], None] | None = None,
        reopen_logs: Callable[[], None] | None = None,
        is_supervised: bool = False,
    ) -> None:
        """`forewarn` is called at the first signal that would end the drain, and that one does not.

        `reopen_logs` is called at each SIGUSR1: what is in progress has its lines still to come.

        If it `is_supervised`, only SIGINT ends it: a service manager that signals all processes of a service, and a
        supervisor that passes the signal on, are not two wishes.
        """
        self._signals = signals
        self._is_supervised = is_supervised
        self._forewarn = forewarn
        self._reopen_logs = reopen_logs
        self._interrupted = False
        self.expires_ns = monotonic_ns() + int(limit_s * 1e9)
        """The end of the drain on CLOCK_MONOTONIC, in nanoseconds."""

    @property
    def remaining_s(self) -> float:
        """Seconds until the limit, never below 0."""
        return max(0.0, (self.expires_ns - monotonic_ns()) / 1e9)

    def interrupted(self, wait_s: float = 0.0) -> bool:
        """Return whether a second signal has ended the drain; wait up to `wait_s` seconds for one."""
        if not self._interrupted:
            signums = self._signals.wait(wait_s)
            if signal.SIGUSR1 in signums and self._reopen_logs is not None:
                self._reopen_logs()
            insisting = insist(signums)
            if insisting and self._forewarn is not None:
                self._forewarn()
                self._forewarn = None
                insisting -= 1
            self._interrupted = signal.SIGINT in signums if self._is_supervised else insisting > 0
        return self._interrupted

    def wait_while(self, busy: Callable[[], bool]) -> None:
        """Wait until `busy()` is false, the limit has passed, or a second signal has arrived."""
        while busy() and self.remaining_s and not self.interrupted(min(_LOOK_AGAIN_SECONDS, self.remaining_s)):
            pass


class Service(Protocol):
    """What a daemon does; the methods are called in this order, in the main thread."""

    def start(self) -> None:
        """Start the threads, and log that the service is ready."""

    def housekeep(self) -> None:
        """Do periodic work; called every `HOUSEKEEPING_SECONDS` while the service runs."""

    def hear(self, wish: Wish, settings: Settings[Any]) -> None:
        """Act on a wish that is not to stop; `settings` are the daemon's own."""

    def is_replaced(self, settings: Settings[Any]) -> bool:
        """Return whether another process has taken the place of this one; called at least once a second."""

    def stop_accepting(self) -> None:
        """Accept no new work; work in progress continues."""

    def is_supervised(self) -> bool:
        """Return whether a supervisor passes on the signals that are for the whole service."""

    def hurry(self) -> None:
        """The service was replaced and drains, and is now asked to stop: what is not in progress need not come."""

    def is_busy(self) -> bool:
        """Return whether work is in progress."""

    def finish(self, drain: Drain) -> int:
        """Stop the threads, log the totals, and return how many pieces of work were cut off."""


C = TypeVar("C", bound="DaemonConfig")


@dataclass(frozen=True, slots=True)
class Settings(Generic[C]):
    """The settings in effect.

    `again()` reads them once more, and raises `SettingError` if they are refused now. `log_as()` has the log written as
    a configuration says.
    """

    config: C
    again: Callable[[], C]
    log_as: Callable[[C], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon(Generic[C]):
    """The declaration of a daemon; `build` pushes the release of what it acquires onto the stack.

    `shortages` says what the limits of the process make of the settings, for --check-config; `build` logs it. Each of
    the `changes` is logged: a later event of another name is no longer true after it. `supervise` runs the daemon as
    several processes and returns how it ended, or None if this process shall serve. `on_refusal` is told why the daemon
    does not start, beside the line in the log or on the error stream.
    """

    prog: str
    description: str
    version: Callable[[], str]
    config_type: type[C]
    build: Callable[[C, ExitStack], Service]
    exit_codes: Mapping[type[Exception], ExitCode]
    shortages: Callable[[C], Sequence[str]]
    changes: frozenset[str] = frozenset()
    supervise: Callable[[Settings[C], Wishes, ExitStack], ExitCode | None] = lambda *_: None
    on_refusal: Callable[[str], object] = lambda _: None


def parser_of(daemon: Daemon[C]) -> SettingsParser:
    """Return the parser of a daemon's command line."""
    return settings_parser(daemon.config_type, prog=daemon.prog, description=daemon.description)


def run_daemon(daemon: Daemon[C], argv: Sequence[str] | None = None) -> int:
    """Run a daemon until a signal stops it; return the exit code.

    `argv` defaults to the process's own arguments. Raises `SystemExit` with code 2 after one line on the error stream
    if the settings are refused, and with code 0 after `--help` and `--version`.
    """

    def read(*, is_again: bool = False) -> Loaded[C]:
        return load(
            daemon.config_type,
            prog=daemon.prog,
            description=daemon.description,
            version=daemon.version,
            argv=argv,
            is_again=is_again,
        )

    try:
        loaded = read()
        text = loaded.toml() if loaded.print_only else ""
    except SettingError as error:
        daemon.on_refusal(str(error))
        refuse(daemon.prog, error)
    if text or loaded.check_only:
        # TOML is UTF-8, whatever the locale.
        is_written = put_out(daemon.prog, text.encode() if text else loaded.describe() + "\n")
        code = ExitCode.OK if text else _check(daemon, loaded.config)
        return int(code if is_written else ExitCode.FAILED)

    def log_as(config: C) -> None:
        logs.configure(
            config.log_level,
            prog=daemon.prog,
            form=config.log_format,
            limit_s=config.log_limit_s,
            unlimited=daemon.changes,
        )

    log_as(loaded.config)
    for warning in loaded.warnings:
        log.warning("setting ignored", extra={"reason": warning})
    try:
        code = _serve(daemon, Settings(loaded.config, lambda: read(is_again=True).config, log_as))
    except tuple(daemon.exit_codes) as error:
        code = exit_code_of(error, daemon.exit_codes)
        daemon.on_refusal(str(error))
        if code is ExitCode.USAGE:
            refuse(daemon.prog, error)
        log.error("cannot start", extra={"reason": str(error)})
    except Exception as error:
        code = ExitCode.CANNOT_START
        if (lacking := _lacking(error)) is not None:
            daemon.on_refusal(lacking)
            log.error("cannot start", extra={"reason": lacking})
        else:
            log.exception("failed")
            code = ExitCode.SOFTWARE
    if left_out := logs.suppressed():
        log.info("events left out", extra={"events": left_out})
    return int(code)


def _lacking(error: Exception) -> str | None:
    """What the system refused of that which every start needs: descriptors, memory, threads. None: nothing."""
    if isinstance(error, OSError):
        return f"{error} (see ulimit -a)"
    if isinstance(error, MemoryError):
        return "no memory left for this process (see ulimit -v, and free)"
    if type(error) is RuntimeError and "start new thread" in str(error):
        return "the system refused another thread (raise ulimit -u or -v, or use fewer threads: -t)"
    return None


def _check(daemon: Daemon[C], config: C) -> ExitCode:
    """Say what a start would say of the limits of this process."""
    raise_file_limit()
    try:
        for shortage in daemon.shortages(config):
            sys.stderr.write(f"{daemon.prog}: {shortage}\n")
    except tuple(daemon.exit_codes) as error:
        sys.stderr.write(f"{daemon.prog}: cannot start: {error}\n")
        return exit_code_of(error, daemon.exit_codes)
    return ExitCode.OK


def _serve(daemon: Daemon[C], settings: Settings[C]) -> ExitCode:
    raise_file_limit()
    with ExitStack() as resources:
        survives_hangup = ignores_hangup()
        signals = resources.enter_context(trapped(*SIGNALS, ignored_afterwards=NO_END))
        let_through()
        wishes = Wishes(signals, survives_hangup=survives_hangup)
        if (code := daemon.supervise(settings, wishes, resources)) is not None:
            return code
        service = daemon.build(settings.config, resources)
        service.start()
        notify(READY)
        is_replaced = _run(service, wishes, settings)
        if not is_replaced:  # otherwise the manager would take it for the end of the service
            notify(STOPPING)
        service.stop_accepting()
        drain = Drain(
            signals,
            settings.config.drain_s,
            forewarn=service.hurry if is_replaced else None,
            reopen_logs=lambda: service.hear(Wish.REOPEN_LOGS, settings),
            is_supervised=service.is_supervised(),
        )
        drain.wait_while(service.is_busy)
        return ExitCode.INTERRUPTED if service.finish(drain) else ExitCode.OK


def _run(service: Service, wishes: Wishes, settings: Settings[C]) -> bool:
    """Run until somebody wishes an end, or has taken over, which is returned."""
    due = monotonic() + HOUSEKEEPING_SECONDS
    while not service.is_replaced(settings):
        heard = wishes.wait(max(0.0, due - monotonic()))
        if Wish.STOP in heard:
            return False
        for wish in heard:
            service.hear(wish, settings)
        if (now := monotonic()) >= due:  # also while one wish follows the other
            service.housekeep()
            notify(WATCHDOG)
            due = now + HOUSEKEEPING_SECONDS
    return True
