"""CacheStats: writes what the cache does into its stats page: commands as they end, the rest once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shmchannel.objects.commands import CommandKind
from simplecached.telemetry.metrics import KINDS, MALFORMED, RESULTS, UNKNOWN

if TYPE_CHECKING:
    from shmchannel.stats import HotTableStats, ServerStats
    from shmchannel.stats_pages import StatsPage
    from simplecached.stores.store import StoreStats

_COMMANDS = "gfcache_cache_commands_total"


class CacheStats:
    """ended() is for the threads that serve commands, sample() for one thread."""

    def __init__(self, page: StatsPage) -> None:
        self._page = page
        self._ends = {
            (CommandKind[kind.upper()], result): page.counter(_COMMANDS, kind, result)
            for kind in KINDS
            for result in RESULTS
        }
        self._malformed = page.counter(_COMMANDS, UNKNOWN, MALFORMED)
        self._times = {
            CommandKind[kind.upper()]: page.histogram("gfcache_cache_command_seconds", kind) for kind in KINDS
        }
        self._totals = {
            name: page.sampled(f"gfcache_cache_{name}_total")
            for name in (
                "chunks",
                "stored",
                "evicted",
                "removed",
                "refused",
                "hot_table_published",
                "hot_table_dropped",
                "hot_table_evicted",
            )
        }
        self._hits = page.sampled("gfcache_cache_lookups_total", "hit")
        self._misses = page.sampled("gfcache_cache_lookups_total", "miss")

    def ended(self, kind: CommandKind | None, result: str, took_ns: int) -> None:
        """As CommandObserver."""
        if kind is None:
            self._malformed.add()
            return
        self._ends[kind, result].add()
        if took_ns and result != "expired":
            self._times[kind].observe(took_ns)

    def set_sizes(self, *, threads: int, hot_table_cells: int) -> None:
        """What does not change."""
        self._page.gauge("gfcache_cache_threads").set(threads)
        self._page.gauge("gfcache_cache_hot_table_cells").set(hot_table_cells)

    def sample(
        self, server: ServerStats, store: StoreStats, hot_table: HotTableStats | None, *, waiting: int, busy: int
    ) -> None:
        """What the parts have counted by now, how many commands wait, and how many threads serve one."""
        totals = {
            "chunks": server.chunks_total,
            "stored": store.stored_total,
            "evicted": store.evicted_total,
            "removed": store.removed_total,
            "refused": store.refused_total,
            "hot_table_published": hot_table.published_total if hot_table is not None else 0,
            "hot_table_dropped": hot_table.dropped_total if hot_table is not None else 0,
            "hot_table_evicted": hot_table.evicted_total if hot_table is not None else 0,
        }
        for name, total in totals.items():
            self._totals[name].set(total)
        self._hits.set(store.hits_total)
        self._misses.set(store.misses_total)
        gauges = {
            "objects": store.objects_count,
            "objects_pinned": max(0, store.pinned_count),
            "objects_writing": store.writing_count,
            "bytes": store.used_bytes,
            "budget_bytes": store.budget_bytes,
            "oldest_seconds": round(store.oldest_age_s * 1e9),
            "hot_table_objects": hot_table.objects_count if hot_table is not None else 0,
            "hot_table_bytes": hot_table.taken_bytes if hot_table is not None else 0,
            "attached_segments": server.attached,
            "queue_depth": waiting,
            "threads_busy": busy,
        }
        for name, value in gauges.items():
            self._page.gauge(f"gfcache_cache_{name}").set(value)

    def beat(self) -> None:
        """The cache makes progress."""
        self._page.beat()
