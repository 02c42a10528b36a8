"""Composition root of the proxy daemon: the only place that builds its objects, and what they do when."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from functools import partial
from time import monotonic_ns

from shmchannel.daemonkit.daemon import Drain
from shmchannel.deadline import Deadline
from shmchannel.objects.client import ChannelClient
from shmchannel.process import reaper
from shmchannel.streams.admission import Admission, Ticket
from shmchannel.streams.pool import SegmentPool
from shmchannel.workers import WorkerPool
from webproxy.daemon.config import Protocol, ProxyConfig
from webproxy.daemon.http_setup import HttpParts, caching_options, make_http_front
from webproxy.exchange.body_transfer import BodyTransfer, LongRequest, Pause
from webproxy.exchange.getfile_request import GetfileRequestHandler, Paused
from webproxy.exchange.http_request import HttpRequestHandler
from webproxy.fetch.getfile_fetch import GetfileFetches
from webproxy.fetch.table import FetchTable
from webproxy.origin.client import OriginClient, OriginLimits
from webproxy.origin.routing import OriginRule
from webproxy.serving.acceptor import Acceptor, Job
from webproxy.serving.http1_server import Http1Server
from webproxy.serving.parking import ParkingLot
from webproxy.serving.run_queue import HttpStart, RunQueue
from webproxy.store.cache_client import CacheClient
from webproxy.store.getfile_variants import GetfileVariants
from webproxy.store.lookup import ObjectLookup
from webproxy.store.store import NoStore, Store
from webproxy.store.updates import CacheUpdater
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.transport.client_stream import RateLimit
from webproxy.transport.http1_connection import HttpConnection
from webproxy.transport.keepalive import IdleConnections
from webproxy.transport.listener import open_listener

log = logging.getLogger(__name__)


class ProxyService:
    """The daemon's objects, built in order; `resources` releases them in reverse. No thread runs before start().

    Raises:
        StartupError, ResourceError: a resource needed at the start is not available.
    """

    def __init__(self, config: ProxyConfig, resources: ExitStack) -> None:
        self._config = config
        self._stop_now = False
        self._draining = False
        self._steps = LatencyBreakdown(enabled=config.step_times)
        listener = open_listener(config.host, config.port)
        resources.callback(listener.close)
        self._swept = len(reaper.sweep())
        self._pool: SegmentPool | None = None
        self._client: ChannelClient | None = None
        if config.use_cache:
            self._pool = SegmentPool.create(
                config.segment_count, config.segment_bytes, stripe=config.segments_per_transfer_max
            )
            resources.callback(self._pool.close)
            self._client = self._make_client(self._pool)
            resources.callback(self._client.close)
        self._address: tuple[str, int] = listener.getsockname()[:2]
        self._origins = config.origin_table(own=_own_authorities(*self._address))
        has_origin = bool(config.origin_url or config.origin)
        self._cache = None if self._client is None else CacheClient(self._client, patient=not has_origin)
        self._store: Store = NoStore() if self._cache is None else self._cache
        self._table = FetchTable(threads=config.worker_threads, spool_directory=config.spool_directory)
        self._lookup = ObjectLookup(self._store)
        self._updates = CacheUpdater(self._store, self._lookup, self._table.withdraw)
        self._variants = GetfileVariants(self._lookup, self._updates)
        self._origin = OriginClient(self._limits())
        self._fetches = self._make_fetches()
        self._run_queue = RunQueue()
        resources.callback(self._run_queue.close)
        resources.callback(self._close_admission)
        speaks_http = Protocol.HTTP in config.protocols
        self._parking = ParkingLot(
            self._run_queue,
            request_timeout_s=config.request_timeout_s,
            wire=config.wire,
            speaks_http=speaks_http,
            speaks_getfile=Protocol.GETFILE in config.protocols,
        )
        resources.callback(self._parking.close)
        self._idle = IdleConnections() if speaks_http else None
        if self._idle is not None:
            resources.callback(self._idle.close)
        self._acceptor = Acceptor(
            listener,
            self._run_queue,
            self._parking,
            config.worker_threads,
            config.wire,
            idle=self._idle,
            speaks_getfile=Protocol.GETFILE in config.protocols,
        )
        resources.callback(self._acceptor.close)
        self._exchange = GetfileRequestHandler(
            self._store,
            self._variants,
            self._fetches,
            wire=config.wire,
            cache_wait_s=self._cache_wait_s(has_origin=has_origin),
            client_limit=RateLimit(config.client_min_rate_bytes_per_s, config.client_rate_window_s),
            steps=self._steps,
            stopping=lambda: self._stop_now,
            others_wait=self._others_wait,
        )
        self._front: Http1Server | None = None
        self._http: HttpRequestHandler | None = None
        if self._idle is not None:
            self._front, self._http = make_http_front(config, self._http_parts(self._idle))
            self._parking.expire_idle = self._front.expire
        self._workers = WorkerPool("worker", config.worker_threads, self._step)

    def _make_client(self, pool: SegmentPool) -> ChannelClient:
        config = self._config
        on_step = self._steps.mark if self._steps.enabled else None
        return ChannelClient(config.queue_name, pool, stall_s=config.between_bytes_timeout_s, on_step=on_step)

    @property
    def _admission(self) -> Admission | None:
        return self._pool.admission if self._pool is not None else None

    def _close_admission(self) -> None:
        """Have what waits for a place where the handoff's end closes it."""
        if self._admission is not None:
            self._admission.close()

    def _http_parts(self, idle: IdleConnections) -> HttpParts:
        return HttpParts(
            store=self._store,
            lookup=self._lookup,
            updates=self._updates,
            table=self._table,
            origin=self._origin,
            origins=self._origins,
            idle=idle,
            parking=self._parking,
            stopping=lambda: self._stop_now,
            draining=lambda: self._draining,
            others_wait=self._others_wait,
        )

    def _limits(self, rule: OriginRule | None = None) -> OriginLimits:
        config = self._config
        return OriginLimits(
            connect_s=config.origin_connect_s if rule is None else rule.connect_s,
            stall_s=config.origin_stall_s if rule is None else rule.stall_s,
            redirects=config.origin_redirects,
            object_bytes_max=config.object_bytes_max,
            tls_verify=rule is None or rule.tls_verify,
            ca_file=None if rule is None else rule.ca_file,
            add_fields=() if rule is None else rule.add_fields,
        )

    def _make_fetches(self) -> GetfileFetches:
        config = self._config
        return GetfileFetches(
            self._table,
            self._origin,
            self._locate,
            tries=config.origin_tries,
            window_bytes=config.spool_window_bytes,
            go_on_share=config.continue_fetch_after_share,
            make_fill=self._updates.make_fill,
            options=caching_options(config),
            variants=self._variants,
        )

    def _cache_wait_s(self, *, has_origin: bool) -> float:
        """With an origin to go to, a slow cache is waited for only so long."""
        config = self._config
        timeout_s = config.cache_timeout_s
        return min(timeout_s, config.cache_first_byte_timeout_s) if has_origin else timeout_s

    def _locate(self, key: bytes) -> tuple[str, OriginLimits] | None:
        target = self._origins.choose(None, key)
        return None if target.rule is None else (target.url, self._limits(target.rule))

    def _step(self, index: int) -> None:
        began_ns = monotonic_ns() if self._steps.enabled else 0
        idle = self._workers.idle
        idle[index] = True
        request = self._acceptor.take(index)
        if request is None:
            return
        idle[index] = False
        if self._steps.enabled:
            self._steps.start(began_ns)
            self._steps.mark("boss")
        fd = _descriptor_of(request)
        try:
            later = self._work_on(request)
        except Exception:
            self._parking.linger(fd)  # left open, its client would wait for ever
            raise
        if later is not None:
            self._set_aside(later)

    def _set_aside(self, job: Paused | LongRequest) -> None:
        """Keep what has no use for a worker until it can go on."""
        if isinstance(job, LongRequest):
            self._line_up(job)
        elif job.why is Pause.ENQUEUE:
            self._line_up(job.response)
        elif job.why is Pause.SLOW:
            self._parking.park(job.response)
        else:
            self._run_queue.put_paused(job.response)

    def _line_up(self, job: BodyTransfer | LongRequest) -> None:
        assert self._admission is not None  # nobody else has anything to line up for
        self._admission.enqueue(partial(self._put_back, job))

    def _put_back(self, job: BodyTransfer | LongRequest, ticket: Ticket | None) -> None:
        """Its turn has come; called by who leaves a place, whichever thread that is."""
        if isinstance(job, LongRequest):
            self._run_queue.put(job._replace(ticket=ticket))
        else:
            job.ticket = ticket
            self._run_queue.put_paused(job)

    def _work_on(self, job: Job) -> Paused | LongRequest | None:
        """Do one piece of work up to its end, or to what is left of it; the connection is in other hands then."""
        if isinstance(job, BodyTransfer):
            if job.connection is not None and self._front is not None:
                return self._front.resume(job)
            paused = self._exchange.resume(job)
            if paused is None:
                self._parking.linger(job.stream.fd)
            return paused
        if isinstance(job, HttpConnection | HttpStart):
            assert self._front is not None
            return self._front.go_on(job) if isinstance(job, HttpConnection) else self._front.begin(*job)
        result = self._exchange.serve_long(job) if isinstance(job, LongRequest) else self._exchange.serve(*job)
        if result is None:
            self._parking.linger(job[0])
        return result

    def _others_wait(self) -> bool:
        """True when every worker is busy, and a request or a paused response waits for one."""
        return not any(self._workers.idle) and self._acceptor.others_wait()

    def start(self) -> None:
        """Accept connections and serve them."""
        self._parking.start()
        self._workers.start()
        host, port = self._address
        log.info(
            "listening",
            extra={"host": host, "port": port, "threads": self._config.worker_threads, "swept": self._swept}
            | ({"pool": self._pool.name} if self._pool is not None else {}),
        )

    def housekeep(self) -> None:
        """Drop what has expired: idle connections, open files, requests that waited too long for a place."""
        if self._http is not None:
            self._http.expire()
        self._store.expire()
        if self._admission is not None:
            self._admission.expire(self._config.cache_timeout_s)

    def stop_accepting(self) -> None:
        """Close the listener and idle connections; requests in progress continue."""
        self._draining = True
        if self._http is not None:
            self._http.drain()
        self._acceptor.stop_accepting()
        self._store.stop_waiting()

    def is_busy(self) -> bool:
        """Return whether a request or a response is in progress."""
        return bool(self._set_aside_count() or not all(self._workers.idle))

    def _set_aside_count(self) -> int:
        in_line = self._admission.waiting if self._admission is not None else 0
        return self._run_queue.waiting + self._parking.parked + in_line

    def finish(self, drain: Drain) -> int:
        """Stop the threads; returns how many requests were cut off."""
        deadline = Deadline(drain.expires_ns)
        self._workers.request_stop()
        self._run_queue.wake(self._config.worker_threads)
        stuck = self._workers.join(deadline, interrupted=drain.interrupted)
        unfinished = stuck + self._set_aside_count()
        self._table.stop()
        self._table.join(deadline.slice(1.0))
        if stuck:
            self._stop_now = True
        log.info("stopped", extra={"unfinished": unfinished, **self._counted()})
        return unfinished

    def _counted(self) -> dict[str, object]:
        """What happened in all, for the last line of the log: operations.md explains it."""
        facts: dict[str, object] = {**self._exchange.outcomes()}
        failures = Counter(self._exchange.failures.totals())
        if self._http is not None:
            facts |= {f"http_{outcome}": count for outcome, count in self._http.outcomes().items()}
            failures.update(self._http.failures.totals())
        facts |= {f"failed_{kind}": count for kind, count in failures.items()}
        facts |= {
            "invalid": self._parking.invalid_total + self._acceptor.invalid_total,
            "clients_dropped": self._parking.too_slow_total,
            "fetches": self._table.fetched_total,
            "fetches_joined": self._table.joined_total,
            "fetches_failed": self._table.failed_total,
        }
        if self._cache is not None:
            facts["cache_unavailable"] = self._cache.unavailable_total
        if self._pool is not None:
            stats = self._pool.stats()
            facts |= {
                "leases": stats.leases_total,
                "widest_lease": stats.widest_lease,
                "shrunk": stats.shrunk_total,
                "retired": stats.retired_total,
                "leased": stats.segments_leased,
                "lease_timeouts": stats.timeouts_total,
                "leases_refused": stats.refused_total,
            }
        if self._steps.enabled:
            facts["step_times"] = self._steps.total()
        return facts


def _descriptor_of(job: Job) -> int:
    if isinstance(job, BodyTransfer):
        return job.stream.fd
    return job.fd if isinstance(job, HttpConnection | HttpStart) else job[0]


def _own_authorities(host: str, port: int) -> tuple[bytes, ...]:
    """Under which names clients know this proxy."""
    shown = f"[{host}]" if ":" in host else host
    return tuple(f"{name}:{port}".encode() for name in dict.fromkeys((shown, "127.0.0.1", "localhost", "[::1]")))
