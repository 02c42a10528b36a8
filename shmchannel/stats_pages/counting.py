"""Counters, gauges and histograms of a page as its writer has them: counting from any thread, without a lock.

**Why no lock.** `cells[i] += n` reads a word, adds, and writes it back. CPython 3.11 to 3.13 hands the GIL to another
thread, runs a signal handler or collects garbage only where it checks for that: at calls, at backward jumps, and at the
beginning of a function. Between the read and the write of that statement there is none of these, provided that `cells`
is a memoryview (its subscripts run no Python code and allocate no container) and that `i` and `n` are a local variable,
a constant or an attribute in a slot, not a call. So no thread's count is lost, and a process that is killed leaves the
old value or the new one. A tracer that stops at single instructions would break this, and so would an interpreter
without GIL: is_reliable() says whether there is one. One process writes a page at a time; nothing makes two of them
agree.

A count is one call and costs 0.11 µs with CPython 3.11 (0.07 µs of it for the addition itself), a value in a histogram
0.3 µs. Cells are unsigned: what would make one negative or greater than 64 bits raises ValueError and changes nothing.
"""

from __future__ import annotations

import sys

from shmchannel.stats_pages.histogram import SUBS, Buckets

_TABLE_STEPS = 1024
_TABLE = tuple(Buckets(0, 27).index_of(steps) for steps in range(_TABLE_STEPS))
"""The buckets of the values that come most: looked up in a third of the time."""


def is_reliable() -> bool:
    """Whether counts of several threads are added up exactly: the interpreter has a GIL, and is switched by it."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


class Counter:
    """A number of events or bytes; it only rises."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: memoryview[int], at: int) -> None:
        self._cells = cells
        self._at = at

    def add(self, count: int = 1) -> None:
        """Count `count` more. Atomic; never blocks."""
        self._cells[self._at] += count

    @property
    def value(self) -> int:
        """The value now."""
        return self._cells[self._at]


class Gauge:
    """A value of now: one thread sets it, or many add and subtract."""

    __slots__ = ("_at", "_cells")

    def __init__(self, cells: memoryview[int], at: int) -> None:
        self._cells = cells
        self._at = at

    def set(self, value: int) -> None:
        """Replace the value, which is not negative."""
        self._cells[self._at] = value

    def add(self, count: int) -> None:
        """Change the value by `count`, which may be negative. Atomic; never blocks."""
        self._cells[self._at] += count

    @property
    def value(self) -> int:
        """The value now."""
        return self._cells[self._at]


class SampledTotal:
    """A counter whose events somebody else counts already, from 0 at the start of this process.

    What earlier writers of the page have counted stays in it.
    """

    __slots__ = ("_at", "_base", "_cells")

    def __init__(self, cells: memoryview[int], at: int) -> None:
        self._cells = cells
        self._at = at
        self._base = cells[at]

    def set(self, total: int) -> None:
        """So many so far in this process. For one thread at a time."""
        self._cells[self._at] = self._base + total


class HistogramCells:
    """A row of a histogram: the sum, and then the buckets."""

    __slots__ = ("_buckets", "_cells", "_first", "_shift", "_sum", "_table_steps")

    def __init__(self, cells: memoryview[int], at: int, buckets: Buckets) -> None:
        self._cells = cells
        self._sum = at
        self._first = at + 1
        self._buckets = buckets
        self._shift = buckets.shift
        self._table_steps = _table_steps(buckets)

    def observe(self, value: int) -> None:
        """Count a whole number, a negative one as 0. Atomic but for a reader, see Histogram; never blocks."""
        steps = value >> self._shift
        if 0 <= steps < self._table_steps:
            at = self._first + _TABLE[steps]
        else:
            value = max(0, value)
            at = self._first + self._buckets.index_of(value)
        cells = self._cells
        cells[at] += 1
        cells[self._sum] += value


class TimedEvent:
    """An event that is counted, weighed and timed by one call, for what happens tens of thousands of times a second.

    It is counted in a list of this process, whose additions are as atomic as those of cells and cost a third. flush()
    brings the page up to date; what came since is lost if the process is killed.
    """

    __slots__ = ("_also", "_at", "_buckets", "_cells", "_flushed", "_shift", "_table_steps", "counts")

    def __init__(
        self,
        cells: memoryview[int],
        count_at: int,
        amount_at: int,
        times_at: int,
        buckets: Buckets,
        also: tuple[int, ...] = (),
    ) -> None:
        """The cells of a counter, of another one for amounts, and of a histogram's row.

        `also` are those of counters for the count, and for the amount, that other events have a part in.
        """
        self._cells = cells
        self._also = also
        self._at = (count_at, amount_at, *range(times_at, times_at + 1 + buckets.size))
        self.counts = [0] * len(self._at)
        """The count, the amount, the sum of the values, and the buckets; note() is all that adds to them in Python."""
        self._flushed = [0] * len(self._at)
        self._buckets = buckets
        self._shift = buckets.shift
        self._table_steps = _table_steps(buckets)

    def note(self, amount: int, value: int) -> None:
        """Count it, with the amount, and `value` in the histogram as HistogramCells.observe() does; never blocks."""
        steps = value >> self._shift
        if 0 <= steps < self._table_steps:
            at = _TABLE[steps] + 3
        else:
            value = max(0, value)
            at = self._buckets.index_of(value) + 3
        counts = self.counts
        counts[0] += 1
        counts[1] += amount
        counts[2] += value
        counts[at] += 1

    def flush(self) -> None:
        """Add what has come since the last time to the page; for one thread at a time."""
        counts, flushed, cells = self.counts.copy(), self._flushed, self._cells
        if counts[0] == flushed[0]:
            return
        for number, at in enumerate(self._at):
            more = counts[number] - flushed[number]
            if more:
                cells[at] += more
        for number, at in enumerate(self._also):
            more = counts[number] - flushed[number]
            cells[at] += more
        self._flushed = counts


def _table_steps(buckets: Buckets) -> int:
    """Below so many steps the table is right: what it has is not beyond the last bucket."""
    return min(_TABLE_STEPS, SUBS << buckets.octaves)
