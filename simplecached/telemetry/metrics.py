"""PURE: what a cache counts in its stats page: each metric with its meaning, and what an operator does about it."""

from __future__ import annotations

from itertools import product
from typing import Final

from shmchannel.stats_pages.schema import NANOSECONDS, Namespace, OverPages, Schema

ROLE: Final = "cache"
KINDS: Final = ("get", "put", "update", "purge", "ping")
UNKNOWN: Final = "unknown"
RESULTS: Final = ("served", "failed", "broken", "expired")
MALFORMED: Final = "malformed"


_CACHE = Namespace("gfcache_cache_")

SCHEMA: Final = Schema(
    (
        _CACHE.by("kind", "result", rows=(*product(KINDS, RESULTS), (UNKNOWN, MALFORMED))).counter(
            "commands",
            "Commands of proxies, by what became of them.",
            "expired: the cache is too slow for cache_timeout_s, see queue_depth."
            " broken: proxies died or stalled. failed, malformed: see the log.",
        ),
        _CACHE.by("kind", rows=tuple((kind,) for kind in KINDS)).times(
            "command",
            "Time to serve a command, from its receipt to its last chunk.",
            "If it grows, the disk is slow, or proxies read slowly (segment_count of theirs).",
        ),
        _CACHE.counter(
            "chunks",
            "Chunks of answers that were handed over.",
            "If it stands still while commands wait, see page_state.",
        ),
        _CACHE.by("result", rows=(("hit",), ("miss",))).counter(
            "lookups",
            "Look-ups in the store; those that proxies answer from the hot table are not among them.",
            "Many misses and evictions: raise store_bytes.",
        ),
        _CACHE.gauge(
            "objects",
            "Objects that are stored.",
            "In memory each takes a descriptor: LimitNOFILE bounds it.",
        ),
        _CACHE.gauge(
            "objects_pinned",
            "Objects that are being sent.",
            "They cannot be evicted: if they fill the budget, raise store_bytes.",
        ),
        _CACHE.gauge(
            "objects_writing",
            "Objects that are being stored.",
            "If it stays high, the disk is slow, or origins are.",
        ),
        _CACHE.gauge(
            "bytes",
            "Bytes of all objects, those that are being stored included.",
            "Near the budget objects are evicted: see evicted_total and oldest_seconds.",
            "bytes",
        ),
        _CACHE.gauge("budget_bytes", "The budget.", "The setting store_bytes.", "bytes"),
        _CACHE.gauge(
            "oldest_seconds",
            "Age of the object that is evicted next.",
            "If it is short, objects leave before they are asked for again: raise store_bytes.",
            "seconds",
            per_unit=NANOSECONDS,
            over_pages=OverPages.MAX,
        ),
        _CACHE.counter(
            "stored",
            "Objects stored.",
            "If it stands still while there are misses, see object not stored in the log.",
        ),
        _CACHE.counter(
            "evicted",
            "Objects that made room for others.",
            "If it grows as fast as stored_total, the budget is too small: raise store_bytes.",
        ),
        _CACHE.counter(
            "removed",
            "Objects removed by purges and replacements of unusable ones.",
            "If nobody purges, find out who does.",
        ),
        _CACHE.counter(
            "refused",
            "Objects larger than the budget, or without room because everything else is in use.",
            "Raise store_bytes.",
        ),
        _CACHE.counter(
            "hot_table_published",
            "Objects put into the hot table.",
            "If it grows much faster than stored_total, the table is too small: raise hot_table_bytes.",
        ),
        _CACHE.counter(
            "hot_table_dropped",
            "Objects taken off it because they were replaced, purged, invalidated, updated or evicted.",
            "As removed_total and evicted_total.",
        ),
        _CACHE.counter(
            "hot_table_evicted",
            "Objects that gave way in it to others; they are in the cache still, and found by a command.",
            "If it grows fast, raise hot_table_bytes.",
        ),
        _CACHE.gauge(
            "hot_table_objects",
            "Objects in the hot table.",
            "Far fewer than objects, with many commands: raise hot_table_bytes.",
        ),
        _CACHE.gauge(
            "hot_table_bytes",
            "Shared memory that the hot table has taken so far.",
            "At most hot_table_bytes of the settings; less if memory or /dev/shm are short.",
        ),
        _CACHE.gauge(
            "hot_table_cells",
            "How many objects fit into the hot table, if they are small.",
            "0 or few: raise hot_table_bytes, see no hot table in the log.",
        ),
        _CACHE.gauge(
            "attached_segments",
            "Segments of proxies that are mapped.",
            "Each takes descriptors: see few descriptors in the log.",
        ),
        _CACHE.gauge(
            "queue_depth",
            "Commands that wait on the queue.",
            "If it stays above 0, the cache has too few threads (-t), or its disk is slow.",
        ),
        _CACHE.gauge("threads", "Threads that serve commands.", "The setting -t."),
        _CACHE.gauge("threads_busy", "Those that serve one now.", "If all are busy for long, raise -t."),
    )
)
