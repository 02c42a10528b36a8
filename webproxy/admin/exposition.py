"""The metrics of an overview in the exposition format of Prometheus, written by its own client library.

Each page is a time series of its own, told apart by `role`, `instance` and `slot`, which a replaced worker continues.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from shmchannel.stats_pages import Histogram, MetricKind, PageReading, PageState
from shmchannel.stats_pages import Metric as Declared
from shmchannel.stats_pages.schema import Namespace
from webproxy.admin.overview import Overview, ProcessView

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PAGE_LABELS = ("role", "instance", "slot")
_LIVE = (PageState.LIVE, PageState.STUCK)

_PROCESS = Namespace("gfcache_process_", labels=("role", "name", "pid"))

PAGE_STATE = Namespace("gfcache_", labels=(*PAGE_LABELS, "state")).gauge(
    "page_state",
    "1 for the state that the writer of a stats page is in.",
    "stuck: the process makes no progress; find out whether it is stopped, swapped out or waits for its disk."
    " writer_dead for long: its supervisor does not notice that it has ended, see whether that is stuck.",
)
_FIGURES = {
    "resident_bytes": _PROCESS.gauge(
        "resident_bytes",
        "Resident memory of a process, shared memory included.",
        "If it grows for hours under an equal load, report it.",
        "bytes",
    ),
    "descriptors": _PROCESS.gauge(
        "descriptors", "Open descriptors of a process.", "Near the limit, raise it: LimitNOFILE."
    ),
    "threads": _PROCESS.gauge(
        "threads", "Threads of a process.", "Those of a proxy follow from -t; if they grow on and on, report it."
    ),
    "cpu_s": _PROCESS.counter(
        "cpu_seconds",
        "Processor time of a process.",
        "One second in a second is all that a process can use: raise --workers.",
        "seconds",
    ),
}
"""By the field of ProcessView."""
ADDED = (PAGE_STATE, *_FIGURES.values())
"""What is in no stats page: known of processes from outside."""


def exposition(overview: Overview) -> bytes:
    """The text that a scraper gets, in CONTENT_TYPE."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Overview(overview))
    return generate_latest(registry)


class _Overview(Collector):
    def __init__(self, overview: Overview) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for page in self._overview.pages:
            for values in page.metrics.values():
                metric = values.metric
                if values.names_change:
                    continue  # clients choose these labels: a series for each would fill the scraper
                if metric.kind is MetricKind.GAUGE and page.state not in _LIVE:
                    continue
                family = families.get(metric.name)
                if family is None:
                    family = families[metric.name] = _family(metric)
                own = (page.role, page.instance, str(page.slot))
                for labels, number in values.numbers.items():
                    family.add_metric([*own, *labels], number / metric.per_unit)  # type: ignore[attr-defined]
                for labels, histogram in values.histograms.items():
                    if not histogram.count:
                        continue  # hundreds of lines of zeros
                    family.add_metric(  # type: ignore[attr-defined]
                        [*own, *labels], _cumulated(histogram, metric.per_unit), histogram.total / metric.per_unit
                    )
        yield from families.values()
        yield _states(self._overview.pages)
        yield from _of_processes(self._overview.processes)


def _family(metric: Declared, page_labels: tuple[str, ...] = PAGE_LABELS) -> Metric:
    labels = [*page_labels, *metric.labels]
    if metric.kind is MetricKind.COUNTER:
        return CounterMetricFamily(metric.name, metric.help, labels=labels)
    if metric.kind is MetricKind.HISTOGRAM:
        return HistogramMetricFamily(metric.name, metric.help, labels=labels)
    return GaugeMetricFamily(metric.name, metric.help, labels=labels)


def _cumulated(histogram: Histogram, per_unit: int) -> list[tuple[str, float]]:
    """Counts up to each power of two: an eighth of the buckets, so that a scrape stays small."""
    buckets, seen = [], 0
    for index, count in enumerate(histogram.counts[:-1]):
        seen += count
        if (index + 1) % 8 == 0:
            buckets.append((f"{histogram.buckets.lower(index + 1) / per_unit:.9g}", float(seen)))
    return [*buckets, ("+Inf", float(histogram.count))]


def _states(pages: Iterable[PageReading]) -> Metric:
    family = _family(PAGE_STATE, ())
    for page in pages:
        for state in PageState:
            family.add_metric([page.role, page.instance, str(page.slot), state], float(page.state is state))  # type: ignore[attr-defined]
    return family


def _of_processes(processes: Iterable[ProcessView]) -> Iterator[Metric]:
    known = list(processes)
    for name, metric in _FIGURES.items():
        family = _family(metric, ())
        for process in known:
            value = float(getattr(process, name))
            family.add_metric([process.role, process.name, str(process.pid)], value)  # type: ignore[attr-defined]
        yield family
