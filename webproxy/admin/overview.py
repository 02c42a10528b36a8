"""Overview: everything that is known of the running daemons at one moment, as plain data.

It is read from the stats pages, the registry, the headers of the segments and /proc, and nobody is asked: a daemon that
hangs is seen as well as one that works, and is said to hang. Admin server and monitor show the same overview, so that
they agree.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from shmchannel.registry import Member, Registry
from shmchannel.stats_pages import Histogram, Metric, MetricKind, OverPages, PageReading, PageState, read_pages
from shmchannel.streams.survey import SegmentView, survey
from webproxy.admin.top import Client, Missed, top_clients, top_missed
from webproxy.admin.traffic import Traffic, traffic_as_json, traffic_of
from webproxy.telemetry.metrics import (
    CLIENT_REQUESTS,
    CLIENT_SAVED,
    CLIENT_SAVED_BYTES,
    CLIENT_SENT_BYTES,
    MISSED,
    MISSED_BYTES,
    REQUESTS,
    SENT_BYTES,
)

_ALL_CACHES = "auto"
_PERCENTILES = (50.0, 90.0, 99.0)
Labels = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessView:
    """One process that has announced itself, or writes a page. `state` is that of its page, or `stuck` and `live`."""

    role: str
    name: str
    pid: int
    state: str
    queue_name: str = ""
    address: str = ""
    load: float = 0.0
    slot: int | None = None
    uptime_s: float = 0.0
    heartbeat_age_s: float = 0.0
    accepts: bool = False
    """It has announced that it accepts requests, and makes progress."""
    facts: Mapping[str, str] = field(default_factory=dict)
    resident_bytes: int = 0
    descriptors: int = 0
    threads: int = 0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """One metric over several pages: the sum of its numbers, or all values of its histograms, by label values."""

    metric: Metric
    numbers: Mapping[Labels, float] = field(default_factory=dict)
    histograms: Mapping[Labels, Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What is known now; `taken_s` is the time of day."""

    taken_s: float
    processes: tuple[ProcessView, ...]
    pages: tuple[PageReading, ...]
    segments: tuple[SegmentView, ...]

    def totals(self) -> dict[str, Total]:
        """Each metric over all pages, those of the dead included: what they counted has happened."""
        return totals_of(self.pages)


def take(*, owner_pid: int | None = None) -> Overview:
    """Look at everything of this user; with an owner, at one proxy and the caches that it uses. Never blocks.

    `owner_pid` is the supervisor of the proxy, or the proxy itself.
    """
    members = Registry().find()
    pages = read_pages()
    segments = survey()
    if owner_pid is not None:
        pages_of_owner = [page for page in pages if page.owner is not None and page.owner.pid == owner_pid]
        pids = {owner_pid, *(page.writer.pid for page in pages_of_owner if page.writer is not None)}
        pids |= {member.identity.pid for member in members if member.entry.facts.get("supervisor") == str(owner_pid)}
        queues = {name for member in members if member.identity.pid in pids for name in _queues_of(member)}
        members = [member for member in members if member.identity.pid in pids or _is_cache_of(member, queues)]
        pids |= {member.identity.pid for member in members}
        pages = [page for page in pages if page in pages_of_owner or (page.writer and page.writer.pid in pids)]
        segments = [segment for segment in segments if segment.owner_pid in pids]
    return Overview(
        taken_s=time.time(),
        processes=tuple(_processes(members, pages)),
        pages=tuple(pages),
        segments=tuple(segments),
    )


def _queues_of(member: Member) -> set[str]:
    """The queues of the caches that a proxy uses; `auto` stands for those of all caches."""
    entry = member.entry
    return {entry.queue_name, *entry.facts.get("caches", "").split(",")} - {""}


def _is_cache_of(member: Member, queues: set[str]) -> bool:
    return member.entry.role == "cache" and (_ALL_CACHES in queues or member.entry.queue_name in queues)


def totals_of(pages: Iterable[PageReading]) -> dict[str, Total]:
    """Each metric over these pages. Gauges of pages without a living writer say nothing any more."""
    metrics: dict[str, Metric] = {}
    numbers: dict[str, dict[Labels, float]] = {}
    histograms: dict[str, dict[Labels, Histogram]] = {}
    for page in pages:
        for name, values in page.metrics.items():
            metric = metrics.setdefault(name, values.metric)
            if metric.kind is MetricKind.GAUGE and page.state not in (PageState.LIVE, PageState.STUCK):
                continue
            sums = numbers.setdefault(name, {})
            for labels, number in values.numbers.items():
                sums[labels] = _together(metric.over_pages, sums.get(labels), number / metric.per_unit)
            merged = histograms.setdefault(name, {})
            for labels, histogram in values.histograms.items():
                known = merged.get(labels)
                if known is None:
                    merged[labels] = histogram
                elif known.buckets == histogram.buckets and any(histogram.counts):
                    merged[labels] = known.merged(histogram)
    return {
        name: Total(metric=metric, numbers=numbers.get(name, {}), histograms=histograms.get(name, {}))
        for name, metric in metrics.items()
    }


def traffic_in(totals: Mapping[str, Total]) -> Traffic:
    """The traffic of the proxies that these totals are of."""
    return traffic_of(_numbers(totals, REQUESTS), _numbers(totals, SENT_BYTES))


def missed_in(totals: Mapping[str, Total]) -> tuple[Missed, ...]:
    """The paths that these proxies miss most."""
    return top_missed(_numbers(totals, MISSED), _numbers(totals, MISSED_BYTES))


