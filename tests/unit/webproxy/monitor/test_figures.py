"""The figures that are derived of two readings, and of one."""

from __future__ import annotations

import json

import pytest

from shmchannel.stats_pages import PageReading, PageState
from simplecached.telemetry.metrics import SCHEMA as CACHE_SCHEMA
from tests.support.overviews import page, process, reading
from webproxy.admin.overview import as_json
from webproxy.admin.top import Missed
from webproxy.monitor import figures
from webproxy.monitor.figures import as_plain, derive, requests_per_s
from webproxy.telemetry.metrics import MISSED, MISSED_BYTES, REQUEST_TIMES, REQUESTS, SAVED, SAVED_BYTES, SENT_BYTES
from webproxy.telemetry.metrics import SCHEMA as PROXY_SCHEMA

MS = 10**6
ORIGIN = "http://origin"


def requests(**counts: int) -> dict[tuple[str, ...], int]:
    """Requests over HTTP, answered with 2xx."""
    return {(REQUESTS, "http", outcome, "2xx"): number for outcome, number in counts.items()}


def test_every_metric_that_is_shown_is_declared() -> None:
    known = {metric.name for metric in (*PROXY_SCHEMA.metrics, *CACHE_SCHEMA.metrics)}
    wanted = {f"gfcache_cache_{name}" for name in figures.CACHE_GAUGES}
    wanted |= {f"gfcache_proxy_{name}" for name in figures.PROXY_GAUGES}
    wanted |= {figures.COMMANDS, figures.LOOKUPS, figures.EVICTED, figures.COMMAND_TIMES, figures.LEASES}
    wanted |= {figures.ORIGIN_REQUESTS, figures.ORIGIN_FAILURES, figures.ORIGIN_TIMES, figures.ORIGIN_STATE}
    wanted |= {figures.ORIGIN_CONNECTIONS, figures.ORIGIN_LINE}
    assert wanted <= known


def test_nothing_is_there() -> None:
    found = derive(None, reading(0))
    assert (found.requests_total, found.traffic.hit_ratio, found.traffic.requests_per_s) == (0, None, None)
    assert (found.latency, found.caches, found.origins, found.processes, found.troubled) == ((), (), (), (), ())
    assert derive(reading(0), reading(2)).traffic.requests_per_s == 0


def test_the_hit_ratio_is_that_without_errors() -> None:
    """And without what no cache could answer."""
    counts = requests(hot=4, hit=2, revalidated=1, stale=1, miss=1, collapsed=0, **{"pass": 1}, purged=50, answered=50)
    counts |= {(REQUESTS, "http", "miss", "4xx"): 90, (REQUESTS, "http", "error", "5xx"): 90}
    counts |= {(REQUESTS, "http", "pass", "none"): 90}
    found = derive(None, reading(0, page(counts)))
    assert found.traffic.hit_ratio == found.since_start.hit_ratio == 0.8


def test_rates_and_ratios_are_those_of_the_interval() -> None:
    before = page({**requests(hit=100, miss=100), (SENT_BYTES, "cache"): 1000, (SENT_BYTES, "origin"): 1000})
    now = page(
        {
            **requests(hit=130, miss=110),
            (REQUESTS, "http", "error", "5xx"): 20,
            (SENT_BYTES, "cache"): 1600,
            (SENT_BYTES, "origin"): 1200,
            (SENT_BYTES, "proxy"): 400,
        }
    )
    found = derive(reading(10, before), reading(14, now))
    assert found.interval_s == 4
    assert found.traffic.requests_per_s == requests_per_s(reading(10, before), reading(14, now)) == 15
    assert (found.traffic.errors_per_s, found.traffic.sent_bytes_per_s) == (5, 300)
    assert (found.traffic.hit_ratio, found.traffic.byte_hit_ratio) == (0.75, 0.75)
    assert found.since_start.hit_ratio == 130 / 240
    assert found.requests_total == 260


def test_readings_at_one_moment_have_no_rates() -> None:
    assert derive(reading(1), reading(1)).traffic.requests_per_s is None


def test_times_by_outcome() -> None:
    """Over protocols and workers; those that did not come are left out."""
    one = page({(REQUEST_TIMES, "http", "hit"): (MS,) * 98, (REQUEST_TIMES, "getfile", "hit"): (MS,)}, name="/a")
    other = page({(REQUEST_TIMES, "http", "hit"): (900 * MS,), (REQUEST_TIMES, "http", "miss"): (5 * MS,)}, name="/b")
    found = derive(None, reading(0, one, other))
    assert set(found.outcomes) == {"hit", "miss"}
    assert found.outcomes["hit"].count == 100
    assert found.outcomes["hit"].p50_s == found.outcomes["hit"].p99_s == pytest.approx(0.001, rel=1 / 16)
    assert found.outcomes["miss"].p99_s == pytest.approx(0.005, rel=1 / 16)


