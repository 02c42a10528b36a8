"""Sampler: what the parts have counted is in the page, and the heartbeat only while the threads turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from shmchannel.stats import PoolStats
from shmchannel.stats_pages import StatsPage, own_page, read_page
from webproxy.daemon.sampling import Sampler
from webproxy.telemetry.metrics import SCHEMA
from webproxy.telemetry.request_counts import RequestCounts


@pytest.fixture
def page() -> Iterator[StatsPage]:
    with ExitStack() as resources:
        yield own_page("test", "", SCHEMA, resources)


def parts() -> Any:
    """A proxy in which much has happened."""
    pool_stats = PoolStats(
        segments_total=8,
        segments_leased=3,
        waiting=2,
        leases_total=40,
        widest_lease=4,
        shrunk_total=0,
        retired_total=5,
        timeouts_total=6,
        refused_total=7,
    )
    return SimpleNamespace(
        config=SimpleNamespace(worker_threads=8),
        cache=SimpleNamespace(pool=SimpleNamespace(stats=lambda: pool_stats), unavailable_total=9, ready_count=1),
        getfile=SimpleNamespace(outcomes=RequestCounts.private("getfile")),
        http=SimpleNamespace(outcomes=RequestCounts.private("http")),
        driver=SimpleNamespace(turns=10),
        table=SimpleNamespace(
            budget=SimpleNamespace(bytes_max=1000, used_bytes=200),
            fetched_total=11,
            collapsed_total=12,
            failed_total=13,
        ),
        protocols=SimpleNamespace(invalid_total=14),
        acceptor=SimpleNamespace(refused_total=15),
        run_queue=SimpleNamespace(waiting=16),
        parking=SimpleNamespace(turns=20, connections=17, parked=18, too_slow_total=19),
        workers=SimpleNamespace(awake=4),
    )


def heartbeat(page: StatsPage) -> int:
    """When the page's writer was last seen to make progress."""
    found = read_page(page.name)
    assert found is not None
    return found.heartbeat_ns


def test_what_the_parts_have_counted(page: StatsPage) -> None:
    """Twice, so that totals are not added up."""
    sampler = Sampler(page, parts())
    sampler.sample()
    sampler.sample()
    wanted = {
        "threads": 8,
        "threads_busy": 4,
        "segments": 8,
        "segments_leased": 3,
        "segments_waiting": 2,
        "leases_total": 40,
        "segments_retired_total": 5,
        "cache_unavailable_total": 9,
        "caches_ready": 1,
        "spool_bytes": 200,
        "spool_budget_bytes": 1000,
        "requests_invalid_total": 14,
        "connections_refused_total": 15,
        "run_queue": 16,
        "connections": 17,
        "requests_waiting": 18,
        "clients_dropped_total": 19,
    }
    assert {name: page.value(f"gfcache_proxy_{name}") for name in wanted} == wanted
    fetches = {kind: page.value("gfcache_proxy_fetches_total", kind) for kind in ("begun", "collapsed", "failed")}
    assert fetches == {"begun": 11, "collapsed": 12, "failed": 13}
    assert page.value("gfcache_proxy_leases_failed_total", "timeout") == 6
    assert page.value("gfcache_proxy_leases_failed_total", "refused") == 7


def test_what_was_hot_reaches_the_page(page: StatsPage) -> None:
    made = parts()
    made.http.outcomes = RequestCounts(page, "http")
    sampler = Sampler(page, made)
    made.http.outcomes.note_hot[0](100, 5_000)
    sampler.sample()
    sampler.sample()
    assert page.value("gfcache_proxy_requests_total", "http", "hot", "2xx") == 1


def test_a_proxy_without_a_cache(page: StatsPage) -> None:
    alone = parts()
    alone.cache = None
    Sampler(page, alone).sample()
    assert page.value("gfcache_proxy_segments") == 0


@pytest.mark.parametrize("stuck", ["parking", "driver"])
def test_no_heartbeat_while_a_thread_is_stuck(page: StatsPage, stuck: str) -> None:
    made = parts()
    sampler = Sampler(page, made)

    def beats() -> bool:
        page.beat(1)
        sampler.sample()
        return heartbeat(page) > 1

    assert beats()
    other = made.driver if stuck == "parking" else made.parking
    other.turns += 1
    assert not beats()
    made.parking.turns += 1
    made.driver.turns += 1
    assert beats()
