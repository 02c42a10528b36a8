"""Builds what serves HTTP clients out of the settings; app.py is the only caller."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from webproxy.caching.options import CachingOptions
from webproxy.daemon.config import ProxyConfig
from webproxy.exchange.fast_path import FastPath
from webproxy.exchange.http_request import HttpRequestHandler, HttpSettings
from webproxy.exchange.pass_through import PassThrough
from webproxy.exchange.response_heads import ResponseHeads
from webproxy.fetch.http_fetch import HttpFetches
from webproxy.fetch.partial_store import PartialStore
from webproxy.fetch.table import FetchTable
from webproxy.origin.client import OriginClient
from webproxy.origin.forwarded_request import FetchSettings, ForwardedRequest
from webproxy.origin.routing import OriginTable
from webproxy.origin.via import Via
from webproxy.serving.http1_server import Http1Server
from webproxy.serving.parking import ParkingLot
from webproxy.store.lookup import ObjectLookup, stored_of_entry
from webproxy.store.store import Store
from webproxy.store.updates import CacheUpdater
from webproxy.transport.client_stream import RateLimit
from webproxy.transport.keepalive import IdleConnections


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParts:
    """What the daemon has made already, and the HTTP front uses too."""

    store: Store
    lookup: ObjectLookup
    updates: CacheUpdater
    table: FetchTable
    origin: OriginClient
    origins: OriginTable
    idle: IdleConnections
    parking: ParkingLot
    stopping: Callable[[], bool]
    draining: Callable[[], bool]
    others_wait: Callable[[], bool]


def caching_options(config: ProxyConfig) -> CachingOptions:
    """What the settings say of caching."""
    return CachingOptions(
        heuristic_fraction=config.heuristic_fraction,
        heuristic_ceiling_s=config.heuristic_ceiling_s,
        negative_lifetime_s=config.negative_lifetime_s,
        stale_if_error_default_s=config.stale_if_error_default_s,
        stale_if_disconnected_s=config.stale_if_disconnected_s,
        store_set_cookie=config.store_set_cookie,
        targeted_control=config.targeted_cache_control,
    )


def make_http_front(config: ProxyConfig, parts: HttpParts) -> tuple[Http1Server, HttpRequestHandler]:
    """The front, and the exchange behind it for its counts."""
    options = caching_options(config)
    name = config.cache_status_name.encode()
    replies, via = ResponseHeads(name), Via(name, secrets.token_hex(8).encode())
    settings = FetchSettings(
        window_bytes=config.spool_window_bytes,
        go_on_share=config.continue_fetch_after_share,
        redirects=config.origin_redirects,
        object_bytes_max=config.object_bytes_max,
        via=via,
        options=options,
    )
    asker = ForwardedRequest(parts.origin, settings)
    quick = None
    if parts.store.keeps and parts.origins.by_path_only:
        quick = FastPath(
            parts.store,
            stored_of_entry,
            lambda path: parts.origins.choose(None, path).key,
            replies,
            parts.draining,
        )
    exchange = HttpRequestHandler(
        parts.store,
        parts.lookup,
        parts.updates,
        parts.origins,
        HttpFetches(
            parts.table,
            asker,
            settings,
            parts.updates,
            PartialStore(parts.store, parts.lookup, parts.updates),
        ),
        PassThrough(asker, replies, body_timeout_s=config.request_timeout_s),
        replies,
        HttpSettings(
            cache_wait_s=config.cache_timeout_s,
            queue_wait_s=min(config.cache_timeout_s, config.cache_first_byte_timeout_s),
            options=options,
            purge_networks=config.purge_networks(),
            via=via,
        ),
        stopping=parts.draining,
        others_wait=parts.others_wait,
        quick=quick,
    )
    front = Http1Server(
        exchange,
        parts.idle,
        parts.parking,
        replies,
        head_bytes_max=config.http_head_bytes,
        request_timeout_s=config.request_timeout_s,
        keepalive_s=config.keepalive_s,
        connections_max=config.connections_max,
        client_limit=RateLimit(config.client_min_rate_bytes_per_s, config.client_rate_window_s),
        worker_count=config.worker_threads,
        stopping=parts.stopping,
        draining=parts.draining,
    )
    return front, exchange
