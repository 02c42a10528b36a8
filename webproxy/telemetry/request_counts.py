"""RequestCounts: the ends of one protocol's requests, counted in the stats page by the threads that answer them.

A request that has a record is counted from it. One that the hot table answers at once has none, and costs one call
without a lock. These, and other hits, reach the page once a second. That call belongs to an origin, so that what the
cache saves each origin is known without a further count (decision 0037).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from shmchannel.stats_pages import Counter, StatsPage, TimedEvent
from webproxy.telemetry.metrics import (
    FIRST_BYTE_TIMES,
    FROM_CACHE,
    FROM_ORIGIN,
    HOT,
    NOT_LOOKED_AT,
    OUTCOMES,
    REQUEST_TIMES,
    REQUESTS,
    SAVED,
    SAVED_BYTES,
    SCHEMA,
    SENT_BYTES,
    STATUSES,
    WITHOUT_ORIGIN,
)
from webproxy.telemetry.requests import CACHED, CacheResult, RequestRecord
from webproxy.telemetry.top_counts import TopCounts

NoteHot: TypeAlias = Callable[[int, int], None]
"""Count a response that the hot table had, with the bytes sent and the nanoseconds it took."""

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
    if outcome in FROM_CACHE or (cache in CACHED and outcome not in FROM_ORIGIN):
        return "cache"
    return "origin" if outcome in FROM_ORIGIN or cache is not CacheResult.NONE else "proxy"


def status_class(status: int) -> int:
    """The index of a status in STATUSES; 0 is that of no answer."""
    return status // 100 - 2 if 200 <= status < 600 else len(STATUSES) - 1


class RequestCounts:
    """Thread-safe; nothing blocks. Counts since this process began are those that the page did not have before."""

    def __init__(self, page: StatsPage, protocol: str, origin: str = "", top: TopCounts | None = None) -> None:
        """`origin` is that of a request whose record does not say one; empty if there is none."""
        self._page = page
        self._protocol = protocol
        self._origin = origin
        self.top = top
        self._events: dict[tuple[str, str, int], TimedEvent] = {}
        """By outcome, origin and status class."""
        self._saved: dict[str, tuple[Counter, Counter]] = {}
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
        self.note_hot = tuple(self.noting_hot(origin, at) for at in range(len(STATUSES)))
        """By status class, of this origin."""
        self._before = self._values()

    def noting_hot(self, origin: str, status_class: int) -> NoteHot:
        """What counts hot responses of one origin and status class."""
        return self.hot_event(origin, status_class).note

    def hot_event(self, origin: str, status_class: int) -> TimedEvent:
        """What noting_hot() counts in."""
        return self._event(HOT, origin, status_class)

    def _event(self, outcome: str, origin: str, status_class: int) -> TimedEvent:
        """Of an outcome whose bytes come from the cache, and that needs no origin."""
        at = outcome, origin, status_class
        event = self._events.get(at)
        if event is None:
            sent, times = (SENT_BYTES, "cache"), (REQUEST_TIMES, self._protocol, outcome)
            count = REQUESTS, self._protocol, outcome, STATUSES[status_class]
            label = self._page.row("origins", origin) if origin else ""
            also = ((SAVED, label), (SAVED_BYTES, label)) if label else ()
            if label != origin:
                return self._event(outcome, label, status_class)  # one of many that share a row
            event = self._events.setdefault(at, self._page.timed_event(count, sent, times, *also))
        return event

    @classmethod
    def private(cls, protocol: str) -> RequestCounts:
        """Counts that nobody else sees."""
        return cls(StatsPage.private(SCHEMA), protocol)

    def note(self, record: RequestRecord, ends_fd: int = -1) -> None:
        """Count a request whose record is complete; `ends_fd` is its connection, if that ends with it."""
        if self.top is not None and ends_fd >= 0:
            from_cache = record.sent_bytes if record.is_from_cache else 0
            self.top.note_connection(ends_fd, record.sent_bytes, 1, int(record.is_saved), from_cache)
        origin = record.origin or self._origin
        if record.outcome == "hit":  # most of them: the same at a third of the cost
            event = self._event("hit", origin, status_class(record.status))
            event.note(max(0, record.sent_bytes), record.total_ns)
            if record.first_byte_ns:
                self._hit_first_bytes.observe(record.until_first_byte_ns)
            return
        outcome = outcome_of(record)
        source, sent_bytes = source_of(outcome, record.cache), max(0, record.sent_bytes)
        self._counters[outcome][status_class(record.status)].add()
        self._bytes[source].add(sent_bytes)
        if origin and (outcome in WITHOUT_ORIGIN or source == "cache"):
            saved, saved_bytes = self._saved_of(origin)
            saved.add(outcome in WITHOUT_ORIGIN)
            saved_bytes.add(sent_bytes if source == "cache" else 0)
        if self.top is not None and outcome in FROM_ORIGIN and record.method == b"GET":
            self.top.note_missed(record.target, sent_bytes)
        self._times[outcome].observe(record.total_ns)
        if record.first_byte_ns:
            self._first_bytes[outcome].observe(record.until_first_byte_ns)

    def _saved_of(self, origin: str) -> tuple[Counter, Counter]:
        label = self._page.row("origins", origin)
        found = self._saved.get(label)
        if found is None:
            found = self._saved[label] = self._page.counter(SAVED, label), self._page.counter(SAVED_BYTES, label)
        return found

    def note_unrecorded(self, outcome: str) -> None:
        """Count a request that ended without a record, as its client had gone before anything was sent."""
        self._counters[_LABELS.get(outcome, outcome)][status_class(0)].add()

    def note_not_looked_at(self, status: int) -> None:
        """Count a client that was told why its request, if there is one, is not looked at."""
        self._counters[NOT_LOOKED_AT][status_class(status)].add()

    def flush(self) -> None:
        """Bring the page up to date with hits; for one thread at a time."""
        for event in list(self._events.values()):
            event.flush()
        if self.top is not None:
            self.top.flush()

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
