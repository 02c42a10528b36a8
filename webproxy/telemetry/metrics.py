"""PURE: what a proxy counts in its stats page: each metric with its meaning, and what an operator does about it."""

from __future__ import annotations

from itertools import product
from typing import Final

from shmchannel.stats_pages.schema import Namespace, OverPages, Schema, Table

ROLE: Final = "proxy"
ORIGINS_MAX: Final = 32
"""Origins with figures of their own; the others share a row."""

TOP_ROWS: Final = 64
"""Paths and clients with figures of their own; the others share the last row."""

PROTOCOLS: Final = ("http", "getfile")
HOT: Final = "hot"
NOT_LOOKED_AT: Final = "not_looked_at"
OUTCOMES: Final = {
    HOT: "answered from the hot table at once",
    "hit": "answered from the cache, by a command or from the cache's file",
    "revalidated": "answered from the cache after the origin had confirmed the stored response",
    "stale": "answered with a stale response because the origin failed",
    "miss": "answered by the origin with a response that is stored or could be",
    "collapsed": "answered by a fetch that another request had begun",
    "pass": "passed through to the origin",
    "purged": "PURGE",
    "answered": "answered by the proxy itself: OPTIONS, health",
    "not_found": "not stored, and no origin",
    "not_cached": "not cached (only-if-cached), or stale without an origin to validate it",
    "refused": "4xx of the proxy's own",
    "error": "5xx of the proxy's own, or ERROR",
    "given_up": "the proxy closed the connection: the client was too slow, or the drain was over",
    "client_gone": "the client disconnected",
    "cut_short": "the client got a truncated body, or did not send all of its request's",
    NOT_LOOKED_AT: "refused before there was a request: none that can be read, or too many connections",
}
"""What became of requests; those of the cache, of origins, of the proxy itself, and those that broke off."""
FROM_CACHE: Final = frozenset((HOT, "hit", "revalidated", "stale"))
FROM_ORIGIN: Final = frozenset(("miss", "collapsed", "pass"))
WITHOUT_ORIGIN: Final = frozenset((HOT, "hit", "stale", "collapsed"))
"""No request was sent to an origin for these."""
STATUSES: Final = ("2xx", "3xx", "4xx", "5xx", "none")

REQUESTS: Final = "gfcache_proxy_requests_total"
REQUEST_TIMES: Final = "gfcache_proxy_request_seconds"
FIRST_BYTE_TIMES: Final = "gfcache_proxy_first_byte_seconds"
SENT_BYTES: Final = "gfcache_proxy_sent_bytes_total"
SAVED: Final = "gfcache_proxy_origin_saved_total"
SAVED_BYTES: Final = "gfcache_proxy_origin_saved_bytes_total"
MISSED: Final = "gfcache_proxy_missed_total"
MISSED_BYTES: Final = "gfcache_proxy_missed_bytes_total"
PATHS: Final = "paths"
CLIENTS: Final = "clients"
CLIENT_REQUESTS: Final = "gfcache_proxy_client_requests_total"
CLIENT_SENT_BYTES: Final = "gfcache_proxy_client_sent_bytes_total"
CLIENT_SAVED: Final = "gfcache_proxy_client_saved_total"
CLIENT_SAVED_BYTES: Final = "gfcache_proxy_client_saved_bytes_total"

_TIMED = tuple(product(PROTOCOLS, (outcome for outcome in OUTCOMES if outcome != NOT_LOOKED_AT)))
_BEGUN = tuple((protocol, outcome) for protocol, outcome in _TIMED if outcome != HOT)


_PROXY = Namespace("gfcache_proxy_")
_ORIGIN = Namespace("gfcache_proxy_origin_", labels=("origin",), table="origins")
_MISSED = Namespace("gfcache_proxy_", labels=("path",), table=PATHS)
_CLIENT = Namespace("gfcache_proxy_client_", labels=("client",), table=CLIENTS)

