"""Histograms against the values themselves: every value in its bucket, percentiles within their bound, sums exact."""

from __future__ import annotations

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from shmchannel.stats_pages import Buckets
from tests.support.stats_pages import histogram_of

_BUCKETS = st.builds(Buckets, shift=st.integers(0, 12), octaves=st.integers(0, 40))
_VALUE = st.one_of(st.integers(0, 100), st.integers(0, 2**20), st.integers(0, 2**60))


@given(buckets=_BUCKETS, value=_VALUE)
def test_a_value_lies_in_its_bucket(buckets: Buckets, value: int) -> None:
    """Between its bounds, as the definition says it and as the counting code finds it."""
    index = buckets.index_of(value)
    assert 0 <= index < buckets.size
    assert buckets.lower(index) <= value
    if index < buckets.size - 1:
        assert value < buckets.lower(index + 1)
    counted = histogram_of(buckets, value)
    assert counted.counts.index(1) == index
    assert (counted.count, counted.total) == (1, value)


@given(buckets=_BUCKETS)
def test_buckets_are_narrow_and_without_a_gap(buckets: Buckets) -> None:
    """None is wider than a step or an eighth of its lower bound, whichever is more."""
    assert buckets.lower(0) == 0
    for index in range(buckets.size - 1):
        low, high = buckets.lower(index), buckets.lower(index + 1)
        assert 0 < high - low <= max(1 << buckets.shift, low / 8)


@given(
    buckets=st.builds(Buckets, shift=st.integers(0, 12), octaves=st.just(50)),
    values=st.lists(st.integers(0, 2**50), min_size=1, max_size=50),
    percent=st.floats(0, 100),
)
def test_percentiles_are_off_by_a_sixteenth_at_most(buckets: Buckets, values: list[int], percent: float) -> None:
    true = sorted(values)[max(1, ceil(len(values) * percent / 100)) - 1]
    told = histogram_of(buckets, *values).percentile(percent)
    assert told is not None
    assert abs(told - true) <= max((1 << buckets.shift) / 2, true / 16)


@given(buckets=_BUCKETS, first=st.lists(_VALUE, max_size=20), second=st.lists(_VALUE, max_size=20))
def test_merging_is_counting_together(buckets: Buckets, first: list[int], second: list[int]) -> None:
    """In either order; and the difference of two readings is what came between them."""
    one, other, both = (histogram_of(buckets, *values) for values in (first, second, first + second))
    assert one.merged(other) == other.merged(one) == both
    assert both.since(one) == other
