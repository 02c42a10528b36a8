from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from simplecached.stores.versions import VersionClock, version_of_file


@settings(deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=2**62), min_size=1), st.integers(min_value=0, max_value=2**62))
def test_versions_rise_whatever_the_clock_does(times_ns: list[int], floor: int) -> None:
    times = iter(times_ns)
    clock = VersionClock(floor, now_ns=lambda: next(times))
    versions = [clock.next() for _ in times_ns]
    assert versions == sorted(set(versions))
    assert versions[0] > floor


def test_two_starts_differ() -> None:
    assert VersionClock().next() < VersionClock().next()


@settings(deadline=None)
@given(st.tuples(*[st.integers(min_value=-(2**63), max_value=2**64 - 1)] * 4))
def test_a_file_has_a_version_of_64_bits(facts: tuple[int, int, int, int]) -> None:
    assert 1 <= version_of_file(*facts) < 2**64


def test_each_fact_of_a_file_changes_its_version() -> None:
    facts = (1, 2, 3, 4)
    changed = [tuple(fact + (place == index) for place, fact in enumerate(facts)) for index in range(4)]
    assert len({version_of_file(*each) for each in [facts, *changed]}) == 5
