"""OriginCounts: requests to origins, counted in the stats page by the thread that drives them.

The first origins that are met have figures of their own, as many as the table has rows; the others share a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmchannel.stats_pages import OTHER, Counter, Gauge, HistogramCells, StatsPage
from webproxy.telemetry.metrics import SCHEMA


@dataclass(frozen=True, slots=True)
class _Row:
    requests: Counter
    failures: Counter
    refused: Counter
    head_times: HistogramCells
    state: Gauge
    connections: Gauge
    line: Gauge


class OriginCounts:
    """For one thread."""

    def __init__(self, page: StatsPage) -> None:
        self._page = page
        self._other = self._row_of(OTHER)
        self._rows: dict[str, _Row] = {}

    @classmethod
    def private(cls) -> OriginCounts:
        """Counts that nobody else sees."""
        return cls(StatsPage.private(SCHEMA))

    @property
    def named(self) -> list[str]:
        """The origins that have figures of their own."""
        return list(self._rows)

    def asked(self, origin: str) -> None:
        """A request is sent to it."""
        self._find(origin).requests.add()

    def answered(self, origin: str, took_ns: int) -> None:
        """The head of an answer has come, so long after the request was sent."""
        self._find(origin).head_times.observe(took_ns)

    def failed(self, origin: str) -> None:
        """A request to it had no useful answer."""
        self._find(origin).failures.add()

    def refused(self, origin: str) -> None:
        """A request was not sent to it."""
        self._find(origin).refused.add()

    def set_now(self, origin: str, *, state: int, connections: int, line: int) -> None:
        """What there is now, of one of `named`: its state (0 closed, 1 half-open, 2 open), connections, requests."""
        row = self._rows[origin]
        row.state.set(state)
        row.connections.set(connections)
        row.line.set(line)

    def _find(self, origin: str) -> _Row:
        row = self._rows.get(origin)
        if row is None:
            label = self._page.row("origins", origin)
            if label == OTHER:
                return self._other
            row = self._rows[origin] = self._row_of(label)
        return row

    def _row_of(self, label: str) -> _Row:
        page, name = self._page, "gfcache_proxy_origin_{}".format
        return _Row(
            requests=page.counter(name("requests_total"), label),
            failures=page.counter(name("failures_total"), label),
            refused=page.counter(name("refused_total"), label),
            head_times=page.histogram(name("head_seconds"), label),
            state=page.gauge(name("state"), label),
            connections=page.gauge(name("connections"), label),
            line=page.gauge(name("line"), label),
        )
