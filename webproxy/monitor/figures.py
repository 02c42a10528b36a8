"""Figures: what an operator wants to know, derived from one reading or two: rates, ratios, percentiles, states.

Without an earlier reading there are no rates, and ratios and percentiles are those since the start. Functions of
values: nothing is read here. What each metric means is said where it is declared (`webproxy.telemetry.metrics`,
`simplecached.telemetry.metrics`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

from shmchannel.stats_pages import Histogram, PageReading
from shmchannel.stats_pages.histogram import SUBS
from shmchannel.stats_pages.schema import OTHER
from webproxy.admin.overview import Overview, ProcessView, Total, as_json, clients_in, missed_in, totals_of, traffic_in
from webproxy.admin.top import Client, Missed
from webproxy.admin.traffic import ratio
from webproxy.monitor.rates import Reading, cpu_shares, pages_since
from webproxy.telemetry.metrics import OUTCOMES, REQUEST_TIMES, REQUESTS, SAVED, SAVED_BYTES

LIVE = "live"
_CACHE, _PROXY = "gfcache_cache_", "gfcache_proxy_"
COMMANDS = f"{_CACHE}commands_total"
COMMAND_TIMES = f"{_CACHE}command_seconds"
LOOKUPS = f"{_CACHE}lookups_total"
EVICTED = f"{_CACHE}evicted_total"
LEASES = f"{_PROXY}leases_total"
ORIGIN_REQUESTS = f"{_PROXY}origin_requests_total"
ORIGIN_FAILURES = f"{_PROXY}origin_failures_total"
ORIGIN_TIMES = f"{_PROXY}origin_head_seconds"
ORIGIN_CONNECTIONS = f"{_PROXY}origin_connections"
ORIGIN_LINE = f"{_PROXY}origin_line"
ORIGIN_STATE = f"{_PROXY}origin_state"
CACHE_GAUGES = ("queue_depth", "threads", "threads_busy", "objects", "bytes", "budget_bytes", "oldest_seconds")
"""Of a cache's page, after `gfcache_cache_`."""
PROXY_GAUGES = (
    "connections",
    "requests_waiting",
    "run_queue",
    "threads",
    "threads_busy",
    "segments",
    "segments_leased",
    "segments_waiting",
)
"""Of a proxy's page, after `gfcache_proxy_`."""
ORIGIN_STATES = ("answers", "tried again", "failing")
"""By the number of the gauge."""
Totals = Mapping[str, Total]


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What clients asked for and got: in a second (None without two readings), and as shares (None of nothing).

    What counts as a hit or as an error is said in `webproxy.admin.traffic`.
    """

    requests_per_s: float | None
    errors_per_s: float | None
    sent_bytes_per_s: float | None
    hit_ratio: float | None
    byte_hit_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How often something happened, and how long it took; no percentiles of nothing."""

    count: int
    per_s: float | None
    p50_s: float | None
    p90_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How many requests took from `from_s` to less than `below_s` (None: without an upper bound)."""

    from_s: float
    below_s: float | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFigures:
    """One cache by its page; `gauges` by the names in CACHE_GAUGES."""

    queue: str
    pid: int
    state: str
    gauges: Mapping[str, float]
    commands_per_s: float | None
    command_hit_ratio: float | None
    """Of look-ups by command; those that proxies answer from the hot table are not among them."""
    evicted_per_s: float | None
    command_times: Times


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginFigures:
    """One origin over all workers; its state is the worst that one of them sees."""

    name: str
    state: str
    requests_per_s: float | None
    failures: int
    saved: int
    """Requests that needed none to it, since the start."""
    saved_bytes: float
    head_times: Times
    connections: float
    line: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFigures:
    """One process; the share of one processor, and requests or commands in a second, if it was there before."""

    process: ProcessView
    cpu_share: float | None
    requests_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything that is shown. `interval_s` lies between the two readings; None: since the start."""

    overview: Overview
    interval_s: float | None
    traffic: Traffic
    since_start: Traffic
    requests_total: int
    leases_per_s: float | None
    """Transfers that got segments."""
    proxy_gauges: Mapping[str, float]
    """Over all workers, by the names in PROXY_GAUGES."""
    latency: tuple[Step, ...]
    """Of all requests, in steps of powers of two, from the first with a value to the last."""
    outcomes: Mapping[str, Times]
    """Of requests, by what became of them; those that came."""
    caches: tuple[CacheFigures, ...]
    origins: tuple[OriginFigures, ...]
    missed: tuple[Missed, ...]
    """Paths that origins answered, since the start, the most frequent first."""
    clients: tuple[Client, ...]
    """Who got most, since the start."""
    processes: tuple[ProcessFigures, ...]

    @property
    def troubled(self) -> tuple[ProcessView, ...]:
        """The processes that hang, or have ended and left something."""
        return tuple(found.process for found in self.processes if found.process.state != LIVE)


