"""PURE: log-linear histograms: where a value is counted, and what the counts say (normative text: docs/protocol.md 10).

Values are whole numbers. They are counted in steps of 2**shift: the first eight buckets are one step wide each, and
from there on each power of two is divided into eight buckets of equal width. So a bucket is at most an eighth as wide
as its lower bound, over `octaves` powers of two; what lies beyond is counted in one last bucket.

    shift 10, nanoseconds:   0..1 µs  1..2 µs  ...  7..8 µs | 8..9 µs ... 15..16 µs | 16..18 µs ... 30..33 µs | ...

Such histograms can be added and subtracted, which percentiles cannot: those of several workers become one, and two
readings of one page become what happened between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple, Self

from shmchannel.errors import UsageError

SUB_BITS = 3
"""An octave is divided into 2**SUB_BITS buckets."""
SUBS = 1 << SUB_BITS
OCTAVES_MAX = 60


class Buckets(NamedTuple):
    """How values are divided; the defaults suit nanoseconds from one microsecond to eighteen minutes."""

    shift: int = 10
    octaves: int = 27

    @property
    def size(self) -> int:
        """The number of buckets, the last one for everything too large included."""
        return SUBS * (self.octaves + 1) + 1

    def index_of(self, value: int) -> int:
        """The bucket of a value that is not negative."""
        steps = value >> self.shift
        octave = max(0, steps.bit_length() - SUB_BITS - 1)
        return min((octave << SUB_BITS) + (steps >> octave), self.size - 1)

    def lower(self, index: int) -> int:
        """The lower bound of a bucket; that of the next one is its upper bound, which does not belong to it."""
        octave = max(0, (index >> SUB_BITS) - 1)
        return (index - (octave << SUB_BITS)) << octave << self.shift


LATENCY = Buckets()


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bucket, and the sum of the values: a plain value that nobody changes.

    Read while it was written, the sum may lack a value that is counted already, or the other way round.
    """

    buckets: Buckets
    counts: tuple[int, ...]
    total: int

    @classmethod
    def of(cls, buckets: Buckets, cells: Sequence[int]) -> Self:
        """From the cells of its row: the sum, then the counts."""
        return cls(buckets, tuple(cells[1:]), cells[0])

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)

    def mean(self) -> float | None:
        """The mean of the values; None if there is none."""
        count = self.count
        return self.total / count if count else None

    def percentile(self, percent: float) -> float | None:
        """The value below or at which `percent` of the values lie; None if there is none.

        It is the middle of a bucket: off by at most 1/16 of the true value or half a step, whichever is more. Of values
        too large for all buckets only the lower bound is known.
        """
        rank = max(1, ceil(self.count * percent / 100))
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if seen >= rank:
                low = self.buckets.lower(index)
                return low if index == self.buckets.size - 1 else (low + self.buckets.lower(index + 1)) / 2
        return None

    def merged(self, other: Histogram) -> Histogram:
        """The values of both.

        Raises:
            UsageError: they are divided differently.
        """
        self._check(other)
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Histogram(self.buckets, counts, self.total + other.total)

    def since(self, earlier: Histogram) -> Histogram:
        """The values that came after an earlier reading of the same histogram; never fewer than none.

        Raises:
            UsageError: they are divided differently.
        """
        self._check(earlier)
        counts = tuple(max(0, now - then) for now, then in zip(self.counts, earlier.counts, strict=True))
        return Histogram(self.buckets, counts, max(0, self.total - earlier.total))

    def _check(self, other: Histogram) -> None:
        if self.buckets != other.buckets:
            raise UsageError(f"histograms divided differently: {self.buckets} and {other.buckets}")
