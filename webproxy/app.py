"""Composition root of the proxy daemon: the only place that builds its objects, and what they do when."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import ExitStack
from functools import partial
from time import monotonic_ns

from shmchannel import reaper
from shmchannel.admission import Admission, Place
from shmchannel.client import ChannelClient
from shmchannel.daemonkit.daemon import Drain
from shmchannel.deadline import Deadline
from shmchannel.pool import SegmentPool
from shmchannel.workers import WorkerPool
from webproxy.boss import Boss
from webproxy.cachelink import CacheLink
from webproxy.client_stream import RateLimit
from webproxy.config import Protocol, ProxyConfig
from webproxy.exchange import GetfileExchange, Paused
from webproxy.fetch_table import FetchTable
from webproxy.fetches import Fetches
from webproxy.fill import Fill, Source
from webproxy.getfile_variants import GetfileVariants
from webproxy.handoff import Handoff, HttpStart
from webproxy.hit import HitResponse, LongRequest, Pause
from webproxy.http_connection import HttpConnection
from webproxy.http_exchange import HttpExchange
from webproxy.http_front import HttpFront
from webproxy.http_setup import HttpParts, caching_options, make_http_front
from webproxy.idle_connections import IdleConnections
from webproxy.intake import Intake, Job
from webproxy.listener import open_listener
from webproxy.lookup import ObjectLookup
from webproxy.object_writer import ObjectWriter
from webproxy.origin import OriginClient, OriginLimits
from webproxy.origins import OriginRule
from webproxy.steps import StepTimes

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
        self._steps = StepTimes(enabled=config.step_times)
        listener = open_listener(config.host, config.port)
        resources.callback(listener.close)
        self._swept = len(reaper.sweep())
        self._pool: SegmentPool | None = None
        self._client: ChannelClient | None = None
        if config.use_cache:
            self._pool = SegmentPool.create(config.segment_count, config.segment_bytes, stripe=config.stripe)
            resources.callback(self._pool.close)
            on_step = self._steps.mark if self._steps.enabled else None
            self._client = ChannelClient(config.queue_name, self._pool, stall_s=config.stall_s, on_step=on_step)
            resources.callback(self._client.close)
        self._address: tuple[str, int] = listener.getsockname()[:2]
        self._origins = config.origin_table(own=_own_authorities(*self._address))
        has_origin = bool(config.origin_url or config.origin)
        self._cache = None if self._client is None else CacheLink(self._client, patient=not has_origin)
        self._table = FetchTable(threads=config.worker_threads, spool_directory=config.spool_directory)
        self._lookup = None if self._cache is None else ObjectLookup(self._cache)
        self._writer = None if self._lookup is None else self._make_writer(self._lookup)
        self._origin = OriginClient(self._limits())
        self._fetches = self._make_fetches() if has_origin else None
        self._handoff = Handoff()
        resources.callback(self._handoff.close)
        resources.callback(self._close_admission)
        speaks_http = Protocol.HTTP in config.protocols
        self._boss = Boss(
            self._handoff,
            request_timeout_s=config.request_timeout_s,
            wire=config.wire,
            speaks_http=speaks_http,
            speaks_getfile=Protocol.GETFILE in config.protocols,
        )
        resources.callback(self._boss.close)
        self._idle = IdleConnections() if speaks_http else None
        if self._idle is not None:
            resources.callback(self._idle.close)
        self._intake = Intake(
            listener,
            self._handoff,
            self._boss,
            config.worker_threads,
            config.wire,
            idle=self._idle,
            speaks_getfile=Protocol.GETFILE in config.protocols,
        )
        resources.callback(self._intake.close)
        self._exchange = GetfileExchange(
            self._cache,
            self._fetches,
            wire=config.wire,
            deadline_s=config.deadline_s,
            queue_wait_s=config.queue_wait_s,
            client_limit=RateLimit(config.client_rate_bytes, config.client_rate_window_s),
            steps=self._steps,
            stopping=lambda: self._stop_now,
            others_wait=self._others_wait,
            variants=self._variants(),
        )
        self._front: HttpFront | None = None
        self._http: HttpExchange | None = None
        if self._idle is not None:
            self._front, self._http = make_http_front(config, self._http_parts(self._idle))
            self._boss.expire_idle = self._front.expire
        self._workers = WorkerPool("worker", config.worker_threads, self._step)

    @property
    def _admission(self) -> Admission | None:
        return self._pool.admission if self._pool is not None else None

    def _close_admission(self) -> None:
        """Have what waits for a place where the handoff's end closes it."""
        if self._admission is not None:
            self._admission.close()

    def _http_parts(self, idle: IdleConnections) -> HttpParts:
        return HttpParts(
            cache=self._cache,
            lookup=self._lookup,
            writer=self._writer,
            table=self._table,
            origin=self._origin,
            origins=self._origins,
            idle=idle,
            boss=self._boss,
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

    def _make_fetches(self) -> Fetches:
        config = self._config
        return Fetches(
            self._table,
            self._origin,
            self._locate,
            tries=config.origin_tries,
            window_bytes=config.spool_window_bytes,
            go_on_share=config.background_fetch_share,
            make_fill=self._make_fill if self._client is not None else None,
            options=caching_options(config),
            variants=self._variants(),
        )

    def _make_writer(self, lookup: ObjectLookup) -> ObjectWriter:
        assert self._client is not None
        assert self._pool is not None
        return ObjectWriter(self._client, self._pool, lookup, self._make_fill, self._table.withdraw)

    def _variants(self) -> GetfileVariants | None:
        if self._lookup is None or self._writer is None:
            return None
        return GetfileVariants(self._lookup, self._writer)

    def _locate(self, key: bytes) -> tuple[str, OriginLimits] | None:
        target = self._origins.choose(None, key)
        return None if target.rule is None else (target.url, self._limits(target.rule))

    def _make_fill(self, key: bytes, spool: Source) -> Fill:
        assert self._client is not None
        assert self._pool is not None
        return Fill(self._client, self._pool, key, spool)

    def _step(self, index: int) -> None:
        began_ns = monotonic_ns() if self._steps.enabled else 0
        idle = self._workers.idle
        idle[index] = True
        request = self._intake.take(index)
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
            self._boss.linger(fd)  # left open, its client would wait for ever
            raise
        if later is not None:
            self._set_aside(later)

    def _set_aside(self, job: Paused | LongRequest) -> None:
        """Keep what has no use for a worker until it can go on."""
        if isinstance(job, LongRequest):
            self._line_up(job)
        elif job.why is Pause.LINE_UP:
            self._line_up(job.response)
        elif job.why is Pause.SLOW:
            self._boss.park(job.response)
        else:
            self._handoff.put_paused(job.response)

    def _line_up(self, job: HitResponse | LongRequest) -> None:
        assert self._admission is not None  # nobody else has anything to line up for
        self._admission.line_up(partial(self._put_back, job))

    def _put_back(self, job: HitResponse | LongRequest, place: Place | None) -> None:
        """Its turn has come; called by who leaves a place, whichever thread that is."""
        if isinstance(job, LongRequest):
            self._handoff.put(job._replace(place=place))
        else:
            job.place = place
            self._handoff.put_paused(job)

    def _work_on(self, job: Job) -> Paused | LongRequest | None:
        """Do one piece of work up to its end, or to what is left of it; the connection is in other hands then."""
        if isinstance(job, HitResponse):
            if job.connection is not None and self._front is not None:
                return self._front.resume(job)
            paused = self._exchange.resume(job)
            if paused is None:
                self._boss.linger(job.stream.fd)
            return paused
        if isinstance(job, HttpConnection | HttpStart):
            assert self._front is not None
            return self._front.go_on(job) if isinstance(job, HttpConnection) else self._front.begin(*job)
        result = self._exchange.serve_long(job) if isinstance(job, LongRequest) else self._exchange.serve(*job)
        if result is None:
            self._boss.linger(job[0])
        return result

    def _others_wait(self) -> bool:
        """True when every worker is busy, and a request or a paused response waits for one."""
        return not any(self._workers.idle) and self._intake.others_wait()

    def start(self) -> None:
        """Accept connections and serve them."""
        self._boss.start()
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
        if self._client is not None:
            self._client.files.expire()
        if self._admission is not None:
            self._admission.expire(self._config.deadline_s)

    def stop_accepting(self) -> None:
        """Close the listener and idle connections; requests in progress continue."""
        self._draining = True
        if self._http is not None:
            self._http.drain()
        self._intake.stop_accepting()
        if self._cache is not None:
            self._cache.stop_waiting()

    def is_busy(self) -> bool:
        """Return whether a request or a response is in progress."""
        return bool(self._set_aside_count() or not all(self._workers.idle))

    def _set_aside_count(self) -> int:
        in_line = self._admission.waiting if self._admission is not None else 0
        return self._handoff.waiting + self._boss.parked + in_line

    def finish(self, drain: Drain) -> int:
        """Stop the threads; returns how many requests were cut off."""
        deadline = Deadline(drain.expires_ns)
        self._workers.request_stop()
        self._handoff.wake(self._config.worker_threads)
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
            "invalid": self._boss.invalid_total + self._intake.invalid_total,
            "clients_dropped": self._boss.too_slow_total,
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
    if isinstance(job, HitResponse):
        return job.stream.fd
    return job.fd if isinstance(job, HttpConnection | HttpStart) else job[0]


def _own_authorities(host: str, port: int) -> tuple[bytes, ...]:
    """Under which names clients know this proxy."""
    shown = f"[{host}]" if ":" in host else host
    return tuple(f"{name}:{port}".encode() for name in dict.fromkeys((shown, "127.0.0.1", "localhost", "[::1]")))