def derive(earlier: Reading | None, now: Reading) -> Figures:
    """The figures of the time between two readings; of all the time without the earlier one."""
    overview = now.overview
    elapsed_s = None if earlier is None else (now.at_ns - earlier.at_ns) / 1e9
    interval_s = elapsed_s or None
    pages = overview.pages if earlier is None else pages_since(earlier, now)
    recent, totals = totals_of(pages), overview.totals()
    shares = {} if earlier is None else cpu_shares(earlier, now)
    answered = {page.writer.pid: _answered(page, interval_s) for page in pages if page.writer is not None}
    return Figures(
        overview=overview,
        interval_s=interval_s,
        traffic=_traffic(recent, interval_s),
        since_start=_traffic(totals, None),
        requests_total=round(_sum(totals, REQUESTS)),
        leases_per_s=per_second(_sum(recent, LEASES), interval_s),
        proxy_gauges={name: _sum(totals, _PROXY + name) for name in PROXY_GAUGES},
        latency=_steps(recent),
        outcomes=_outcomes(recent, interval_s),
        caches=tuple(_cache(page, interval_s) for page in pages if page.role == "cache"),
        origins=_origins(recent, totals, interval_s),
        missed=missed_in(totals),
        clients=clients_in(totals),
        processes=tuple(
            ProcessFigures(process=process, cpu_share=shares.get(process.pid), requests_per_s=answered.get(process.pid))
            for process in overview.processes
        ),
    )


def as_plain(figures: Figures) -> dict[str, Any]:
    """What `/stats` says of the same overview, and under `derived` the figures, in plain types."""
    derived = {
        "interval_s": figures.interval_s,
        "requests_total": figures.requests_total,
        "traffic": asdict(figures.traffic),
        "since_start": {
            "hit_ratio": figures.since_start.hit_ratio,
            "byte_hit_ratio": figures.since_start.byte_hit_ratio,
        },
        "leases_per_s": figures.leases_per_s,
        "proxies": dict(figures.proxy_gauges),
        "latency": [asdict(step) for step in figures.latency],
        "outcomes": {outcome: asdict(times) for outcome, times in figures.outcomes.items()},
        "caches": [asdict(cache) for cache in figures.caches],
        "origins": [asdict(origin) for origin in figures.origins],
        "processes": [
            {"pid": found.process.pid, "cpu_share": found.cpu_share, "requests_per_s": found.requests_per_s}
            for found in figures.processes
        ],
        "troubled": [{"pid": process.pid, "state": process.state} for process in figures.troubled],
    }
    return {**as_json(figures.overview), "derived": derived}


def requests_per_s(earlier: Reading, now: Reading) -> float | None:
    """Requests in a second between two readings; the one figure of which there is a curve."""
    requests = _sum(totals_of(pages_since(earlier, now, REQUESTS)), REQUESTS)
    return per_second(requests, (now.at_ns - earlier.at_ns) / 1e9)


# -- rates and ratios ------------------------------------------------------------------------------------------------
def per_second(count: float, interval_s: float | None) -> float | None:
    """A rate; None without an interval."""
    return count / interval_s if interval_s else None


def _sum(totals: Totals, name: str, wanted: Callable[[Mapping[str, str]], bool] = lambda _: True) -> float:
    """The sum of a metric's rows whose labels are wanted; 0 if no page has the metric."""
    total = totals.get(name)
    if total is None:
        return 0.0
    labels = total.metric.labels
    return sum(number for row, number in total.numbers.items() if wanted(dict(zip(labels, row, strict=True))))


def _traffic(totals: Totals, interval_s: float | None) -> Traffic:
    found = traffic_in(totals)
    return Traffic(
        requests_per_s=per_second(found.requests_total, interval_s),
        errors_per_s=per_second(found.errors, interval_s),
        sent_bytes_per_s=per_second(found.sent_total, interval_s),
        hit_ratio=found.hit_ratio,
        byte_hit_ratio=found.byte_hit_ratio,
    )


