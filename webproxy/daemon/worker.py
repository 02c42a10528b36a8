"""ProxyService: the life of one proxy process, from its first thread to the final log line with all counts.

Assembly builds the parts; they are run here. Each worker repeats one step: take a job, run it, and have its outcome
settled.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from time import monotonic_ns

from shmchannel.daemonkit.daemon import Drain
from shmchannel.deadline import Deadline
from shmchannel.workers import WorkerPool
from webproxy.daemon.config import ProxyConfig
from webproxy.exchange.getfile_request import GetfileRequestHandler
from webproxy.exchange.http_request import HttpRequestHandler
from webproxy.fetch.table import FetchTable
from webproxy.serving.acceptor import Acceptor
from webproxy.serving.new_connection import Protocols
from webproxy.serving.parking import ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.store.cache_client import CacheClient, Store
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport.client_stream import Shutdown

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a proxy process."""

    address: tuple[str, int]
    swept: int
    """The number of names of dead processes removed."""
    cache: CacheClient | None
    store: Store
    table: FetchTable
    getfile: GetfileRequestHandler
    http: HttpRequestHandler
    protocols: Protocols
    acceptor: Acceptor
    run_queue: RunQueue
    parking: ParkingLot
    idle_workers: list[bool]
    shutdown: Shutdown
    breakdown: LatencyBreakdown


class ProxyService:
    """Runs the parts; every method but the workers' step is for the main thread."""

    def __init__(self, config: ProxyConfig, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self._workers = WorkerPool("worker", config.worker_threads, self._step, idle=parts.idle_workers)

    def _step(self, index: int) -> None:
        parts = self._parts
        idle, breakdown = parts.idle_workers, parts.breakdown
        began_ns = monotonic_ns() if breakdown.enabled else 0
        idle[index] = True
        job = parts.acceptor.take(index)
        if job is None:
            return
        idle[index] = False
        if breakdown.enabled:
            breakdown.start(began_ns)
            breakdown.mark("accept")
        try:
            outcome = job.run()
        except Exception:
            parts.parking.linger(job.fd)  # if left open, its client would wait forever
            raise
        parts.parking.settle(outcome)

    def start(self) -> None:
        """Accept connections and serve them."""
        parts = self._parts
        parts.parking.start()
        self._workers.start()
        host, port = parts.address
        pool = {} if parts.cache is None else {"pool": parts.cache.pool.name}
        log.info(
            "listening",
            extra={"host": host, "port": port, "threads": self._config.worker_threads, "swept": parts.swept} | pool,
        )

    def housekeep(self) -> None:
        """Drop what has expired: cached replies, open files, requests that waited too long for a ticket."""
        self._parts.http.fast_path.expire()
        self._parts.store.expire()
        cache = self._parts.cache
        if cache is not None and cache.pool.admission is not None:
            cache.pool.admission.expire(self._config.cache_timeout_s)

    def stop_accepting(self) -> None:
        """Close the listener and idle connections; requests in progress continue."""
        parts = self._parts
        parts.shutdown.draining = True
        parts.http.fast_path.forget()
        parts.acceptor.stop_accepting()
        parts.store.stop_waiting()

    def is_busy(self) -> bool:
        """Return whether a request or a response is in progress."""
        return bool(self._parts.parking.waiting or not all(self._parts.idle_workers))

    def finish(self, drain: Drain) -> int:
        """Stop the threads; returns how many requests were cut off."""
        parts = self._parts
        self._workers.request_stop()
        parts.run_queue.wake(self._config.worker_threads)
        deadline = Deadline(drain.expires_ns)
        stuck = self._workers.join(deadline, interrupted=drain.interrupted)
        unfinished = stuck + parts.parking.waiting
        parts.table.stop()
        parts.table.join(deadline.slice(1.0))
        if stuck:
            parts.shutdown.stopping = True
        log.info("stopped", extra={"unfinished": unfinished, **self._counted()})
        return unfinished

    def _counted(self) -> dict[str, object]:
        """The totals for the last log line: operations.md explains it."""
        parts = self._parts
        failures = Counter(parts.getfile.failures.totals())
        failures.update(parts.http.failures.totals())
        facts: dict[str, object] = {**parts.getfile.outcomes.totals()}
        facts |= {f"http_{result}": count for result, count in parts.http.outcomes.totals().items()}
        facts |= {f"failed_{kind}": count for kind, count in failures.items()}
        facts |= {
            "invalid": parts.protocols.invalid_total,
            "clients_dropped": parts.parking.too_slow_total,
            "fetches": parts.table.fetched_total,
            "fetches_collapsed": parts.table.collapsed_total,
            "fetches_failed": parts.table.failed_total,
        }
        if parts.cache is not None:
            stats = parts.cache.pool.stats()
            facts |= {
                "cache_unavailable": parts.cache.unavailable_total,
                "leases": stats.leases_total,
                "widest_lease": stats.widest_lease,
                "shrunk": stats.shrunk_total,
                "retired": stats.retired_total,
                "leased": stats.segments_leased,
                "lease_timeouts": stats.timeouts_total,
                "leases_refused": stats.refused_total,
            }
        if parts.breakdown.enabled:
            facts["step_times"] = parts.breakdown.total()
        return facts
