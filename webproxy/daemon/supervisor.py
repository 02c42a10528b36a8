"""Supervisor: several worker processes behind one listening socket.

It opens the socket, starts the workers and waits: for their signs of life, for their ends, for signals. What to do then
is decided by `fleet.py`; here it is done. Workers are spawned, never forked, and inherit the socket and a file with the
settings in effect, so that a worker that replaces another has the settings of its generation whatever the user's file
says by now. The supervisor serves nobody, has no threads and holds no names, so that there is little that could end it;
if it is killed the kernel tells the workers (PR_SET_PDEATHSIG), which complete what they have begun and end.

A worker says that it is ready, and that it lives, with the datagrams of sd_notify(3). One that says nothing for
`worker_timeout_s` is killed, and its names are swept.

Reload: the settings are read again, a second generation of workers is started with them on the same socket, and only
when all of it is ready do the old workers retire. Upgrade: the same with another supervisor (`successor.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic

from shmchannel.daemonkit.daemon import Settings
from shmchannel.daemonkit.exits import ExitCode
from shmchannel.daemonkit.readiness import READY, STOPPING, WATCHDOG, NotifySocket, notify
from shmchannel.daemonkit.settings import SettingError
from shmchannel.daemonkit.signals import Wish, Wishes
from shmchannel.process import reaper
from shmchannel.registry import Presence
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.fleet import Fleet, FleetLimits, Generation, Progress
from webproxy.daemon.handover import (
    Inherited,
    WorkerRole,
    settings_file,
    worker_command,
    worker_environment,
)
from webproxy.daemon.steering import SUPERVISOR, Steering
from webproxy.daemon.successor import Succession, Successor
from webproxy.errors import StartupError
from webproxy.transport.listener import open_listener

log = logging.getLogger(__name__)

_TURN_S = 0.5
_BUSY = "workers, or a successor, are still being started"
_LATE_S = 2.0
"""A turn that began so late was not due to the workers."""
_END_GRACE_S = 5.0
"""How much longer than `drain_s` a worker may take to end."""


def share_of(config: ProxyConfig, workers: int) -> ProxyConfig:
    """The settings of one of so many workers: what bounds the whole proxy's use of an origin or a disk is divided."""
    return replace(
        config,
        origin_connections_max=max(1, config.origin_connections_max // workers),
        origin_connections_each_max=max(1, config.origin_connections_each_max // workers),
        spool_bytes_max=config.spool_bytes_max // workers,
    )


class _Settled:
    """The settings of one generation, as a file that its workers read."""

    def __init__(self, config: ProxyConfig, workers: int, listener: socket.socket) -> None:
        self.config = config
        self.workers = workers
        self.listener = listener
        self.fd = settings_file(share_of(config, workers))

    def close(self) -> None:
        os.close(self.fd)


class Supervisor:
    """Belongs to the main thread of a process without any other."""

    def __init__(self, settings: Settings[ProxyConfig], listener: socket.socket, inherited: Inherited) -> None:
        """Takes over the listener."""
        self._settings = settings
        self._inherited = inherited
        config = settings.config
        self._notices = NotifySocket()
        self._fleet = Fleet(_limits(config))
        self._serving = _Settled(config, config.worker_count(), listener)
        self._candidates: _Settled | None = None
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ends: dict[int, int] = {}
        """By pid: a descriptor that is readable once that worker has ended (pidfd_open(2))."""
        self._successor: Successor | None = None
        self._refused_status: int | None = None
        self._presence = Presence(SUPERVISOR)
        self._steering = Steering(self._presence)
        self._cut = 0

    # -- the loop ----------------------------------------------------------------------------------------------------
    def run(self, wishes: Wishes) -> ExitCode:
        """Start the workers, and keep them running until somebody wishes the end."""
        self._fleet.begin(self._serving.workers, monotonic())
        is_started, last = False, monotonic()
        while True:
            for wish in self._wait(wishes):
                if wish is Wish.STOP:
                    return self._stop(wishes)
                self._hear(wish)
            now = monotonic()
            if now - last > _TURN_S + _LATE_S:
                self._fleet.forgive_silence(now - last)
            last = now
            self._turn()
            if not is_started:
                match self._fleet.progress(self._fleet.candidates or self._fleet.serving):
                    case Progress.REFUSED:
                        self._stop(wishes)
                        return _exit_code(self._refused_status)
                    case Progress.READY:
                        is_started = True
                        self._fleet.promote(now)
                        self._say_ready()
            elif self._fleet.candidates is not None:
                self._judge(self._fleet.candidates)
            elif self._fleet.progress(self._fleet.serving) is Progress.REFUSED:
                log.error("no worker can start", extra={"status": self._refused_status})
                self._stop(wishes)
                return _exit_code(self._refused_status)
            if self._is_replaced():
                return self._stop(wishes, by=signal.SIGUSR2)

    def _wait(self, wishes: Wishes) -> list[Wish]:
        """Until something happens, or is due."""
        due_s = self._fleet.next_s()
        limit_s = _TURN_S if due_s is None else max(0.0, min(_TURN_S, due_s - monotonic()))
        poll = select.poll()
        poll.register(wishes.signals.fileno(), select.POLLIN)
        poll.register(self._notices.fileno(), select.POLLIN)
        for end_fd in self._ends.values():
            poll.register(end_fd, select.POLLIN)
        poll.poll(limit_s * 1000)
        return wishes.wait(0)

    def _turn(self) -> None:
        """Take in what has happened, and do what is due."""
        for notice in self._notices.take():
            is_ready = READY in notice.messages
            worker = self._fleet.beat(notice.pid, monotonic(), is_ready=is_ready)
            if worker is not None:
                log.info("worker ready", extra={"worker": notice.pid, "slot": worker.slot})
        self._reap()
        for worker in self._fleet.overdue(monotonic()):
            log.error(
                "worker killed",
                extra={"worker": worker.pid, "slot": worker.slot, "reason": f"silent while {worker.phase.value}"},
            )
            self._signal(worker.pid, signal.SIGKILL)
        for post, slot in self._fleet.due(monotonic()):
            is_candidate = self._fleet.candidates is not None and post in self._fleet.candidates.posts
            settled = self._candidates if is_candidate and self._candidates is not None else self._serving
            try:
                process = self._spawn(settled, slot)
            except OSError as error:
                pause_s = self._fleet.not_started(post, monotonic())
                log.error("worker not started", extra={"slot": slot, "reason": str(error), "next_try_s": pause_s})
            else:
                self._processes[process.pid] = process
                with contextlib.suppress(OSError):  # otherwise its end is seen at the next turn
                    self._ends[process.pid] = os.pidfd_open(process.pid)
                self._fleet.started(post, slot, process.pid, monotonic())
        notify(WATCHDOG)
        self._presence.beat(len(self._processes))

    def _spawn(self, settled: _Settled, slot: int) -> subprocess.Popen[bytes]:
        listener_fd = settled.listener.fileno()
        role = WorkerRole(slot=slot, listener_fd=listener_fd, supervisor=os.getpid())
        return subprocess.Popen(
            worker_command(settled.fd),
            env=worker_environment(role, self._notices.address),
            pass_fds=(settled.fd, listener_fd),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the supervisor, which tells them
        )

    def _reap(self) -> None:
        """Take note of workers that have ended, and remove the names that they left."""
        is_unclean = False
        for pid, process in list(self._processes.items()):
            status = process.poll()
            if status is None:
                continue
            del self._processes[pid]
            if (end_fd := self._ends.pop(pid, None)) is not None:
                os.close(end_fd)
            is_unclean = is_unclean or status != ExitCode.OK
            self._cut += status == ExitCode.INTERRUPTED
            found = self._fleet.exited(pid, status, monotonic())
            if found is None:
                continue
            facts = {"worker": pid, "slot": found.worker.slot, "status": _shown(status)}
            if not found.unasked:
                log.info("worker retired", extra=facts)
            elif found.pause_s is None:
                self._refused_status = status
                log.error("worker cannot start", extra=facts)
            else:
                self._refused_status = status
                log.error("worker ended", extra={**facts, "replaced_in_s": found.pause_s})
        if is_unclean:
            reaper.sweep()

    # -- wishes ------------------------------------------------------------------------------------------------------
    def _hear(self, wish: Wish) -> None:
        if wish is Wish.REOPEN_LOGS:
            for pid in self._processes:
                self._signal(pid, signal.SIGUSR1)
        elif self._fleet.candidates is not None or self._successor is not None:
            log.warning("wish refused", extra={"wish": wish.value, "reason": _BUSY})
            self._steering.refused(_BUSY)
        elif wish is Wish.RELOAD:
            self._reload()
        elif wish is Wish.UPGRADE:
            try:
                self._successor = Successor(self._serving.listener.fileno(), self._fleet.limits.start_s)
            except OSError as error:
                log.error("successor refused", extra={"reason": str(error)})
                self._steering.refused(str(error))

    def _reload(self) -> None:
        try:
            config = self._settings.again()
            address = (config.host, config.port)
            serving = self._serving
            is_same = address == (serving.config.host, serving.config.port)
            listener = serving.listener if is_same else open_listener(config.host, config.port)
            self._candidates = _Settled(config, config.worker_count(), listener)
        except (SettingError, StartupError, OSError) as error:
            log.error("reload refused", extra={"reason": str(error)})
            self._steering.refused(str(error))
            return
        self._fleet.begin(self._candidates.workers, monotonic())
        log.info("reloading", extra={"workers": self._candidates.workers})

    def _judge(self, candidates: Generation) -> None:
        """See whether the next generation can take over."""
        settled = self._candidates
        assert settled is not None
        progress = self._fleet.progress(candidates)
        if progress is Progress.READY:
            old, self._serving, self._candidates = self._serving, settled, None
            for pid in self._fleet.promote(monotonic()):
                self._signal(pid, signal.SIGUSR2)
            self._fleet.limits = _limits(settled.config)
            self._discard(old)
            self._settings.log_as(settled.config)
            log.info("reloaded", extra={"generation": candidates.number, "workers": settled.workers})
            self._steering.fulfilled("reloaded", generation=str(candidates.number), workers=str(settled.workers))
        elif progress is Progress.REFUSED:
            self._candidates = None
            for pid in self._fleet.abandon(monotonic()):
                self._signal(pid, signal.SIGTERM)
            self._discard(settled)
            reason = f"a worker with the new settings ended with status {_shown(self._refused_status)}"
            log.error("reload refused", extra={"reason": reason, "remedy": "see its log lines"})
            self._steering.refused(f"{reason}: see its log lines")

    def _discard(self, settled: _Settled) -> None:
        """The settings of a generation that is not served any more."""
        settled.close()
        if settled.listener is not self._serving.listener:
            settled.listener.close()

    def _is_replaced(self) -> bool:
        successor = self._successor
        if successor is None:
            return False
        progress = successor.look()
        if progress is not Succession.RUNNING:
            self._successor = None
        if progress is Succession.REFUSED:
            self._steering.refused(successor.refusal)
        return progress is Succession.DONE

    def _say_ready(self) -> None:
        host, port = self._serving.listener.getsockname()[:2]
        given_up = sum(post.given_up for post in self._fleet.serving.posts)
        facts = {"host": host, "port": port, "workers": self._serving.workers - given_up}
        shown = f"[{host}]" if ":" in host else host
        self._steering.announce(f"{shown}:{port}", {"workers": str(facts["workers"])})
        log.info("listening", extra=facts)
        notify(READY)
        self._inherited.say_ready()

    # -- the end -----------------------------------------------------------------------------------------------------
    def _stop(self, wishes: Wishes, *, by: int = signal.SIGTERM) -> ExitCode:
        """Have all workers complete what they have begun; a second wish for the end cuts that short."""
        notify(STOPPING)
        self._presence.set_stopping()
        if self._successor is not None:
            self._successor.end()
        for pid in self._fleet.stop(monotonic()):
            self._signal(pid, by)
        limit = monotonic() + self._serving.config.drain_s + _END_GRACE_S
        while self._processes and monotonic() < limit:
            if Wish.STOP in self._wait(wishes):
                limit = min(limit, monotonic() + _END_GRACE_S)
                for pid in self._processes:
                    self._signal(pid, signal.SIGTERM)
            self._notices.take()
            self._reap()
        for pid, process in list(self._processes.items()):
            self._cut += 1
            self._signal(pid, signal.SIGKILL)
            process.wait()
        self._reap()
        log.info("stopped", extra={"workers_cut": self._cut, "restarts": self._fleet.restarts_total})
        return ExitCode.INTERRUPTED if self._cut else ExitCode.OK

    def _signal(self, pid: int, signum: int) -> None:
        process = self._processes.get(pid)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signum)

    def close(self) -> None:
        """Kill the workers that are left, which only an error leaves; close what is open."""
        for pid in list(self._processes):
            self._signal(pid, signal.SIGKILL)
        for process in self._processes.values():
            process.wait()
        for end_fd in self._ends.values():
            os.close(end_fd)
        for settled in filter(None, (self._serving, self._candidates)):
            with contextlib.suppress(OSError):
                settled.close()
            settled.listener.close()
        self._notices.close()
        self._presence.close()


def supervise(settings: Settings[ProxyConfig], wishes: Wishes, resources: ExitStack, inherited: Inherited) -> ExitCode:
    """Run the proxy as several processes; returns how it ended.

    Raises:
        StartupError: the port cannot be listened on.
    """
    config = settings.config
    listener = inherited.listener or open_listener(config.host, config.port)
    supervisor = Supervisor(settings, listener, inherited)
    resources.callback(supervisor.close)
    return supervisor.run(wishes)


def _limits(config: ProxyConfig) -> FleetLimits:
    return FleetLimits(
        start_s=config.worker_start_timeout_s, silence_s=config.worker_timeout_s, retire_s=config.drain_s + _END_GRACE_S
    )


def _shown(status: int | None) -> str:
    if status is not None and status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return str(status)


def _exit_code(status: int | None) -> ExitCode:
    return next((code for code in ExitCode if code.value == status), ExitCode.SOFTWARE)
