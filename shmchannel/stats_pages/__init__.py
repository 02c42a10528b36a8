"""Stats pages: what a process counts, in shared memory, where any other process of this user reads it.

    SCHEMA = Schema((Metric(name="things_total", kind=MetricKind.COUNTER, help="Things done."),))
    pages = StatsPages.create("worker")         # the owner of the names: the process itself, or its supervisor
    page = pages.add(0, SCHEMA)
    page.begin()                                # from now on this process counts in it
    page.counter("things_total").add()
    for reading in read_pages("worker"):        # in any process
        print(reading.state, reading.number("things_total"))
    pages.close()

docs/protocol.md has the layout, for programs in other languages.
"""

from shmchannel.stats_pages.counting import Counter, Gauge, HistogramCells, SampledTotal, TimedEvent, is_reliable
from shmchannel.stats_pages.histogram import LATENCY, Buckets, Histogram
from shmchannel.stats_pages.page import SlotPages, StatsPage, StatsPages, own_page
from shmchannel.stats_pages.reader import MetricValues, PageReading, PageState, list_pages, read_page, read_pages
from shmchannel.stats_pages.schema import NANOSECONDS, OTHER, Metric, MetricKind, OverPages, Schema, Table

__all__ = [
    "LATENCY",
    "NANOSECONDS",
    "OTHER",
    "Buckets",
    "Counter",
    "Gauge",
    "Histogram",
    "HistogramCells",
    "Metric",
    "MetricKind",
    "MetricValues",
    "OverPages",
    "PageReading",
    "PageState",
    "SampledTotal",
    "Schema",
    "SlotPages",
    "StatsPage",
    "StatsPages",
    "Table",
    "TimedEvent",
    "is_reliable",
    "list_pages",
    "own_page",
    "read_page",
    "read_pages",
]