def _answered(page: PageReading, interval_s: float | None) -> float | None:
    """Requests of a proxy in a second, or commands of a cache."""
    return per_second(_sum(totals_of([page]), COMMANDS if page.role == "cache" else REQUESTS), interval_s)


# -- times -----------------------------------------------------------------------------------------------------------
def _merged(histograms: Iterable[Histogram]) -> Histogram | None:
    """The values of all; of those that are divided differently the first ones."""
    known = [found for found in histograms if found.count]
    alike = [found for found in known if found.buckets == known[0].buckets]
    return reduce(lambda one, other: one.merged(other), alike) if alike else None


def _times(total: Total | None, interval_s: float | None, label: str = "", value: str = "") -> Times:
    """Of a metric's rows, or those with this value of a label."""
    rows = {} if total is None else total.histograms
    at = total.metric.labels.index(label) if total is not None and label else 0
    histogram = _merged(found for row, found in rows.items() if not label or row[at] == value)
    if total is None or histogram is None:
        return Times(count=0, per_s=per_second(0, interval_s), p50_s=None, p90_s=None, p99_s=None)

    def at_percent(percent: float) -> float | None:
        found = histogram.percentile(percent)
        return None if found is None else found / total.metric.per_unit

    return Times(
        count=histogram.count,
        per_s=per_second(histogram.count, interval_s),
        p50_s=at_percent(50),
        p90_s=at_percent(90),
        p99_s=at_percent(99),
    )


def _outcomes(recent: Totals, interval_s: float | None) -> dict[str, Times]:
    found = {outcome: _times(recent.get(REQUEST_TIMES), interval_s, "outcome", outcome) for outcome in OUTCOMES}
    return {outcome: times for outcome, times in found.items() if times.count}


def _steps(recent: Totals) -> tuple[Step, ...]:
    total = recent.get(REQUEST_TIMES)
    histogram = None if total is None else _merged(total.histograms.values())
    if total is None or histogram is None:
        return ()
    buckets, last = histogram.buckets, histogram.buckets.size - 1
    found = []
    for first in range(0, last + 1, SUBS):
        below_s = buckets.lower(first + SUBS) / total.metric.per_unit if first + SUBS <= last else None
        count = sum(histogram.counts[first : first + SUBS])
        found.append(Step(from_s=buckets.lower(first) / total.metric.per_unit, below_s=below_s, count=count))
    used = [index for index, step in enumerate(found) if step.count]
    return tuple(found[used[0] : used[-1] + 1])


# -- caches and origins ----------------------------------------------------------------------------------------------
def _cache(page: PageReading, interval_s: float | None) -> CacheFigures:
    totals = totals_of([page])
    lookups = _sum(totals, LOOKUPS)
    return CacheFigures(
        queue=page.instance,
        pid=0 if page.writer is None else page.writer.pid,
        state=str(page.state),
        gauges={name: _sum(totals, _CACHE + name) for name in CACHE_GAUGES},
        commands_per_s=per_second(_sum(totals, COMMANDS), interval_s),
        command_hit_ratio=ratio(_sum(totals, LOOKUPS, lambda row: row["result"] == "hit"), lookups),
        evicted_per_s=per_second(_sum(totals, EVICTED), interval_s),
        command_times=_times(totals.get(COMMAND_TIMES), interval_s),
    )


def _origins(recent: Totals, totals: Totals, interval_s: float | None) -> tuple[OriginFigures, ...]:
    known = totals.get(ORIGIN_REQUESTS)
    states = {} if ORIGIN_STATE not in totals else totals[ORIGIN_STATE].numbers

    def of(name: str) -> OriginFigures:
        def is_it(row: Mapping[str, str]) -> bool:
            return row["origin"] == name

        state = states.get((name,))
        return OriginFigures(
            name=name,
            state="" if state is None else ORIGIN_STATES[min(round(state), len(ORIGIN_STATES) - 1)],
            requests_per_s=per_second(_sum(recent, ORIGIN_REQUESTS, is_it), interval_s),
            failures=round(_sum(totals, ORIGIN_FAILURES, is_it)),
            saved=round(_sum(totals, SAVED, is_it)),
            saved_bytes=_sum(totals, SAVED_BYTES, is_it),
            head_times=_times(recent.get(ORIGIN_TIMES), interval_s, "origin", name),
            connections=_sum(totals, ORIGIN_CONNECTIONS, is_it),
            line=_sum(totals, ORIGIN_LINE, is_it),
        )

    asked = {} if known is None else known.numbers
    return tuple(of(name) for (name,), count in sorted(asked.items()) if count or name != OTHER)
