"""Composition root of the proxy: the only place that builds its objects, each whole and in order of need."""

from __future__ import annotations

import logging
import resource
import secrets
import socket
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, NamedTuple

from shmchannel.daemonkit.logs import subject
from shmchannel.objects.client import ChannelClient
from shmchannel.process import reaper
from shmchannel.registry import Presence, Registry
from shmchannel.stats_pages import OTHER, StatsPage, own_page
from shmchannel.streams.admission import Admission
from shmchannel.streams.pool import SegmentPool
from webproxy.caching.options import CachingOptions
from webproxy.daemon.admin_process import open_admin
from webproxy.daemon.config import Protocol, ProxyConfig
from webproxy.daemon.descriptors import DescriptorPlan, plan_descriptors
from webproxy.daemon.handover import inherit
from webproxy.daemon.spool_room import SpoolRoom
from webproxy.daemon.worker import ProxyService
from webproxy.exchange.body_transfer import BodySource
from webproxy.exchange.deliver_stored import StoredDelivery
from webproxy.exchange.fast_path import FastPath
from webproxy.exchange.follower_request import FollowerRequestHandler
from webproxy.exchange.getfile_request import GetfileRequestHandler
from webproxy.exchange.http_request import Answers, HttpRequestHandler, Policy
from webproxy.exchange.origin_rest import OriginRest
from webproxy.exchange.pass_through import PassThrough
from webproxy.exchange.relay import SpoolLimits
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.fetch.follow_messages import HEAD_BYTES_MAX as FOLLOW_HEAD_BYTES_MAX
from webproxy.fetch.getfile_fetch import GetfileFetches
from webproxy.fetch.http_fetch import HttpFetches
from webproxy.fetch.partial_response import PartialStore
from webproxy.fetch.plan import FetchMeans
from webproxy.fetch.spool_budget import SpoolBudget
from webproxy.fetch.table import FetchTable
from webproxy.origin.driver import OriginDriver
from webproxy.origin.routing import OriginTable
from webproxy.origin.via import Via, mark_of
from webproxy.serving.acceptor import Acceptor, WorkerDemand
from webproxy.serving.hit_loop import HitLearner, open_hit_loop
from webproxy.serving.http1_server import STAYING_MAX, ConnectionLimits, Http1Server
from webproxy.serving.idle_workers import AWAKE_MIN, AWAKE_MIN_OF_SEVERAL, IdleWorkers
from webproxy.serving.new_connection import Protocols
from webproxy.serving.parking import IdleConnections, ParkingLot
from webproxy.serving.private_acceptor import FOLLOWER_RATE, PrivateAcceptor
from webproxy.serving.run_queue import RunQueue
from webproxy.store.cache_client import CacheClient
from webproxy.store.cache_spread import CacheSpread
from webproxy.store.fill import Fills
from webproxy.store.getfile_objects import GetfileVariants
from webproxy.store.lookup import ObjectLookup
from webproxy.store.siblings import Siblings
from webproxy.store.store import NoStore, Store
from webproxy.store.updates import CacheUpdater
from webproxy.telemetry.access_log import AccessLog
from webproxy.telemetry.line_file import LineFile
from webproxy.telemetry.metrics import ROLE, SCHEMA
from webproxy.telemetry.origin_counts import OriginCounts
from webproxy.telemetry.request_counts import RequestCounts
from webproxy.telemetry.request_ids import RequestIds
from webproxy.telemetry.step_times import LatencyBreakdown
from webproxy.telemetry.top_counts import TopCounts
from webproxy.transport.client_rate import RateLimit, UploadLimits
from webproxy.transport.client_stream import Shutdown
from webproxy.transport.listener import open_private_listener
from webproxy.transport.sockets import peer_name

if TYPE_CHECKING:
    from webproxy.serving.native_hits import HitLoop

log = logging.getLogger(__name__)


def shortages(config: ProxyConfig) -> list[str]:
    """What the limits of this process make of the settings, a line for each.

    Raises:
        StartupError: they do not suffice for a start.
    """
    shortage = _plan(config).shortage(config)
    return [] if shortage is None else [shortage]