def test_latency_in_steps_of_powers_of_two() -> None:
    taken = (1, 600 * 1024, 3 * MS, 3 * MS)
    (first, *between, last) = derive(None, reading(0, page({(REQUEST_TIMES, "http", "hot"): taken}))).latency
    assert (first.from_s, first.below_s, first.count) == (0, 8 * 1024 / 1e9, 1)
    assert (last.count, last.from_s * 2) == (2, last.below_s)
    assert sum(step.count for step in between) == 1
    assert [step.from_s for step in (*between, last)] == [step.below_s for step in (first, *between)]
    longest = page({(REQUEST_TIMES, "http", "hot"): ((1 << 40) - 1,)})
    assert [step.below_s for step in derive(None, reading(0, longest)).latency] == [(1 << 40) / 1e9]
    beyond = derive(None, reading(0, page({(REQUEST_TIMES, "http", "hot"): (1 << 50,)}))).latency
    assert [(step.below_s, step.count) for step in beyond] == [(None, 1)]


def test_an_origin_is_in_the_worst_state_that_a_worker_sees() -> None:
    """And its numbers are sums; those of a dead worker that say how things are now are left out."""

    def worker(number: int, state: int, connections: int, page_state: PageState = PageState.LIVE) -> PageReading:
        counts = {
            ("gfcache_proxy_origin_state", ORIGIN): state,
            ("gfcache_proxy_origin_connections", ORIGIN): connections,
            ("gfcache_proxy_origin_requests_total", ORIGIN): 10,
            ("gfcache_proxy_origin_failures_total", ORIGIN): 1,
            ("gfcache_proxy_origin_head_seconds", ORIGIN): (MS,),
        }
        return page(counts, name=f"/page-{number}", pid=number, state=page_state, origins=(ORIGIN, "other"))

    workers = worker(1, 0, 3), worker(2, 1, 4), worker(3, 2, 5, PageState.WRITER_DEAD)
    (origin,) = derive(None, reading(0, *workers)).origins
    assert (origin.name, origin.state, origin.connections, origin.failures) == (ORIGIN, "tried again", 7, 3)
    assert origin.head_times.count == 3


def test_what_was_saved_and_missed_since_the_start() -> None:
    counts = {(SAVED, ORIGIN): 7, (SAVED_BYTES, ORIGIN): 4000, ("gfcache_proxy_origin_requests_total", ORIGIN): 1}
    one = page(counts, name="/a", pid=1, origins=(ORIGIN, "other"))
    other = page(counts, name="/b", pid=2, origins=(ORIGIN, "other"), state=PageState.WRITER_DEAD)
    (origin,) = derive(reading(0, one, other), reading(1, one, other)).origins
    assert (origin.saved, origin.saved_bytes) == (14, 8000)
    paths = page({(MISSED, "/x"): 3, (MISSED_BYTES, "/x"): 90}, origins=("/x", "other"))
    assert derive(None, reading(0, paths)).missed == (Missed(path="/x", requests=3, sent_bytes=90),)


def test_a_cache_by_its_page() -> None:
    counts = {
        ("gfcache_cache_queue_depth",): 3,
        ("gfcache_cache_oldest_seconds",): 90 * 10**9,
        ("gfcache_cache_lookups_total", "hit"): 3,
        ("gfcache_cache_lookups_total", "miss"): 1,
        ("gfcache_cache_commands_total", "get", "served"): 8,
        ("gfcache_cache_command_seconds", "get"): (MS,) * 8,
    }
    (cache,) = derive(reading(0), reading(2, page(counts, role="cache", pid=5, started_ns=1))).caches
    assert (cache.queue, cache.pid, cache.state) == ("/queue", 5, "live")
    assert (cache.gauges["queue_depth"], cache.gauges["oldest_seconds"]) == (3, 90)
    assert (cache.commands_per_s, cache.command_hit_ratio, cache.command_times.count) == (4, 0.75, 8)


def test_processes_and_who_is_in_trouble() -> None:
    here = (process(100, cpu_s=1.0), process(5, role="cache", state="stuck"))
    before = reading(0, page(requests(hit=1)), processes=(process(100, cpu_s=0.0),))
    found = derive(before, reading(2, page(requests(hit=9)), processes=here))
    proxy, cache = found.processes
    assert (proxy.cpu_share, proxy.requests_per_s) == (0.5, 4)
    assert (cache.cpu_share, cache.requests_per_s) == (None, None)
    assert found.troubled == (here[1],)


def test_as_json_it_is_what_stats_says_and_more() -> None:
    now = reading(2, page(requests(hit=9)), processes=(process(100),))
    plain = json.loads(json.dumps(as_plain(derive(reading(0), now))))
    derived = plain.pop("derived")
    assert plain == json.loads(json.dumps(as_json(now.overview)))
    assert derived["traffic"]["hit_ratio"] == derived["since_start"]["hit_ratio"] == 1
    assert derived["requests_total"] == 9