def clients_in(totals: Mapping[str, Total]) -> tuple[Client, ...]:
    """The clients that got most of these proxies."""
    names = CLIENT_REQUESTS, CLIENT_SENT_BYTES, CLIENT_SAVED, CLIENT_SAVED_BYTES
    return top_clients(*(_numbers(totals, name) for name in names))


def _numbers(totals: Mapping[str, Total], name: str) -> Mapping[Labels, float]:
    return totals[name].numbers if name in totals else {}


def _together(over_pages: OverPages, known: float | None, number: float) -> float:
    if known is None:
        return number
    match over_pages:
        case OverPages.SUM:
            return known + number
        case OverPages.MAX:
            return max(known, number)
        case OverPages.MIN:
            return min(known, number)


def _processes(members: Iterable[Member], pages: Iterable[PageReading]) -> Iterable[ProcessView]:
    by_writer = {page.writer.pid: page for page in pages if page.writer is not None}
    seen = set()
    for member in members:
        pid, entry = member.identity.pid, member.entry
        page = by_writer.get(pid)
        seen.add(pid)
        page_state = None if page is None else page.state
        state = str(page_state or PageState.LIVE)
        yield ProcessView(
            role=entry.role,
            name=entry.name,
            pid=pid,
            state=str(PageState.STUCK) if member.is_stuck else state,
            queue_name=entry.queue_name,
            address=entry.address,
            load=member.load,
            slot=None if page is None else page.slot,
            uptime_s=0.0 if page is None else page.uptime_s,
            heartbeat_age_s=max(0.0, (time.monotonic_ns() - member.heartbeat_ns) / 1e9),
            accepts=not member.is_stuck and page_state in (None, PageState.LIVE),
            facts=entry.facts,
            **_figures(pid),
        )
    for pid, page in by_writer.items():
        if pid not in seen:
            yield ProcessView(
                role=page.role,
                name=page.instance,
                pid=pid,
                state=str(page.state),
                slot=page.slot,
                uptime_s=page.uptime_s,
                heartbeat_age_s=page.heartbeat_age_s,
                **_figures(pid),
            )


def _figures(pid: int) -> dict[str, Any]:
    """What the system says of a process; nothing if it has ended or is another user's."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            cpu = process.cpu_times()
            return {
                "resident_bytes": process.memory_info().rss,
                "descriptors": process.num_fds(),
                "threads": process.num_threads(),
                "cpu_s": cpu.user + cpu.system,
            }
    except (psutil.Error, OSError):
        return {}


# -- as JSON ---------------------------------------------------------------------------------------------------------
def as_json(overview: Overview) -> dict[str, Any]:
    """The overview in plain types, for `/stats` and `gfmon --json`; the totals by metric, and each page's state.

    What clients choose the names of is under `top` only.
    """
    totals = overview.totals()
    listed = {name for page in overview.pages for name, values in page.metrics.items() if values.names_change}
    return {
        "taken_s": overview.taken_s,
        "processes": [asdict(process) for process in overview.processes],
        "pages": [
            {
                "name": page.name,
                "state": str(page.state),
                "role": page.role,
                "instance": page.instance,
                "slot": page.slot,
                "writer_pid": page.writer.pid if page.writer is not None else None,
                "writers": page.writers_total,
                "heartbeat_age_s": page.heartbeat_age_s,
                "numbers": _plain_numbers(page),
            }
            for page in overview.pages
        ],
        "traffic": traffic_as_json(traffic_in(totals)),
        "top": {
            "missed": [asdict(missed) for missed in missed_in(totals)],
            "clients": [asdict(client) for client in clients_in(totals)],
        },
        "metrics": {name: total_as_json(total) for name, total in totals.items() if name not in listed},
        "segments": [segment_as_json(segment) for segment in overview.segments],
    }


def _plain_numbers(page: PageReading) -> dict[str, float]:
    """The counters and gauges without labels of one page: what a single cache or worker has."""
    return {
        name: values.numbers[()] / values.metric.per_unit
        for name, values in page.metrics.items()
        if () in values.numbers
    }


def segment_as_json(segment: SegmentView) -> dict[str, Any]:
    """One segment in plain types."""
    return {**asdict(segment), "state": str(segment.state)}


def total_as_json(total: Total) -> dict[str, Any]:
    """One metric in plain types: rows with their labels and a value, or count, sum and percentiles."""
    metric = total.metric
    rows: list[dict[str, Any]] = [
        {"labels": dict(zip(metric.labels, labels, strict=True)), "value": number}
        for labels, number in total.numbers.items()
    ]
    rows += [
        {"labels": dict(zip(metric.labels, labels, strict=True)), **histogram_as_json(histogram, metric.per_unit)}
        for labels, histogram in total.histograms.items()
    ]
    return {"kind": str(metric.kind), "unit": metric.unit, "help": metric.help, "rows": rows}


def histogram_as_json(histogram: Histogram, per_unit: int) -> dict[str, Any]:
    """Count, sum and percentiles in the unit of its metric; without values there are no percentiles.

    `buckets` has the lower bound and the count of each bucket that is not empty: what is between two readings can be
    told from them, and has percentiles of its own.
    """
    facts: dict[str, Any] = {"count": histogram.count, "sum": histogram.total / per_unit}
    facts["buckets"] = [
        [histogram.buckets.lower(index) / per_unit, count] for index, count in enumerate(histogram.counts) if count
    ]
    for percent in _PERCENTILES:
        value = histogram.percentile(percent) if facts["count"] else None  # most of them are empty
        facts[f"p{percent:g}"] = None if value is None else value / per_unit
    return facts