def build(config: ProxyConfig, resources: ExitStack) -> ProxyService:
    """Build the proxy; `resources` releases what it acquires, in reverse. No thread runs yet but that of the log.

    Raises:
        StartupError, ResourceError: something required at startup is not available.
    """
    config, plan = _within_limits(config)
    spool_room = SpoolRoom(config.spool_directory, config.spool_bytes_max, plan.spool_files_max)
    breakdown = LatencyBreakdown(enabled=config.step_times)
    shutdown = Shutdown()
    log_file = _log_file(config, resources)
    inherited = inherit()
    listener = inherited.listener_for(config.host, config.port)
    resources.callback(listener.close)
    admin = open_admin(config, inherited)
    if admin is not None:
        resources.callback(admin.close)
    address: tuple[str, int] = listener.getsockname()[:2]
    swept = len(reaper.sweep())
    page = own_page(ROLE, f"{address[0]}:{address[1]}", SCHEMA, resources, given=inherited.page)
    cache = _caches(config, plan, resources, breakdown) if config.use_cache else None
    admission = None if cache is None else cache.pool.admission
    private_listener = None if cache is None else _private_listener(config, cache.pool.name, resources)
    driver = OriginDriver(config.origin_shares(), OriginCounts(page), followed_max=plan.followed_max)
    resources.callback(driver.close)  # after the jobs that are given up, which release their transfers
    run_queue, idle, parking = _places_to_wait(config, plan, admission, shutdown, resources)
    workers = IdleWorkers(config.worker_threads, AWAKE_MIN if inherited.worker is None else AWAKE_MIN_OF_SEVERAL)
    resources.callback(workers.close)
    store, table = cache or NoStore(), _fetch_table(config, parking, spool_room.budget, private_listener)
    heads, limits = ResponseHeads(config.cache_status_name.encode()), _connection_limits(config)
    origins = config.origin_table(own=_own_authorities(*address))
    demand, seen = WorkerDemand(workers), _telemetry(config, breakdown, page, log_file)
    getfile, http, followers = _handlers(
        config, origins, store, driver, table, parking, demand, heads, limits.client, shutdown, seen
    )
    hit_loop = _hit_loop(config, idle, heads, http, seen, limits)
    server = Http1Server(http, parking, idle, heads, limits, shutdown, hit_loop)
    follower_server = Http1Server(followers, parking, idle, heads, _follower_limits(limits), shutdown)
    private = PrivateAcceptor(private_listener, run_queue, parking, follower_server, config.connections_max)
    resources.callback(private.close)
    protocols = _protocols(config, getfile, server, limits)
    acceptor = Acceptor(listener, run_queue, idle, parking, protocols, workers, hit_loop)
    resources.callback(acceptor.close)
    presence = Presence("proxy", queue_name=config.queue_name if config.use_cache and not config.caches else "")
    resources.callback(presence.close)
    return ProxyService(
        config=config,
        address=address,
        swept=swept,
        page=page,
        cache=cache,
        store=store,
        driver=driver,
        table=table,
        getfile=getfile,
        http=http,
        protocols=protocols,
        acceptor=acceptor,
        private=private,
        run_queue=run_queue,
        parking=parking,
        workers=workers,
        shutdown=shutdown,
        breakdown=breakdown,
        presence=presence,
        inherited=inherited,
        admin=admin,
        spool_room=spool_room,
        access_log=log_file,
    )


def _places_to_wait(
    config: ProxyConfig,
    plan: DescriptorPlan,
    admission: Admission | None,
    shutdown: Shutdown,
    resources: ExitStack,
) -> tuple[RunQueue, IdleConnections, ParkingLot]:
    run_queue, idle = RunQueue(config.queue()), IdleConnections()
    resources.callback(run_queue.close)
    if admission is not None:
        resources.callback(admission.close)  # jobs waiting there go to the run queue, which closes them at its end
    resources.callback(idle.close)
    parking = ParkingLot(
        run_queue, idle, admission, shutdown, lingering_max=plan.lingering_max, waiting_max=config.requests_waiting_max
    )
    resources.callback(parking.close)
    return run_queue, idle, parking


def _protocols(
    config: ProxyConfig, getfile: GetfileRequestHandler, server: Http1Server, limits: ConnectionLimits
) -> Protocols:
    return Protocols(
        getfile if Protocol.GETFILE in config.protocols else None,
        server if Protocol.HTTP in config.protocols else None,
        config.wire,
        limits,
    )


def _connection_limits(config: ProxyConfig) -> ConnectionLimits:
    return ConnectionLimits(
        head_bytes=config.http_head_bytes,
        request_s=config.request_timeout_s,
        keepalive_s=config.keepalive_s,
        client=RateLimit(config.client_min_rate_bytes_per_s, config.client_rate_window_s),
        connections=config.connections_max,
        staying=min(config.worker_threads - 1, STAYING_MAX),
    )


