"""What happened between two readings, also if counters begin anew and pages come and go."""

from __future__ import annotations

import pytest

from shmchannel.stats_pages import Buckets, PageState
from tests.support.overviews import SECOND_NS, page, process, reading
from tests.support.stats_pages import histogram_of
from webproxy.admin.overview import totals_of
from webproxy.monitor.rates import Reading, cpu_shares, observed, pages_since, risen
from webproxy.telemetry.metrics import REQUEST_TIMES, REQUESTS

HIT = (REQUESTS, "http", "hit", "2xx")
THREADS = ("gfcache_proxy_threads",)
TIMES = (REQUEST_TIMES, "http", "hit")


def came(earlier: Reading, now: Reading) -> float:
    """Hits between two readings, over all pages."""
    return totals_of(pages_since(earlier, now))[REQUESTS].numbers[HIT[1:]]


@pytest.mark.parametrize(("before", "now", "by"), [(3, 8, 5), (8, 8, 0), (8, 3, 3), (8, 0, 0), (0, 4, 4)])
def test_a_counter_that_has_fallen_was_begun_anew(before: int, now: int, by: int) -> None:
    assert risen(before, now) == by


def test_counters_are_compared_and_gauges_are_not() -> None:
    before, now = page({HIT: 10, THREADS: 4}), page({HIT: 25, THREADS: 3})
    totals = totals_of(pages_since(reading(0, before), reading(5, now)))
    assert totals[REQUESTS].numbers[HIT[1:]] == 15
    assert totals[THREADS[0]].numbers[()] == 3


def test_a_worker_that_is_replaced_counts_on() -> None:
    """In the page of its slot, which is its supervisor's."""
    before = page({HIT: 10}, pid=100, owner=99)
    dead = page({HIT: 12}, pid=100, owner=99, state=PageState.WRITER_DEAD)
    after = page({HIT: 20}, pid=101, owner=99, started_ns=4 * SECOND_NS)
    assert came(reading(0, before), reading(1, dead)) == 2
    assert came(reading(0, before), reading(5, after)) == 10


def test_a_proxy_that_is_replaced_begins_at_nothing() -> None:
    """Its page may have the name of the old one; whose it is tells them apart, and so its counts may be larger."""
    before = page({HIT: 10}, pid=100)
    after = page({HIT: 30}, pid=101, started_ns=SECOND_NS)
    assert came(reading(0, before), reading(5, after)) == 30


def test_pages_that_go_take_nothing_from_the_others() -> None:
    stays, goes = page({HIT: 10}, name="/stays"), page({HIT: 1000}, name="/goes", pid=200)
    assert came(reading(0, stays, goes), reading(5, page({HIT: 11}, name="/stays"))) == 1


def test_what_a_page_counted_before_it_was_seen_is_not_of_now() -> None:
    """It is as old as the earlier reading, which did not show it: somebody chose another owner, for example."""
    old = page({HIT: 10_000}, started_ns=SECOND_NS)
    assert came(reading(2), reading(5, old)) == 0
    assert came(reading(0), reading(5, old)) == 10_000


def test_only_the_metrics_asked_for() -> None:
    (found,) = pages_since(reading(0, page({HIT: 1})), reading(1, page({HIT: 3})), REQUESTS, "no_such_metric")
    assert list(found.metrics) == [REQUESTS]
    assert found.number(*HIT) == 2


def test_histograms_of_what_came_since() -> None:
    buckets = Buckets()
    early, late = histogram_of(buckets, 5000), histogram_of(buckets, 5000, 9000, 2**20)
    assert observed(None, late) == late
    assert observed(early, late) == histogram_of(buckets, 9000, 2**20)
    assert observed(late, late) == histogram_of(buckets)
    assert observed(late, early) == early, "begun anew"
    other = histogram_of(Buckets(shift=3), 7)
    assert observed(other, late) == late, "divided differently"


def test_the_share_of_a_processor() -> None:
    """Not of one that was not there, nor of one that got the pid of another."""
    before = reading(0, processes=(process(1, cpu_s=2.0), process(2, cpu_s=50.0), process(3, role="cache", cpu_s=1.0)))
    now = reading(
        4, processes=(process(1, cpu_s=3.0), process(2, cpu_s=0.1), process(3, cpu_s=2.0), process(4, cpu_s=9.0))
    )
    assert cpu_shares(before, now) == {1: 0.25}
    assert cpu_shares(now, now) == {}
