"""CacheStats: what commands and the store do is in the page, by kind and result."""

from __future__ import annotations

import pytest

from shmchannel.objects.commands import CommandKind
from shmchannel.stats import HotTableStats, ServerStats
from shmchannel.stats_pages import StatsPage
from simplecached.stores.store import StoreStats
from simplecached.telemetry.cache_stats import CacheStats
from simplecached.telemetry.metrics import KINDS, SCHEMA

COMMANDS = "gfcache_cache_commands_total"


@pytest.fixture
def page() -> StatsPage:
    return StatsPage.private(SCHEMA)


def server_stats(**others: int) -> ServerStats:
    """Of a server that has served nothing, but for the given."""
    names = ("served_total", "malformed_total", "expired_total", "broken_total", "failed_total", "chunks_total")
    return ServerStats(**{**dict.fromkeys((*names, "attached"), 0), **others})


def store_stats(**others: float) -> StoreStats:
    """Of a store that is empty, but for the given."""
    return StoreStats(**{**dict.fromkeys(StoreStats.__dataclass_fields__, 0), **others})  # type: ignore[arg-type]


def test_every_kind_of_command_has_its_rows() -> None:
    assert {kind.upper() for kind in KINDS} == {kind.name for kind in CommandKind}


def test_commands_by_kind_and_result(page: StatsPage) -> None:
    stats = CacheStats(page)
    stats.ended(CommandKind.GET, "served", 5_000_000)
    stats.ended(CommandKind.GET, "served", 6_000_000)
    stats.ended(CommandKind.PUT, "expired", 0)
    stats.ended(CommandKind.PURGE, "broken", 1)
    stats.ended(None, "malformed", 0)
    found = {
        (kind, result): page.value(COMMANDS, kind, result)
        for kind, result in SCHEMA.metric(COMMANDS).rows
        if page.value(COMMANDS, kind, result)
    }
    assert found == {
        ("get", "served"): 2,
        ("put", "expired"): 1,
        ("purge", "broken"): 1,
        ("unknown", "malformed"): 1,
    }


def test_what_is_sampled(page: StatsPage) -> None:
    """Totals rise by what came since the last sample; the rest is the value of now."""
    stats = CacheStats(page)
    hot_table = HotTableStats(published_total=3, dropped_total=1, evicted_total=2, objects_count=5, taken_bytes=4096)
    for _ in range(2):
        stats.sample(
            server_stats(chunks_total=7, attached=4),
            store_stats(hits_total=5, evicted_total=2, used_bytes=100, oldest_age_s=1.5),
            hot_table,
            waiting=6,
            busy=2,
        )
    values = {
        "chunks_total": 7,
        "evicted_total": 2,
        "stored_total": 0,
        "hot_table_published_total": 3,
        "hot_table_dropped_total": 1,
        "hot_table_evicted_total": 2,
        "bytes": 100,
        "oldest_seconds": 1_500_000_000,
        "attached_segments": 4,
        "queue_depth": 6,
        "threads_busy": 2,
    }
    assert {name: page.value(f"gfcache_cache_{name}") for name in values} == values
    assert page.value("gfcache_cache_lookups_total", "hit") == 5
    stats.sample(server_stats(), store_stats(pinned_count=-1), None, waiting=0, busy=0)
    assert page.value("gfcache_cache_objects_pinned") == 0, "two counts of one moment need not agree"