def _plan(config: ProxyConfig) -> DescriptorPlan:
    return plan_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0], config)


def _within_limits(config: ProxyConfig) -> tuple[ProxyConfig, DescriptorPlan]:
    """The settings as far as the limit of descriptors allows, and its plan."""
    plan = _plan(config)
    shortage = plan.shortage(config)
    if shortage is None:
        return config, plan
    log.warning("few descriptors", extra={**asdict(plan), "reason": shortage})
    return plan.applied(config), plan


def _caches(
    config: ProxyConfig, plan: DescriptorPlan, resources: ExitStack, breakdown: LatencyBreakdown
) -> CacheClient | CacheSpread:
    pool = SegmentPool.create(
        config.segment_count, config.segment_bytes, segments_per_transfer_max=config.segments_per_transfer_max
    )
    resources.callback(pool.close)
    on_step = breakdown.mark if breakdown.enabled else None
    siblings = Siblings(pool.name)

    def open_cache(queue_name: str, release: ExitStack, *, patient: bool = False) -> CacheClient:
        client = ChannelClient(
            queue_name,
            pool,
            between_bytes_timeout_s=config.between_bytes_timeout_s,
            on_step=on_step,
            subject=subject,
            open_files_max=plan.cache_files_max,
        )
        release.callback(client.close)
        cache = CacheClient(
            client, patient=patient, silence_s=config.cache_first_byte_timeout_s, tell_siblings=siblings.tell
        )
        release.callback(cache.close)
        return cache

    patient = not _has_origin(config)
    if not config.caches:
        return open_cache(config.queue_name, resources, patient=patient)
    spread = CacheSpread(
        pool,
        open_cache,
        names=() if config.finds_caches else config.caches,
        watch=Registry().watch("cache") if config.finds_caches else None,
        patient=patient,
    )
    resources.callback(spread.close)
    return spread


def _private_listener(config: ProxyConfig, pool: str, resources: ExitStack) -> socket.socket | None:
    """Where other processes follow the fetches of this one; None if nothing is shared between processes."""
    if not config.share_fetches:
        return None
    try:
        listener = open_private_listener(pool)
    except OSError as error:
        log.warning("fetches not shared with other processes", extra={"reason": str(error)})
        return None
    resources.callback(listener.close)
    return listener


def _follower_limits(limits: ConnectionLimits) -> ConnectionLimits:
    return replace(limits, head_bytes=FOLLOW_HEAD_BYTES_MAX, client=FOLLOWER_RATE)


def _fetch_table(
    config: ProxyConfig, parking: ParkingLot, budget: SpoolBudget, private: socket.socket | None
) -> FetchTable:
    """The private socket, if there is one, has the name by which caches know this process."""
    process = "" if private is None else private.getsockname()[1:].decode()
    return FetchTable(
        threads=config.worker_threads,
        spool_directory=config.spool_directory,
        budget=budget,
        failures_s=config.failures_shared_s,
        is_full=parking.is_full,
        process=process,
    )


def _has_origin(config: ProxyConfig) -> bool:
    return bool(config.origin_url or config.origin)


class _Telemetry(NamedTuple):
    """What requests are counted and logged by."""

    breakdown: LatencyBreakdown
    page: StatsPage
    access_log: AccessLog | None
    ids: RequestIds


def _telemetry(
    config: ProxyConfig, breakdown: LatencyBreakdown, page: StatsPage, log_file: LineFile | None
) -> _Telemetry:
    ids = RequestIds(from_client=config.request_id_from_client, in_heads=config.request_id_header)
    access_log = None if log_file is None else AccessLog(config.access_log_format, log_file, ids)
    return _Telemetry(breakdown, page, access_log, ids)


def _log_file(config: ProxyConfig, resources: ExitStack) -> LineFile | None:
    """To be made before what gives requests up at its end: these have their lines."""
    if config.access_log is None:
        return None
    log_file = LineFile(config.access_log)
    resources.callback(log_file.close)
    return log_file


