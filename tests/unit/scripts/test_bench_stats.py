"""Ratios and verdicts: what the speed table says has to follow from the figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.benchmark.rows import FAIRNESS_ROW, MEMORY_TARGET, ROWS
from scripts.benchmark.stats import Target, compare, rotations

figures = st.floats(min_value=0.001, max_value=1e9)


class TestCompare:
    def test_medians_and_ratio_of_each_round(self):
        comparison = compare([10, 30, 20], [10, 10, 10])
        assert (comparison.ours, comparison.other) == (20, 10)
        assert (comparison.ratio_low, comparison.ratio, comparison.ratio_high) == (1, 2, 3)
        assert comparison.round_count == 3

    def test_a_machine_that_slows_down_does_not_move_the_ratio(self):
        speed = [100, 80, 50, 30, 20]
        assert compare([0.8 * each for each in speed], speed).ratio == pytest.approx(0.8)

    def test_one_disturbed_round_does_not_move_the_ratio(self):
        assert compare([8, 8, 1, 8, 8], [10, 10, 10, 10, 10]).ratio == 0.8

    @given(st.lists(st.tuples(figures, figures), min_size=1, max_size=9))
    def test_the_ratio_lies_between_its_bounds(self, rounds):
        comparison = compare([ours for ours, _ in rounds], [other for _, other in rounds])
        assert comparison.ratio_low <= comparison.ratio <= comparison.ratio_high

    @pytest.mark.parametrize(
        ("ours", "other"), [([], []), ([1], []), ([1], [1, 2]), ([0], [1]), ([1], [0]), ([-1], [1])]
    )
    def test_refuses_what_is_no_measurement(self, ours, other):
        with pytest.raises(ValueError, match=r"round|figure"):
            compare(ours, other)


class TestTarget:
    @pytest.mark.parametrize(("value", "verdict"), [(0.75, "ok"), (0.9, "ok"), (0.749, "below")])
    def test_at_least(self, value, verdict):
        assert Target(value=0.75).verdict(value) == verdict

    @pytest.mark.parametrize(("value", "verdict"), [(45, "ok"), (20, "ok"), (45.1, "above")])
    def test_at_most(self, value, verdict):
        assert Target(value=45, is_maximum=True).verdict(value) == verdict

    def test_text(self):
        assert Target(value=0.75).text("x") == "≥ 0.75 x"
        assert MEMORY_TARGET.text("MB") == "≤ 45 MB"


def test_rows_have_keys_of_their_own():
    keys = [row.key for row in ROWS] + [FAIRNESS_ROW.key]
    assert len(set(keys)) == len(keys)


def test_rotations_let_each_go_first_in_its_turn():
    assert rotations(("a", "b", "c"), 4) == [("a", "b", "c"), ("b", "c", "a"), ("c", "a", "b"), ("a", "b", "c")]
