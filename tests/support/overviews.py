"""Small verbs for tests of what is shown of daemons: pages with counts, and overviews of them, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmchannel.process.identity import ProcessIdentity
from shmchannel.stats_pages import MetricKind, PageReading, PageState, Schema
from shmchannel.stats_pages.reader import MetricValues
from shmchannel.streams.survey import SegmentState, SegmentView
from simplecached.telemetry.metrics import SCHEMA as CACHE_SCHEMA
from tests.support.stats_pages import histogram_of
from webproxy.admin.overview import Overview, ProcessView
from webproxy.monitor.rates import Reading
from webproxy.telemetry.metrics import SCHEMA as PROXY_SCHEMA

SECOND_NS = 10**9
Counts = Mapping[tuple[str, ...], Any]


def page(
    counts: Counts,
    *,
    role: str = "proxy",
    name: str = "/page-0",
    pid: int = 100,
    owner: int | None = None,
    state: PageState = PageState.LIVE,
    started_ns: int = 0,
    origins: tuple[str, ...] = (),
) -> PageReading:
    """A page of a proxy or cache: by (metric, label values) a number, or the values of a histogram; the rest is 0."""
    schema = PROXY_SCHEMA if role == "proxy" else CACHE_SCHEMA
    known = {metric.name for metric in schema.metrics}
    assert {key[0] for key in counts} <= known
    return PageReading(
        name=name,
        state=state,
        role=role,
        instance="127.0.0.1:80" if role == "proxy" else "/queue",
        owner=ProcessIdentity(owner or pid, 1, 1),
        writer=ProcessIdentity(pid, 1, 1),
        writers_total=1,
        started_ns=started_ns,
        metrics=_values(schema, counts, origins),
    )


def _values(schema: Schema, counts: Counts, origins: tuple[str, ...]) -> dict[str, MetricValues]:
    found = {}
    for metric in schema.metrics:
        rows = tuple((origin,) for origin in origins) if metric.table else metric.rows
        if metric.kind is MetricKind.HISTOGRAM:
            histograms = {row: histogram_of(metric.buckets, *counts.get((metric.name, *row), ())) for row in rows}
            found[metric.name] = MetricValues(metric=metric, histograms=histograms)
        else:
            numbers = {row: counts.get((metric.name, *row), 0) for row in rows}
            found[metric.name] = MetricValues(metric=metric, numbers=numbers)
    return found


def process(pid: int = 100, *, role: str = "proxy", state: str = "live", **facts: Any) -> ProcessView:
    """A process as it is seen."""
    return ProcessView(role=role, name=facts.pop("name", f"{role}-{pid}"), pid=pid, state=state, **facts)


def segment(number: int = 0, **facts: Any) -> SegmentView:
    """A segment, at rest unless the test says otherwise."""
    usual = {
        "name": f"gf-7-aa-{number}",
        "pool": "gf-7-aa",
        "owner_pid": 7,
        "owner_lives": True,
        "segment_bytes": 1 << 18,
        "generation": 1,
        "state": SegmentState.AT_REST,
        "producer_pid": 8,
        "done_bytes": 100,
        "object_bytes": 100,
    }
    return SegmentView(**{**usual, **facts})  # type: ignore[arg-type]


def reading(at_s: float, *pages: PageReading, processes: tuple[ProcessView, ...] = (), **facts: Any) -> Reading:
    """What was there at this second."""
    overview = Overview(taken_s=at_s, processes=processes, pages=pages, segments=tuple(facts.get("segments", ())))
    return Reading(round(at_s * SECOND_NS), overview)
