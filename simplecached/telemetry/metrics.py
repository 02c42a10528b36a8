"""PURE: what a cache counts in its stats page: each metric with its meaning, and what an operator does about it."""

from __future__ import annotations

from itertools import product
from typing import Final

from shmchannel.stats_pages.schema import NANOSECONDS, Metric, MetricKind, OverPages, Schema

ROLE: Final = "cache"
KINDS: Final = ("get", "put", "update", "purge", "ping")
UNKNOWN: Final = "unknown"
RESULTS: Final = ("served", "failed", "broken", "expired")
MALFORMED: Final = "malformed"


def _counter(name: str, text: str, advice: str = "", unit: str = "") -> Metric:
    return Metric(name=name, kind=MetricKind.COUNTER, help=text, advice=advice, unit=unit)


def _gauge(name: str, text: str, advice: str = "", unit: str = "") -> Metric:
    return Metric(name=name, kind=MetricKind.GAUGE, help=text, advice=advice, unit=unit)


SCHEMA: Final = Schema(
    (
        Metric(
            name="gfcache_cache_commands_total",
            kind=MetricKind.COUNTER,
            help="Commands of proxies, by what became of them.",
            advice="expired: the cache is too slow for cache_timeout_s, see queue_depth."
            " broken: proxies died or stalled. failed, malformed: see the log.",
            labels=("kind", "result"),
            rows=(*product(KINDS, RESULTS), (UNKNOWN, MALFORMED)),
        ),
        Metric(
            name="gfcache_cache_command_seconds",
            kind=MetricKind.HISTOGRAM,
            help="Time to serve a command, from its receipt to its last chunk.",
            advice="If it grows, the disk is slow, or proxies read slowly (segment_count of theirs).",
            unit="seconds",
            per_unit=NANOSECONDS,
            labels=("kind",),
            rows=tuple((kind,) for kind in KINDS),
        ),
        _counter(
            "gfcache_cache_chunks_total",
            "Chunks of answers that were handed over.",
            "If it stands still while commands wait, see page_state.",
        ),
        Metric(
            name="gfcache_cache_lookups_total",
            kind=MetricKind.COUNTER,
            help="Look-ups in the store; those that proxies answer from the hot table are not among them.",
            advice="Many misses and evictions: raise store_bytes.",
            labels=("result",),
            rows=(("hit",), ("miss",)),
        ),
        _gauge(
            "gfcache_cache_objects",
            "Objects that are stored.",
            "In memory each takes a descriptor: LimitNOFILE bounds it.",
        ),
        _gauge(
            "gfcache_cache_objects_pinned",
            "Objects that are being sent.",
            "They cannot be evicted: if they fill the budget, raise store_bytes.",
        ),
        _gauge(
            "gfcache_cache_objects_writing",
            "Objects that are being stored.",
            "If it stays high, the disk is slow, or origins are.",
        ),
        _gauge(
            "gfcache_cache_bytes",
            "Bytes of all objects, those that are being stored included.",
            "Near the budget objects are evicted: see evicted_total and oldest_seconds.",
            "bytes",
        ),
        _gauge("gfcache_cache_budget_bytes", "The budget.", "The setting store_bytes.", "bytes"),
        Metric(
            name="gfcache_cache_oldest_seconds",
            kind=MetricKind.GAUGE,
            help="Age of the object that is evicted next.",
            advice="If it is short, objects leave before they are asked for again: raise store_bytes.",
            unit="seconds",
            per_unit=NANOSECONDS,
            over_pages=OverPages.MAX,
        ),
        _counter(
            "gfcache_cache_stored_total",
            "Objects stored.",
            "If it stands still while there are misses, see object not stored in the log.",
        ),
        _counter(
            "gfcache_cache_evicted_total",
            "Objects that made room for others.",
            "If it grows as fast as stored_total, the budget is too small: raise store_bytes.",
        ),
        _counter(
            "gfcache_cache_removed_total",
            "Objects removed by purges and replacements of unusable ones.",
            "If nobody purges, find out who does.",
        ),
        _counter(
            "gfcache_cache_refused_total",
            "Objects larger than the budget, or without room because everything else is in use.",
            "Raise store_bytes.",
        ),
        _counter(
            "gfcache_cache_hot_table_published_total",
            "Objects put into the hot table.",
            "If it grows as fast as hits, the table is too small: raise hot_table_bytes.",
        ),
        _counter(
            "gfcache_cache_hot_table_dropped_total",
            "Objects removed from it by a purge or a replacement.",
            "As removed_total.",
        ),
        _gauge(
            "gfcache_cache_hot_table_cells",
            "How many objects fit into the hot table.",
            "0 or few: raise hot_table_bytes, see no hot table in the log.",
        ),
        _gauge(
            "gfcache_cache_attached_segments",
            "Segments of proxies that are mapped.",
            "Each takes descriptors: see few descriptors in the log.",
        ),
        _gauge(
            "gfcache_cache_queue_depth",
            "Commands that wait on the queue.",
            "If it stays above 0, the cache has too few threads (-t), or its disk is slow.",
        ),
        _gauge("gfcache_cache_threads", "Threads that serve commands.", "The setting -t."),
        _gauge("gfcache_cache_threads_busy", "Those that serve one now.", "If all are busy for long, raise -t."),
    )
)
