"""Supervisor: several worker processes behind one listening socket.

It opens the socket, starts the workers and waits: for signs of life, ends and signals. What to do then is decided by
`fleet.py`. Workers are spawned, never forked, and inherit the socket and a file with the settings in effect, so that a
worker that replaces another has the settings of its generation whatever the user's file says by now. The supervisor
serves nobody, has no threads, and no names but those of the pages that its workers count in, which outlive them, so
that little could end it; if it is killed the kernel tells the workers, which complete what they have begun and end.

A worker says that it is ready, and that it lives, with the datagrams of sd_notify(3). One that says nothing for
`worker_timeout_s` is killed, and its names are swept.

Reload: the settings are read again, a second generation of workers is started with them on the same socket, and only
when all of it is ready do the old workers retire. Upgrade: the same with another supervisor (`successor.py`). A wish
that comes while another is being fulfilled is heard afterwards, once however often it came.
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
from shmchannel.daemonkit.exits import ExitCode, shown_status
from shmchannel.daemonkit.readiness import READY, STOPPING, WATCHDOG, NotifySocket, notify
from shmchannel.daemonkit.settings import SettingError
from shmchannel.daemonkit.signals import Wish, Wishes
from shmchannel.process import reaper
from shmchannel.registry import Presence
from shmchannel.stats_pages import SlotPages
from webproxy.daemon.admin_process import AdminProcess, open_admin
from webproxy.daemon.config import ProxyConfig
from webproxy.daemon.fleet import AT_ONCE_MIN, Fleet, FleetLimits, Generation, Phase, Progress
from webproxy.daemon.handover import (
    Inherited,
    WorkerRole,
    inherit,
    is_worker,
    settings_file,
    worker_command,
    worker_environment,
)
from webproxy.daemon.steering import SUPERVISOR, Steering
from webproxy.daemon.successor import END_GRACE_S, Succession, Successor
from webproxy.errors import StartupError
from webproxy.telemetry.metrics import ROLE, SCHEMA
from webproxy.transport.listener import open_listener

log = logging.getLogger(__name__)

_TURN_S = 0.5
_WATCHDOG_S = 1.0
"""Not in each turn: the queue of a service manager that is slow holds ten datagrams (net.unix.max_dgram_qlen)."""
_LATE_S = 2.0
"""A turn that began so late was not due to the workers."""


def share_of(config: ProxyConfig, workers: int) -> ProxyConfig:
    """The settings of one of so many workers: what bounds the whole proxy's use of an origin or a disk is divided."""
    return replace(
        config,
        origin_connections_max=max(1, config.origin_connections_max // workers),
        origin_connections_each_max=max(1, config.origin_connections_each_max // workers),
        spool_bytes_max=config.spool_bytes_max // workers,
    )


class Settled:
    """The settings of one generation, as a file that its workers read, and what is open for them.

    Listener and admin server may be those of another generation too: who closes them sees to that.
    """

    def __init__(self, config: ProxyConfig, listener: socket.socket, admin: AdminProcess | None) -> None:
        """Raises OSError: no memory or descriptor for the file."""
        self.config = config
        self.workers = config.worker_count()
        self.listener = listener
        self.admin = admin
        self.fd = settings_file(share_of(config, self.workers))

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def settle(config: ProxyConfig, serving: Settled) -> Settled:
    """All that workers with these settings need beside those that serve; if something cannot be had, nothing is open.

    Raises:
        StartupError, OSError: why it cannot be had.
    """
    listener, admin = serving.listener, serving.admin
    with ExitStack() as opened:
        if (config.host, config.port) != (serving.config.host, serving.config.port):
            listener = open_listener(config.host, config.port)
            opened.callback(listener.close)
        if config.admin != serving.config.admin:
            admin = None if config.admin is None else AdminProcess(config.admin)
            if admin is not None:
                opened.callback(admin.close)
        settled = Settled(config, listener, admin)
        opened.pop_all()
    return settled


class Supervisor:
    """Belongs to the main thread of a process without any other."""

    def __init__(self, settings: Settings[ProxyConfig], listener: socket.socket, inherited: Inherited) -> None:
        """Takes over the listener, also if it fails.

        Raises:
            StartupError, OSError: what it needs cannot be had.
        """
        self._settings = settings
        self._inherited = inherited
        config = settings.config
        with ExitStack() as opened:
            opened.callback(listener.close)
            self._notices = NotifySocket()
            opened.callback(self._notices.close)
            admin = open_admin(config, inherited)
            if admin is not None:
                opened.callback(admin.close)
            self._serving = Settled(config, listener, admin)
            opened.pop_all()
        host, port = listener.getsockname()[:2]
        self._pages = SlotPages(ROLE, f"{host}:{port}", SCHEMA)
        self._fleet = Fleet(max(AT_ONCE_MIN, os.cpu_count() or 0))
        self._candidates: Settled | None = None
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ends: dict[int, int] = {}
        """By pid: a descriptor that is readable once that worker has ended (pidfd_open(2))."""
        self._successor: Successor | None = None
        self._deferred: dict[Wish, None] = {}
        """Wishes that wait, each once, oldest first."""
        self._told_to_end: set[int] = set()
        """The workers that were sent SIGTERM: a second one would cut what they have."""
        self._reopen_when_ready: set[int] = set()
        self._failed_status: int | None = None
        """With which the last worker ended that ended unasked."""
        self._presence = Presence(SUPERVISOR)
        self._steering = Steering(self._presence)
        self._watchdog_due_s = 0.0
        self._cut = 0

    # -- the loop ----------------------------------------------------------------------------------------------------
    def run(self, wishes: Wishes) -> ExitCode:
        """Start the workers, and keep them running until somebody wishes the end."""
        self._fleet.begin(self._serving.workers, _limits(self._serving.config), monotonic())
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
                        return _exit_code(self._failed_status)
                    case Progress.READY:
                        is_started = True
                        self._fleet.promote(now)
                        self._say_ready()
            elif self._fleet.candidates is not None:
                self._judge(self._fleet.candidates)
            elif self._fleet.progress(self._fleet.serving) is Progress.REFUSED:
                log.error("no worker can start", extra={"status": self._failed_status})
                self._stop(wishes)
                return _exit_code(self._failed_status)
            if self._is_replaced():
                return self._stop(wishes, is_replaced=True)
            if self._deferred and is_started and not self._is_changing():
                wish = next(iter(self._deferred))
                del self._deferred[wish]
                self._hear(wish)

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
                if notice.pid in self._reopen_when_ready:
                    self._reopen_when_ready.remove(notice.pid)
                    self._signal(notice.pid, signal.SIGUSR1)
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
        if (now := monotonic()) >= self._watchdog_due_s:
            self._watchdog_due_s = now + _WATCHDOG_S
            notify(WATCHDOG)
        if self._serving.admin is not None:
            self._serving.admin.look()
        self._presence.beat(len(self._processes))

    def _spawn(self, settled: Settled, slot: int) -> subprocess.Popen[bytes]:
        listener_fd = settled.listener.fileno()
        role = WorkerRole(
            slot=slot,
            listener_fd=listener_fd,
            settings_fd=settled.fd,
            supervisor=os.getpid(),
            page=self._pages.name_of(slot),
        )
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
            self._told_to_end.discard(pid)
            self._reopen_when_ready.discard(pid)
            if (end_fd := self._ends.pop(pid, None)) is not None:
                os.close(end_fd)
            is_unclean = is_unclean or status != ExitCode.OK
            self._cut += status == ExitCode.INTERRUPTED
            found = self._fleet.exited(pid, status, monotonic())
            if found is None:
                continue
            self._pages.ended(found.worker.slot, pid)
            facts = {"worker": pid, "slot": found.worker.slot, "status": shown_status(status)}
            if not found.unasked:
                if status == ExitCode.OK or found.worker.was_starting:
                    log.info("worker retired", extra=facts)
                else:
                    log.warning("worker retired", extra=facts)
                continue
            self._failed_status = status
            if found.pause_s is None:
                log.error("worker cannot start", extra=facts)
            else:
                log.error("worker ended", extra={**facts, "replaced_in_s": found.pause_s})
        if is_unclean:
            reaper.sweep()

    # -- wishes ------------------------------------------------------------------------------------------------------
    def _hear(self, wish: Wish) -> None:
        if wish is Wish.REOPEN_LOGS:
            for worker in self._fleet.workers.values():
                if worker.phase is Phase.STARTING:  # the signal would end it, if it came very early
                    self._reopen_when_ready.add(worker.pid)
                else:
                    self._signal(worker.pid, signal.SIGUSR1)
            if self._successor is not None:
                self._deferred[wish] = None  # its workers may have opened the file before it was renamed
        elif self._is_changing():
            if wish not in self._deferred:
                log.info("wish deferred", extra={"wish": wish.value})
            self._deferred[wish] = None
        elif wish is Wish.RELOAD:
            self._reload()
        elif wish is Wish.UPGRADE:
            try:
                self._successor = Successor(self._serving.listener, self._serving.config, self._serving.admin)
            except OSError as error:
                log.error("successor refused", extra={"reason": str(error)})
                self._steering.refused(str(error))

    def _is_changing(self) -> bool:
        return self._fleet.candidates is not None or self._successor is not None

    def _reload(self) -> None:
        try:
            config = self._settings.again()
            self._candidates = settle(config, self._serving)
        except (SettingError, StartupError, OSError) as error:
            log.error("reload refused", extra={"reason": str(error)})
            self._steering.refused(str(error))
            return
        self._fleet.begin(self._candidates.workers, _limits(config), monotonic())
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
            self._discard(old)
            self._settings.log_as(settled.config)
            log.info("reloaded", extra={"generation": candidates.number, "workers": settled.workers})
            self._steering.address = self._address()
            self._steering.fulfilled("reloaded", generation=str(candidates.number), workers=str(settled.workers))
        elif progress is Progress.REFUSED:
            self._candidates = None
            for pid in self._fleet.abandon(monotonic()):
                self._tell_to_end(pid)
            self._discard(settled)
            statuses = [post.exit_status for post in candidates.posts if post.exit_status is not None]
            how = f"ended with status {shown_status(statuses[0])}" if statuses else "could not be started"
            reason = f"a worker with the new settings {how}"
            log.error("reload refused", extra={"reason": reason, "remedy": "see its log lines"})
            self._steering.refused(f"{reason}: see its log lines")

    def _discard(self, settled: Settled) -> None:
        """The settings of a generation that is not served any more."""
        settled.close()
        if settled.listener is not self._serving.listener:
            settled.listener.close()
        if settled.admin is not None and settled.admin is not self._serving.admin:
            settled.admin.close()

    def _is_replaced(self) -> bool:
        successor = self._successor
        if successor is None:
            return False
        progress = successor.look()
        if progress is Succession.DONE:
            for wish in self._deferred:
                successor.wish(wish)
        elif progress is Succession.REFUSED:
            self._steering.refused(f"{successor.refusal}: see its log lines")
        if progress is not Succession.RUNNING:
            self._successor = None
        return progress is Succession.DONE

    def _say_ready(self) -> None:
        host, port = self._serving.listener.getsockname()[:2]
        given_up = sum(post.given_up for post in self._fleet.serving.posts)
        facts = {"host": host, "port": port, "workers": self._serving.workers - given_up}
        self._steering.announce(self._address(), {"workers": str(facts["workers"])})
        log.info("listening", extra=facts)
        notify(READY)
        if self._serving.admin is not None:
            self._serving.admin.keep_path()
        self._inherited.say_ready()

    def _address(self) -> str:
        host, port = self._serving.listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # -- the end -----------------------------------------------------------------------------------------------------
    def _stop(self, wishes: Wishes, *, is_replaced: bool = False) -> ExitCode:
        """Have all workers complete what they have begun; a second wish for the end cuts that short.

        If this process is replaced, the first wish only ends the patience with idle connections. The service manager
        is told nothing then: it would take it for the end of the service.
        """
        self._presence.set_stopping()
        # First of all: once the last worker has closed it too, clients are refused instead of waiting for nobody.
        for settled in self._all_settled():
            settled.listener.close()
        if self._serving.admin is not None:
            self._serving.admin.close(is_handed_over=is_replaced)
        if self._successor is not None:
            self._successor.end()
        workers = self._fleet.stop(monotonic())
        limit = monotonic() + self._fleet.retire_s()
        if is_replaced:
            for pid in workers:
                self._signal(pid, signal.SIGUSR2)
        else:
            notify(STOPPING)
            self._tell_all_to_end()
        is_told = not is_replaced
        while (self._processes or self._successor_runs()) and monotonic() < limit:
            for _ in range(self._wait_for_stops(wishes)):
                if is_told:
                    limit = min(limit, monotonic() + END_GRACE_S)
                self._tell_all_to_end(insist=is_told)
                is_told = True
            self._notices.take()
            self._reap()
        if self._successor is not None:
            self._successor.kill()
        for pid, process in list(self._processes.items()):
            self._cut += 1
            self._signal(pid, signal.SIGKILL)
            process.wait()
        self._reap()
        log.info("stopped", extra={"workers_cut": self._cut, "restarts": self._fleet.restarts_total})
        return ExitCode.INTERRUPTED if self._cut else ExitCode.OK

    def _wait_for_stops(self, wishes: Wishes) -> int:
        """Wait like a supervisor that runs; returns how often the end was wished. Of all else only logs matter now."""
        if Wish.REOPEN_LOGS in (heard := self._wait(wishes)):
            self._hear(Wish.REOPEN_LOGS)
        return heard.count(Wish.STOP)

    def _successor_runs(self) -> bool:
        return self._successor is not None and self._successor.is_running

    def _tell_all_to_end(self, *, insist: bool = False) -> None:
        for pid in self._processes:
            self._tell_to_end(pid, insist=insist)

    def _tell_to_end(self, pid: int, *, insist: bool = False) -> None:
        """Have a worker complete what it has begun; with `insist` at once, whatever it has."""
        if insist or pid not in self._told_to_end:
            self._told_to_end.add(pid)
            self._signal(pid, signal.SIGINT if insist else signal.SIGTERM)

    def _all_settled(self) -> list[Settled]:
        return [self._serving] if self._candidates is None else [self._serving, self._candidates]

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
        for settled in self._all_settled():
            settled.close()
            settled.listener.close()
            if settled.admin is not None:
                settled.admin.close()
        self._notices.close()
        self._pages.close()
        self._presence.close()


def run_workers(settings: Settings[ProxyConfig], wishes: Wishes, resources: ExitStack) -> ExitCode | None:
    """Run the proxy as a supervisor with its workers; None if this process is a worker, or there shall be one process.

    Raises:
        StartupError: the port, or the admin server's address, cannot be listened on.
    """
    config = settings.config
    if is_worker() or config.worker_count() == 1:
        return None
    inherited = inherit()
    supervisor = Supervisor(settings, inherited.listener_for(config.host, config.port), inherited)
    resources.callback(supervisor.close)
    return supervisor.run(wishes)


def _limits(config: ProxyConfig) -> FleetLimits:
    return FleetLimits(
        start_s=config.worker_start_timeout_s, silence_s=config.worker_timeout_s, retire_s=config.drain_s + END_GRACE_S
    )


def _exit_code(status: int | None) -> ExitCode:
    return next((code for code in ExitCode if code.value == status), ExitCode.SOFTWARE)
