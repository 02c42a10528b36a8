"""What happened between two readings: functions of two overviews, without a clock.

Counters are compared page by page, and only then added up, so that a page that came or went moves no sum. A page is
known again by its name and its owner. A worker that replaces another goes on counting in the page of its slot, and a
new owner has new pages; a counter that has fallen all the same was begun anew, and all that it has came since then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from shmchannel.stats_pages import Histogram, MetricKind, PageReading
from shmchannel.stats_pages.reader import MetricValues
from webproxy.admin.overview import Overview


class Reading(NamedTuple):
    """An overview, and when it was taken by CLOCK_MONOTONIC."""

    at_ns: int
    overview: Overview


def pages_since(earlier: Reading, now: Reading, *names: str) -> tuple[PageReading, ...]:
    """The pages of `now` with counters and histograms of what came since `earlier`; gauges are as they are now.

    With `names` the pages have these metrics only.
    """
    known = {(page.name, page.owner): page for page in earlier.overview.pages}
    return tuple(
        _page_since(known.get((page.name, page.owner)), page, earlier.at_ns, names or tuple(page.metrics))
        for page in now.overview.pages
    )


def _page_since(before: PageReading | None, page: PageReading, earlier_ns: int, names: tuple[str, ...]) -> PageReading:
    if before is None and page.started_ns < earlier_ns:
        before = page  # it was there and was not seen: when it counted what it has is not known
    metrics = {
        name: _values_since(None if before is None else before.metrics.get(name), page.metrics[name])
        for name in names
        if name in page.metrics
    }
    return replace(page, metrics=metrics)


def _values_since(before: MetricValues | None, now: MetricValues) -> MetricValues:
    if before is None or now.metric.kind is MetricKind.GAUGE:
        return now
    return replace(
        now,
        numbers={row: risen(before.numbers.get(row, 0), number) for row, number in now.numbers.items()},
        histograms={row: observed(before.histograms.get(row), values) for row, values in now.histograms.items()},
    )


def risen(before: int, now: int) -> int:
    """By how much a counter has risen; one that has fallen was begun anew."""
    return now - before if now >= before else now


def observed(before: Histogram | None, now: Histogram) -> Histogram:
    """The values that came since; all of them if the histogram was begun anew, or is divided differently now."""
    if before is None or before.buckets != now.buckets or before.count > now.count:
        return now
    if before.counts == now.counts:  # most of them, and then far cheaper
        return Histogram(now.buckets, (0,) * now.buckets.size, 0)
    return now.since(before)


def cpu_shares(earlier: Reading, now: Reading) -> Mapping[int, float]:
    """By pid the share of one processor that a process took; without those that were not there before."""
    elapsed_s = (now.at_ns - earlier.at_ns) / 1e9
    before = {(process.role, process.name, process.pid): process.cpu_s for process in earlier.overview.processes}
    found = {}
    for process in now.overview.processes:
        then_s = before.get((process.role, process.name, process.pid))
        if then_s is not None and then_s <= process.cpu_s and elapsed_s > 0:
            found[process.pid] = (process.cpu_s - then_s) / elapsed_s
    return found