_REQUESTS = (
    _PROXY.by("protocol", "outcome", "status", rows=product(PROTOCOLS, OUTCOMES, STATUSES)).counter(
        "requests",
        "Requests by what became of them and by the status of the response, if there was one.",
        "Those of 2xx and 3xx say what the cache is worth: the hit ratio is"
        " (hot + hit + revalidated + stale) / (those + miss + collapsed + pass)."
        " error: see failures in the log. cut_short: a source broke off, see the log."
        " given_up: clients are too slow, see client_min_rate_bytes_per_s.",
    ),
    _PROXY.by("protocol", "outcome", rows=_TIMED).times(
        "request",
        "Time from the head of a request to the last byte handed to the kernel.",
        "hit: the cache is slow, see its command_seconds and queue_depth. miss: the origin is, or clients read slowly.",
    ),
    _PROXY.by("protocol", "outcome", rows=_BEGUN).times(
        "first_byte",
        "Time from the head of a request to the head of its answer; of what is hot it is that to the last byte.",
        "miss: the origin is slow, or requests wait in its line, see origin_line.",
    ),
    _PROXY.by("source", rows=[(value,) for value in ("cache", "origin", "proxy")]).counter(
        "sent_bytes",
        "Bytes sent to clients, heads included, by where the bodies came from.",
        "cache / (cache + origin) is the byte hit ratio.",
        "bytes",
    ),
)
_CONNECTIONS = (
    _PROXY.gauge(
        "connections", "Connections that wait for their client, or whose requests wait.", "See connections_max."
    ),
    _PROXY.gauge(
        "requests_waiting",
        "Requests that wait for an origin, another request's fetch, or a client that reads slowly.",
        "Near requests_waiting_max new ones get 503.",
    ),
    _PROXY.gauge(
        "run_queue", "Jobs that wait for a thread.", "If it stays above 0, the processor is too slow, or raise -t."
    ),
    _PROXY.gauge("threads", "Threads that serve requests.", "The setting -t."),
    _PROXY.gauge("threads_busy", "Those that serve one now.", "If all are busy for long, see run_queue."),
    _PROXY.counter(
        "connections_refused",
        "Connections beyond connections_max, or for which no descriptor was left.",
        "Raise connections_max, or LimitNOFILE; the log says which.",
    ),
    _PROXY.counter(
        "requests_invalid",
        "What was received and is no request of any protocol.",
        "Find out who sends it: a client of another protocol, or a scanner.",
    ),
    _PROXY.counter(
        "clients_dropped",
        "Clients that read less than client_min_rate_bytes_per_s.",
        "Lower client_min_rate_bytes_per_s if they are wanted.",
    ),
)
_FETCHES = (
    _PROXY.by("result", rows=[(value,) for value in ("begun", "collapsed", "failed")]).counter(
        "fetches",
        "Fetches from origins, requests collapsed into a running one, and fetches that failed.",
        "failed: check the origins.",
    ),
    _PROXY.gauge(
        "spool_bytes",
        "Room that spools take beyond their windows.",
        "At spool_budget_bytes origins wait for slow clients: see there.",
        "bytes",
    ),
    _PROXY.gauge("spool_budget_bytes", "The bound of spool_bytes.", "Raise spool_bytes_max if it is reached.", "bytes"),
)
_SEGMENTS = (
    _PROXY.gauge("segments", "Segments for transfers with the cache.", "The setting segment_count."),
    _PROXY.gauge("segments_leased", "Those in use.", "If it stays near segments, raise segment_count."),
    _PROXY.gauge("segments_waiting", "Transfers that wait for a segment.", "If it stays above 0, raise segment_count."),
    _PROXY.counter(
        "leases", "Transfers that got segments.", "What leases_failed is compared with; hot objects need none."
    ),
    _PROXY.by("reason", rows=[(value,) for value in ("timeout", "refused")]).counter(
        "leases_failed", "Transfers that got none.", "Raise segment_count."
    ),
    _PROXY.counter(
        "segments_retired", "Segments that were replaced after a broken transfer.", "See the log of the cache."
    ),
    _PROXY.gauge(
        "caches_ready",
        "Caches that are there and answer.",
        "0: start or restart the cache.",
        over_pages=OverPages.MIN,
    ),
    _PROXY.counter(
        "cache_unavailable",
        "Look-ups that the cache did not answer, or was not asked because it hangs.",
        "The log says why: cache lost, cache does not answer.",
    ),
)
_ORIGINS = (
    _ORIGIN.counter(
        "requests",
        "Requests sent to the origin, redirects included.",
        "If there are many for a few objects, see their Cache-Control.",
    ),
    _ORIGIN.counter(
        "failures",
        "Requests that it did not answer usefully: no connection, none in time, 502 to 504.",
        "Check the origin; the log has the reason.",
    ),
    _ORIGIN.counter(
        "refused",
        "Requests that were not sent, because it is known as failing or its line is full.",
        "Check the origin, or raise origin_connections_each_max.",
    ),
    _ORIGIN.counter(
        "saved",
        "Requests for objects of the origin that needed no request to it: hits, and those collapsed into a fetch.",
        "saved / (saved + misses) is what the cache is worth to this origin; if it is low, see missed_total.",
    ),
    _ORIGIN.counter(
        "saved_bytes", "Bytes of its objects that were sent from the cache, heads included.", "As saved.", "bytes"
    ),
    _ORIGIN.times(
        "head",
        "Time from sending a request to the head of the answer.",
        "The origin or the way to it is slow.",
    ),
    _ORIGIN.gauge(
        "state",
        "0: asked as usual, 1: one request tries whether it answers again, 2: known as failing and not asked.",
        "1, 2: check the origin.",
        over_pages=OverPages.MAX,
    ),
    _ORIGIN.gauge("connections", "Requests under way.", "See origin_connections_each_max."),
    _ORIGIN.gauge("line", "Requests that wait for a connection to it.", "Raise origin_connections_each_max."),
)
_TOP = (
    _MISSED.counter(
        "missed",
        "GETs that an origin answered, by path without query, of the most frequent paths. In /stats under top only.",
        "If a path comes again and again, see the Cache-Control of its responses, or raise store_bytes.",
    ),
    _MISSED.counter(
        "missed_bytes", "Bytes sent in answer to these. In /stats under top only.", "As missed_total.", "bytes"
    ),
    _CLIENT.counter(
        "requests",
        "Requests of the clients that got most, on connections that have ended, small ones estimated."
        " In /stats under top only.",
        "One that asks far more than others may be misconfigured: see the access log.",
    ),
    _CLIENT.counter("sent_bytes", "Bytes sent to it. In /stats under top only.", "As client_requests_total.", "bytes"),
    _CLIENT.counter(
        "saved", "Requests of it that needed none to an origin. In /stats under top only.", "If few, see missed_total."
    ),
    _CLIENT.counter(
        "saved_bytes", "Bytes sent to it from the cache. In /stats under top only.", "As client_saved_total.", "bytes"
    ),
)

SCHEMA: Final = Schema(
    (*_REQUESTS, *_CONNECTIONS, *_FETCHES, *_SEGMENTS, *_ORIGINS, *_TOP),
    (
        Table(name="origins", label="origin", rows=ORIGINS_MAX + 1),
        Table(name=PATHS, label="path", rows=TOP_ROWS, names_change=True),
        Table(name=CLIENTS, label="client", rows=TOP_ROWS, names_change=True),
    ),
)
