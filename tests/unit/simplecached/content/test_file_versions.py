"""The version of a file on disk."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from simplecached.content.static import version_of


@settings(deadline=None)
@given(st.tuples(*[st.integers(min_value=-(2**63), max_value=2**64 - 1)] * 4))
def test_a_file_has_a_version_of_64_bits(facts: tuple[int, int, int, int]) -> None:
    assert 1 <= version_of(facts) < 2**64


def test_each_fact_of_a_file_changes_its_version() -> None:
    facts = [(1, 2, 3, 4), (2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)]
    assert len({version_of(each) for each in facts}) == 5
