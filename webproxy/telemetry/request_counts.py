"""RequestCounts: the ends of one protocol's requests, counted in the stats page by the threads that answer them.

A request that has a record is counted from it. One that the hot table answers at once has none, and costs one call
without a lock. These, and other hits, reach the page once a second.
"""

from __future__ import annotations

from typing import Final

from shmchannel.stats_pages import StatsPage, TimedEvent
from webproxy.telemetry.metrics import (
    FIRST_BYTE_TIMES,
    FROM_CACHE,
    FROM_ORIGIN,
    HOT,
    NOT_LOOKED_AT,
    OUTCOMES,
    REQUEST_TIMES,
    REQUESTS,
    SCHEMA,
    SENT_BYTES,
    STATUSES,
)
from webproxy.telemetry.requests import CacheResult, RequestRecord

_CACHED: Final = (CacheResult.HIT, CacheResult.REVALIDATED, CacheResult.STALE)
_LABELS: Final = {
    "fetched": "miss",
    "validated": "revalidated",
    "passed": "pass",
    "not found": "not_found",
    "given up": "given_up",
    "client gone": "client_gone",
    "cut short": "cut_short",
}
"""Of the words for the end of a request that are no labels themselves."""
_WORDS: Final = {label: word for word, label in _LABELS.items()} | {HOT: "hit", "collapsed": "fetched"}


def outcome_of(record: RequestRecord) -> str:
    """The label for how a request has ended."""
    if record.outcome == "fetched" and record.cache is CacheResult.COLLAPSED:
        return "collapsed"
    label = _LABELS.get(record.outcome, record.outcome)
    return label if label in OUTCOMES else "not_cached"  # otherwise a reason in the terms of Cache-Status


def source_of(outcome: str, cache: CacheResult) -> str:
    """Where the bytes came from: cache, origin, or the proxy itself; of a response that broke off, too."""
    if outcome in FROM_CACHE or (cache in _CACHED and outcome not in FROM_ORIGIN):
        return "cache"
    return "origin" if outcome in FROM_ORIGIN or cache is not CacheResult.NONE else "proxy"


def status_class(status: int) -> int:
    """The index of a status in STATUSES; 0 is that of no answer."""
    return status // 100 - 2 if 200 <= status < 600 else len(STATUSES) - 1


class RequestCounts:
    """Thread-safe; nothing blocks. Counts since this process began are those that the page did not have before."""

    def __init__(self, page: StatsPage, protocol: str) -> None:
        self._page = page
        self._protocol = protocol
        self._counters = {
            outcome: tuple(page.counter(REQUESTS, protocol, outcome, status) for status in STATUSES)
            for outcome in OUTCOMES
        }
        self._times = {
            outcome: page.histogram(REQUEST_TIMES, protocol, outcome)
            for outcome in OUTCOMES
            if outcome != NOT_LOOKED_AT
        }
        self._first_bytes = {
            outcome: page.histogram(FIRST_BYTE_TIMES, protocol, outcome) for outcome in self._times if outcome != HOT
        }
        self._hit_first_bytes = self._first_bytes["hit"]
        self._bytes = {source: page.counter(SENT_BYTES, source) for source in ("cache", "origin", "proxy")}
        self._hot = self._events(HOT)
        self._hits = self._events("hit")
        self.note_hot = tuple(event.note for event in self._hot)
        """By status class: count a response that the hot table had, with the bytes sent and the nanoseconds it took."""
        self._before = self._values()

    def _events(self, outcome: str) -> tuple[TimedEvent, ...]:
        """By status class, of an outcome whose bytes come from the cache."""
        sent, times = (SENT_BYTES, "cache"), (REQUEST_TIMES, self._protocol, outcome)
        return tuple(
            self._page.timed_event((REQUESTS, self._protocol, outcome, status), sent, times) for status in STATUSES
        )

    @classmethod
    def private(cls, protocol: str) -> RequestCounts:
        """Counts that nobody else sees."""
        return cls(StatsPage.private(SCHEMA), protocol)

    def note(self, record: RequestRecord) -> None:
        """Count a request whose record is complete."""
        if record.outcome == "hit":  # most of them: the same at a third of the cost
            self._hits[status_class(record.status)].note(max(0, record.sent_bytes), record.total_ns)
            if record.first_byte_ns:
                self._hit_first_bytes.observe(record.until_first_byte_ns)
            return
        outcome = outcome_of(record)
        self._counters[outcome][status_class(record.status)].add()
        self._bytes[source_of(outcome, record.cache)].add(max(0, record.sent_bytes))
        self._times[outcome].observe(record.total_ns)
        if record.first_byte_ns:
            self._first_bytes[outcome].observe(record.until_first_byte_ns)

    def note_unrecorded(self, outcome: str) -> None:
        """Count a request that ended without a record, as its client had gone before anything was sent."""
        self._counters[_LABELS.get(outcome, outcome)][status_class(0)].add()

    def note_not_looked_at(self, status: int) -> None:
        """Count a client that was told why its request, if there is one, is not looked at."""
        self._counters[NOT_LOOKED_AT][status_class(status)].add()

    def flush(self) -> None:
        """Bring the page up to date with hits; for one thread at a time."""
        for event in self._hot + self._hits:
            event.flush()

    def totals(self) -> dict[str, int]:
        """The requests since this process began, by the words of the line `stopped`; for the thread of flush()."""
        self.flush()
        totals: dict[str, int] = {}
        for outcome, value in self._values().items():
            count = value - self._before[outcome]
            if count and outcome != NOT_LOOKED_AT:
                word = _WORDS.get(outcome, outcome)
                totals[word] = totals.get(word, 0) + count
        return totals

    def _values(self) -> dict[str, int]:
        return {outcome: sum(counter.value for counter in counters) for outcome, counters in self._counters.items()}
