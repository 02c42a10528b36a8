"""Histograms as values: what percentiles, sums and differences say of counts."""

import pytest

from shmchannel.errors import UsageError
from shmchannel.stats_pages import LATENCY, Buckets, Histogram
from tests.support.stats_pages import histogram_of

SMALL = Buckets(shift=0, octaves=2)


def test_small_buckets() -> None:
    """Eight of one step, then eight of one step, then eight of two, and what is beyond."""
    bounds = [SMALL.lower(index) for index in range(SMALL.size)]
    assert bounds == [*range(16), 16, 18, 20, 22, 24, 26, 28, 30, 32]
    assert [SMALL.index_of(value) for value in (0, 7, 8, 15, 16, 17, 18, 31, 32, 10**9)] == [
        0, 7, 8, 15, 16, 16, 17, 23, 24, 24,
    ]  # fmt: skip


def test_latencies_reach_from_a_microsecond_to_minutes() -> None:
    assert LATENCY.lower(1) == 1024
    assert LATENCY.lower(LATENCY.size - 1) > 18 * 60 * 10**9


def test_nothing_counted() -> None:
    empty = histogram_of(SMALL)
    assert (empty.count, empty.total, empty.mean(), empty.percentile(50)) == (0, 0, None, None)


def test_percentiles() -> None:
    values = histogram_of(SMALL, *range(10))
    assert values.mean() == 4.5
    assert [values.percentile(percent) for percent in (0, 10, 50, 90, 100)] == [0.5, 0.5, 4.5, 8.5, 9.5]


def test_of_what_is_too_large_the_lower_bound_is_told() -> None:
    assert histogram_of(SMALL, 10**6).percentile(50) == 32


def test_what_happened_since() -> None:
    earlier, later = histogram_of(SMALL, 1, 2), histogram_of(SMALL, 1, 2, 2, 9)
    assert later.since(earlier) == histogram_of(SMALL, 2, 9)
    assert earlier.since(later) == histogram_of(SMALL), "the page was made anew: nothing, never less"


def test_unequal_buckets_do_not_mix() -> None:
    with pytest.raises(UsageError, match="divided differently"):
        histogram_of(SMALL).merged(Histogram.of(LATENCY, [0] * (LATENCY.size + 1)))
    with pytest.raises(UsageError, match="divided differently"):
        histogram_of(SMALL).since(Histogram.of(LATENCY, [0] * (LATENCY.size + 1)))
