"""Sampler: once a second, what the parts of a proxy have counted goes into its stats page, and its sign of life.

Requests are counted as they end (request_counts.py, origin_counts.py), the hot ones in memory first. Everything else
has its own counter or length already, which is read here; so it costs nothing where it happens. The heartbeat is given
only if the threads that everything passes through, which turn at least four times a second, have turned since the last.
"""

from __future__ import annotations

from typing import Protocol

from shmchannel.stats_pages import StatsPage
from webproxy.daemon.config import ProxyConfig
from webproxy.exchange.getfile_request import GetfileRequestHandler
from webproxy.exchange.http_request import HttpRequestHandler
from webproxy.fetch.table import FetchTable
from webproxy.origin.driver import OriginDriver
from webproxy.serving.acceptor import Acceptor
from webproxy.serving.idle_workers import IdleWorkers
from webproxy.serving.new_connection import Protocols
from webproxy.serving.parking import ParkingLot
from webproxy.serving.run_queue import RunQueue
from webproxy.store.cache_client import CacheClient
from webproxy.store.cache_spread import CacheSpread


class Parts(Protocol):
    """What is sampled: the parts of a process, as ProxyService has them."""

    config: ProxyConfig
    cache: CacheClient | CacheSpread | None
    getfile: GetfileRequestHandler
    http: HttpRequestHandler
    driver: OriginDriver
    table: FetchTable
    protocols: Protocols
    acceptor: Acceptor
    run_queue: RunQueue
    parking: ParkingLot
    workers: IdleWorkers


class Sampler:
    """For the main thread."""

    def __init__(self, page: StatsPage, parts: Parts) -> None:
        self._page = page
        self._parts = parts
        self._turns = (-1, -1)
        name = "gfcache_proxy_{}_total".format
        self._totals = {
            key: page.sampled(name(key))
            for key in (
                "connections_refused",
                "requests_invalid",
                "clients_dropped",
                "cache_unavailable",
                "leases",
                "segments_retired",
            )
        }
        self._fetches = {key: page.sampled(name("fetches"), key) for key in ("begun", "collapsed", "failed")}
        self._leases_failed = {key: page.sampled(name("leases_failed"), key) for key in ("timeout", "refused")}
        page.gauge("gfcache_proxy_threads").set(parts.config.worker_threads)
        page.gauge("gfcache_proxy_spool_budget_bytes").set(parts.table.budget.bytes_max)

    def sample(self) -> None:
        """Write the values of now, and the heartbeat."""
        parts = self._parts
        parts.getfile.outcomes.flush()
        parts.http.outcomes.flush()
        self._set_totals(
            connections_refused=parts.acceptor.refused_total,
            requests_invalid=parts.protocols.invalid_total,
            clients_dropped=parts.parking.too_slow_total,
        )
        self._set_gauges(
            connections=parts.parking.connections,
            requests_waiting=parts.parking.parked,
            run_queue=parts.run_queue.waiting,
            threads_busy=parts.workers.awake,
            spool_bytes=parts.table.budget.used_bytes,
        )
        self._fetches["begun"].set(parts.table.fetched_total)
        self._fetches["collapsed"].set(parts.table.collapsed_total)
        self._fetches["failed"].set(parts.table.failed_total)
        if parts.cache is not None:
            self._sample_cache(parts.cache)
        turns = parts.parking.turns, parts.driver.turns
        if all(now != before for now, before in zip(turns, self._turns, strict=True)):
            self._page.beat()
        self._turns = turns

    def _sample_cache(self, cache: CacheClient | CacheSpread) -> None:
        stats = cache.pool.stats()
        self._set_totals(
            cache_unavailable=cache.unavailable_total,
            leases=stats.leases_total,
            segments_retired=stats.retired_total,
        )
        self._leases_failed["timeout"].set(stats.timeouts_total)
        self._leases_failed["refused"].set(stats.refused_total)
        self._set_gauges(
            segments=stats.segments_total,
            segments_leased=stats.segments_leased,
            segments_waiting=stats.waiting,
            caches_ready=cache.ready_count,
        )

    def _set_totals(self, **totals: int) -> None:
        for name, total in totals.items():
            self._totals[name].set(total)

    def _set_gauges(self, **values: int) -> None:
        for name, value in values.items():
            self._page.gauge(f"gfcache_proxy_{name}").set(max(0, value))
