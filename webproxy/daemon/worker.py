"""ProxyService: the life of one proxy process, from its first thread to the final log line with all counts.

Assembly builds the parts; they are run here. Each worker repeats one step: take a job, run it, and have its outcome
settled.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from time import monotonic, monotonic_ns

from shmchannel.daemonkit.daemon import Drain, Settings
from shmchannel.daemonkit.settings import SettingError
from shmchannel.daemonkit.signals import Wish
from shmchannel.deadline import Deadline
from shmchannel.process import reaper
from shmchannel.registry import Presence
from shmchannel.stats_pages import StatsPage
from shmchannel.workers import WorkerPool
from webproxy.daemon.admin_process import AdminProcess
from webproxy.daemon.config import AUTO, ProxyConfig
from webproxy.daemon.handover import Inherited, WorkerRole
from webproxy.daemon.sampling import Sampler
from webproxy.daemon.spool_room import SpoolRoom
from webproxy.daemon.steering import CACHES, SLOT, SUPERVISOR, Steering
from webproxy.daemon.successor import Succession, Successor
from webproxy.exchange.getfile_request import GetfileRequestHandler
from webproxy.exchange.http_request import HttpRequestHandler
from webproxy.fetch.table import FetchTable
from webproxy.origin.driver import OriginDriver
from webproxy.serving.acceptor import Acceptor
from webproxy.serving.idle_workers import IdleWorkers
from webproxy.serving.new_connection import Protocols
from webproxy.serving.parking import ParkingLot
from webproxy.serving.private_acceptor import PrivateAcceptor
from webproxy.serving.run_queue import RunQueue
from webproxy.store.cache_client import CacheClient
from webproxy.store.cache_spread import CacheSpread
from webproxy.store.store import Store
from webproxy.telemetry.line_file import LineFile
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport.client_stream import Shutdown

log = logging.getLogger(__name__)

_CACHES_CHARACTERS_MAX = 256
_IDLE_GRACE_S = 1.0
"""So long before the drain of a process that is replaced must end it closes the connections that are still idle."""


@dataclass(kw_only=True, eq=False)
class ProxyService:
    """Runs the parts of a proxy process; every method but the workers' step is for the main thread."""

    config: ProxyConfig
    address: tuple[str, int]
    swept: int
    """The number of names of dead processes removed."""
    cache: CacheClient | CacheSpread | None
    store: Store
    driver: OriginDriver
    table: FetchTable
    getfile: GetfileRequestHandler
    http: HttpRequestHandler
    protocols: Protocols
    acceptor: Acceptor
    private: PrivateAcceptor
    run_queue: RunQueue
    parking: ParkingLot
    workers: IdleWorkers
    shutdown: Shutdown
    breakdown: LatencyBreakdown
    presence: Presence
    page: StatsPage
    inherited: Inherited
    admin: AdminProcess | None
    spool_room: SpoolRoom
    access_log: LineFile | None

    def __post_init__(self) -> None:
        self._successor: Successor | None = None
        self._is_replaced = False
        self._patient_until = 0.0
        """Until then a process that is replaced waits for the next request on each idle connection."""
        self._deferred: dict[Wish, None] = {}
        self._steering = Steering(self.presence)
        self._sampler = Sampler(self.page, self)
        self._pool = WorkerPool("worker", self.config.worker_threads, self._step, idle=self.workers.sleeping)

    def _step(self, index: int) -> None:
        breakdown = self.breakdown
        began_ns = monotonic_ns() if breakdown.enabled else 0
        job = self.acceptor.take(index)
        if job is None:
            return
        if breakdown.enabled:
            breakdown.start(began_ns)
            breakdown.mark("accept")
        try:
            outcome = job.run()
        except Exception as error:
            error.add_note(f"request={job.request_id.decode()}")  # so that the line about it has it
            self.parking.linger(job.fd)  # if left open, its client would wait forever
            raise
        self.parking.settle(outcome)

    def start(self) -> None:
        """Accept connections and serve them."""
        self.parking.start()
        self.driver.start()
        self.private.start()
        self.workers.start()
        self._pool.start()
        host, port = self.address
        pool = {} if self.cache is None else {"pool": self.cache.pool.name}
        facts = {"host": host, "port": port, "threads": self.config.worker_threads, "swept": self.swept} | pool
        role = self.inherited.worker
        shown = f"[{host}]" if ":" in host else host
        self._steering.announce(f"{shown}:{port}", pool | _place(role) | _caches(self.config))
        if role is None:
            log.info("listening", extra=facts)
        else:
            log.info("worker started", extra=facts | {"slot": role.slot})
        if self.admin is not None:
            self.admin.look()
            self.admin.keep_path()
        self.inherited.say_ready()
        self.store.look()

    def hear(self, wish: Wish, settings: Settings[ProxyConfig]) -> None:
        """A worker retires when its supervisor says so; a process of its own has a successor started."""
        if wish is Wish.REOPEN_LOGS:
            if self.access_log is not None:
                self.access_log.reopen()
            if self._successor is not None:
                self._deferred[wish] = None  # it may have opened the file before it was renamed
            return
        if self.inherited.worker is not None:
            self._is_replaced = self._is_replaced or wish is Wish.UPGRADE
        elif self._successor is not None:
            if wish not in self._deferred:
                log.info("wish deferred", extra={"wish": wish.value})
            self._deferred[wish] = None
        else:
            try:
                if wish is Wish.RELOAD:  # at an upgrade the new program is the judge
                    settings.again()
                self._successor = Successor(self.acceptor.listener, self.config, self.admin)
            except (SettingError, OSError) as error:
                log.error("reload refused", extra={"reason": str(error)})
                self._steering.refused(str(error))

    def is_replaced(self, settings: Settings[ProxyConfig]) -> bool:
        """Return whether another process has taken over."""
        successor = self._successor
        if successor is not None and (progress := successor.look()) is not Succession.RUNNING:
            self._successor = None
            self._is_replaced = progress is Succession.DONE
            if progress is Succession.REFUSED:
                self._steering.refused(f"{successor.refusal}: see its log lines")
            deferred, self._deferred = self._deferred, {}
            for wish in deferred:
                if self._is_replaced:
                    successor.wish(wish)
                else:
                    self.hear(wish, settings)
        return self._is_replaced

    def housekeep(self) -> None:
        """Drop what has expired: cached replies, open files, requests that waited too long for a ticket.

        And look for the cache, so that the log tells of its coming and going also while nobody asks for anything.
        """
        self.presence.beat(self.workers.awake + self.parking.waiting)
        self._sampler.sample()
        self.http.fast_path.expire()
        self.spool_room.look()
        self.store.expire()
        self.store.look()
        if self.admin is not None:
            self.admin.look()
        cache = self.cache
        if cache is not None and cache.pool.admission is not None:
            cache.pool.admission.expire(self.config.cache_timeout_s)

    def stop_accepting(self) -> None:
        """Close the listener; requests in progress continue.

        Idle connections are closed too, unless another process has taken over: then there is time, and the next request
        on each is still answered, so that no client sends one to a connection that is just being closed.
        """
        self.shutdown.draining = True
        self.shutdown.closes_idle = not self._is_replaced
        self._patient_until = monotonic() + self.config.drain_s - _IDLE_GRACE_S
        self.http.fast_path.forget()
        self.presence.set_stopping()  # after that, whoever sees it gets no answer that promises more
        self.acceptor.stop_accepting()
        if not self._is_replaced:
            self.store.stop_waiting()
        if self._successor is not None:
            self._successor.end()
        if self.admin is not None:
            self.admin.close(is_handed_over=self._is_replaced)

    def is_supervised(self) -> bool:
        """Whether this process is a worker of a supervisor."""
        return self.inherited.worker is not None

    def hurry(self) -> None:
        """This process is replaced and drains, and is now told to end: no longer wait for idle connections."""
        self._patient_until = 0.0

    def is_busy(self) -> bool:
        """Return whether a request or a response is in progress, or could still come on a connection that is kept."""
        if self._is_replaced and monotonic() >= self._patient_until:
            self.shutdown.closes_idle = True  # a request that has arrived is still answered
        # Without a worker, what waits can only get into the queue, and it is looked at in that order. If no worker was
        # awake before and after, and none has slept once more, none has taken anything or made it wait in between.
        workers, sleeps = self.workers, list(self.workers.sleeps)
        return bool(
            workers.awake
            or self.parking.waiting
            or workers.work_waits()
            or (self._is_replaced and self.parking.connections)
            or (self._successor is not None and self._successor.is_running)
            or workers.awake
            or sleeps != workers.sleeps
        )

    def finish(self, drain: Drain) -> int:
        """Stop the threads; returns how many requests were cut off."""
        self.private.close()  # until now others could follow what is still fetched here
        self._pool.request_stop()
        self.workers.end()
        deadline = Deadline(drain.expires_ns)
        stuck = self._pool.join(deadline, interrupted=drain.interrupted)
        if self._successor is not None:
            self._successor.kill()
        unfinished = stuck + self.parking.waiting
        self._clean_up_after_supervisor()
        self.table.stop(deadline.slice(1.0))
        self._sampler.sample()
        log.info("stopped", extra={"unfinished": unfinished, **self._counted()})
        return unfinished

    def _clean_up_after_supervisor(self) -> None:
        """One that was killed has left its announcement."""
        role = self.inherited.worker
        if role is not None and os.getppid() != role.supervisor:
            reaper.sweep()

    def _counted(self) -> dict[str, object]:
        """The totals for the last log line: operations.md explains it."""
        failures = Counter(self.getfile.failures.totals())
        failures.update(self.http.failures.totals())
        facts: dict[str, object] = {**self.getfile.outcomes.totals()}
        facts |= {f"http_{result}": count for result, count in self.http.outcomes.totals().items()}
        facts |= {f"failed_{kind}": count for kind, count in failures.items()}
        facts |= {
            "invalid": self.protocols.invalid_total,
            "connections_refused": self.acceptor.refused_total,
            "clients_dropped": self.parking.too_slow_total,
            "fetches": self.table.fetched_total,
            "fetches_followed": self.table.followed_total,
            "fetches_collapsed": self.table.collapsed_total,
            "fetches_failed": self.table.failed_total,
        }
        if self.cache is not None:
            stats = self.cache.pool.stats()
            facts |= {
                "cache_unavailable": self.cache.unavailable_total,
                "leases": stats.leases_total,
                "widest_lease": stats.widest_lease,
                "shrunk": stats.shrunk_total,
                "retired": stats.retired_total,
                "leased": stats.segments_leased,
                "lease_timeouts": stats.timeouts_total,
                "leases_refused": stats.refused_total,
            }
        if self.access_log is not None:
            facts["access_log_dropped"] = self.access_log.dropped_total
        if self.breakdown.enabled:
            facts["step_times"] = self.breakdown.total()
        return facts


def _place(role: WorkerRole | None) -> dict[str, str]:
    """What a worker announces of its place."""
    return {} if role is None else {SLOT: str(role.slot), SUPERVISOR: str(role.supervisor)}


def _caches(config: ProxyConfig) -> dict[str, str]:
    """What a process announces of several caches: their queues, or `auto` for all of this user.

    That is also said of a list which is too long for an announcement: who looks then sees too many caches, not none.
    """
    names = ",".join(config.caches)
    return {CACHES: names if len(names) <= _CACHES_CHARACTERS_MAX else AUTO} if names else {}