def _handlers(
    config: ProxyConfig,
    origins: OriginTable,
    store: Store,
    driver: OriginDriver,
    table: FetchTable,
    parking: ParkingLot,
    demand: WorkerDemand,
    heads: ResponseHeads,
    client: RateLimit,
    shutdown: Shutdown,
    seen: _Telemetry,
) -> tuple[GetfileRequestHandler, HttpRequestHandler, FollowerRequestHandler]:
    """The request handlers of the two protocols and of other processes, over what they share."""
    policy = _policy(config)
    lookup = ObjectLookup(store)
    updates = CacheUpdater(store, lookup, table)
    fills = Fills(store)
    means = FetchMeans(
        origin=driver,
        via=Via(config.cache_status_name.encode(), mark_of(table.leases.process or secrets.token_hex(8))),
        options=policy.caching,
        fills=fills,
        updates=updates,
        partials=PartialStore(store, lookup, updates, fills),
        window_bytes=config.spool_window_bytes,
        continue_after_share=config.continue_fetch_after_share,
    )
    variants = GetfileVariants(lookup, updates)
    spools = SpoolLimits(directory=config.spool_directory, window_bytes=config.spool_window_bytes, budget=table.budget)
    origin_rest = OriginRest(driver, spools)
    wait_s = policy.cache_first_byte_s if _has_origin(config) else policy.cache_wait_s
    top = TopCounts(seen.page, peer_name)
    getfile = GetfileRequestHandler(
        BodySource(store, wait_s, demand),
        variants,
        GetfileFetches(table, origins, means, variants, config.holder_timeout_s),
        origin_rest,
        config.wire,
        client,
        seen.breakdown,
        observers=() if seen.access_log is None else (seen.access_log,),
        counts=RequestCounts(seen.page, "getfile", _origin_of_getfile(origins), top),
        ids=seen.ids,
    )
    source = BodySource(store, policy.cache_wait_s, demand)
    fetches = HttpFetches(table, means, config.holder_timeout_s)
    answers = Answers(
        FastPath(source, origins, heads, shutdown),
        StoredDelivery(source, origin_rest, means.via),
        PassThrough(
            driver, means.via, updates, spools, UploadLimits(config.request_timeout_s, client), parking.is_full
        ),
    )
    parts = heads, lookup, updates, origins, fetches, answers, policy, shutdown
    http = HttpRequestHandler(
        *parts,
        counts=RequestCounts(seen.page, "http", top=top),
        access_log=seen.access_log,
        ids=seen.ids,
    )
    return getfile, http, FollowerRequestHandler(*parts, ids=RequestIds(from_client=True))


def _hit_loop(
    config: ProxyConfig,
    idle: IdleConnections,
    heads: ResponseHeads,
    http: HttpRequestHandler,
    seen: _Telemetry,
    limits: ConnectionLimits,
) -> HitLoop | None:
    """The compiled loop for hits of HTTP, which learns from the fast path; None if everything is answered in Python."""
    if Protocol.HTTP not in config.protocols or not config.compiled_hits:
        return None
    loop = open_hit_loop(
        idle,
        heads,
        http.outcomes,
        seen.ids,
        seen.access_log,
        keepalive_s=limits.keepalive_s,
        staying_max=limits.staying,
    )
    if loop is not None:
        http.fast_path.learner = HitLearner(loop, http.outcomes)
    return loop


def _origin_of_getfile(origins: OriginTable) -> str:
    """What its hits are counted for, without looking for the origin of each; if it has several, that is not told."""
    bases = origins.bases_by_path
    return OTHER if len(bases) > 1 else "".join(bases)


def _policy(config: ProxyConfig) -> Policy:
    return Policy(
        caching=caching_options(config),
        cache_wait_s=config.cache_timeout_s,
        cache_first_byte_s=min(config.cache_timeout_s, config.cache_first_byte_timeout_s),
        purge_networks=config.purge_networks(),
        health_path=None if config.health_path is None else config.health_path.encode(),
    )


def caching_options(config: ProxyConfig) -> CachingOptions:
    """The caching options from the settings."""
    return CachingOptions(
        heuristic_fraction=config.heuristic_fraction,
        heuristic_ceiling_s=config.heuristic_ceiling_s,
        heuristic_floor_s=config.heuristic_floor_s,
        negative_lifetime_s=config.negative_lifetime_s,
        stale_if_error_default_s=config.stale_if_error_default_s,
        stale_if_disconnected_s=config.stale_if_disconnected_s,
        store_set_cookie=config.store_set_cookie,
        targeted_control=config.targeted_cache_control,
    )


def _own_authorities(host: str, port: int) -> tuple[bytes, ...]:
    """The names under which clients know this proxy."""
    shown = f"[{host}]" if ":" in host else host
    return tuple(f"{name}:{port}".encode() for name in dict.fromkeys((shown, "127.0.0.1", "localhost", "[::1]")))
