"""When requests are due."""

import pytest

from workloads.gfclient.pacer import ClosedLoop, ConstantRate


def test_a_constant_rate_does_not_look_at_the_clock() -> None:
    pacer = ConstantRate(4.0)
    assert [pacer.due_at(number, elapsed_s) for number, elapsed_s in [(0, 9.0), (1, 0.0), (8, 5.0)]] == [0.0, 0.25, 2.0]


def test_a_closed_loop_is_always_due_now() -> None:
    assert [ClosedLoop().due_at(number, 1.5) for number in range(3)] == [1.5, 1.5, 1.5]


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        ConstantRate(rate)
