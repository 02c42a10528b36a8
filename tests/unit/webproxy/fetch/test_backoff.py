"""retry: are the pauses bounded, growing and spread?"""

from __future__ import annotations

import pytest

from webproxy.fetch.state import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, pause_before_try


def test_the_first_try_is_at_once() -> None:
    assert pause_before_try(0, 0.99) == 0.0


def test_pauses_double_up_to_the_longest() -> None:
    longest = [pause_before_try(number, 1.0) for number in range(1, 12)]
    assert longest[:3] == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS]
    assert longest == sorted(longest)
    assert longest[-1] == LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize("number", [1, 3, 20, 10_000])
def test_jitter_spreads_a_pause_over_its_upper_half(number: int) -> None:
    shortest, middle, longest = (pause_before_try(number, jitter) for jitter in (0.0, 0.5, 1.0))
    assert shortest == pytest.approx(longest / 2)
    assert middle == pytest.approx(longest * 0.75)
