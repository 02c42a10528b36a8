"""UploadRate: silence and the minimum rate count while the client is waited for, and only then."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.support.streams import NO_LIMIT
from webproxy.transport.client_rate import RateLimit, TooSlow, UploadLimits, UploadRate

LIMITS = UploadLimits(10.0, RateLimit(100, 30.0))


def test_silence() -> None:
    rate = UploadRate(LIMITS, 7)
    assert rate.wait(1000.0, 7) == 10.0
    assert rate.wait(1004.0, 7) == 6.0
    assert rate.wait(1005.0, 8) == 10.0
    assert rate.wait(1014.0, 8) == 1.0
    assert rate.wait(1015.0, 8) == TooSlow("nothing of the request's body for 10 s")


def test_a_byte_now_and_then_is_too_slow_at_the_end_of_the_window() -> None:
    rate = UploadRate(LIMITS, 0)
    for second in range(0, 30, 3):
        assert rate.wait(second, second) == min(10.0, 30.0 - second)
    assert rate.wait(30.0, 30) == TooSlow("30 bytes of the request's body in 30 s")


def test_each_window_needs_the_rate() -> None:
    rate = UploadRate(LIMITS, 0)
    for second in range(0, 31, 3):
        assert not isinstance(rate.wait(second, 1000 * second), TooSlow)
    for second in range(33, 60, 3):
        assert not isinstance(rate.wait(second, 30_000 + second), TooSlow)
    assert isinstance(rate.wait(60, 32_999), TooSlow)


def test_without_a_minimum_rate_only_silence_counts() -> None:
    rate = UploadRate(UploadLimits(10.0, NO_LIMIT), 0)
    assert all(rate.wait(9.0 * step, step) == 10.0 for step in range(100))


def test_our_own_pauses_do_not_count() -> None:
    rate = UploadRate(LIMITS, 0)
    now = 0.0
    for step in range(29):
        assert rate.wait(now, step) == min(10.0, 30.0 - step)
        now += 1.0
        rate.pause(now)
        rate.pause(now + 5.0)
        now += 3600.0
    assert rate.wait(now, 29) == 1.0
    assert isinstance(rate.wait(now + 1.0, 30), TooSlow)


class Uploading(RuleBasedStateMachine):
    """A client, a clock, and a model that remembers every moment of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = UploadRate(LIMITS, 0)
        self.now = 0.0
        self.received = 0
        self.is_waiting = False
        self.silent_s = self.waited_s = 0.0
        self.window_bytes = self.unseen = 0
        self.is_over = False

    @rule(seconds=st.integers(0, 12))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        if self.is_waiting:
            self.waited_s += seconds
            self.silent_s += seconds

    @rule(count=st.integers(1, 4000))
    def bytes_come(self, count: int) -> None:
        self.received += count
        self.unseen += count

    @precondition(lambda self: not self.is_over)
    @rule()
    def waits(self) -> None:
        if not self.is_waiting or self.unseen:
            self.silent_s = 0.0
        self.window_bytes, self.unseen, self.is_waiting = self.window_bytes + self.unseen, 0, True
        said = self.rate.wait(self.now, self.received)
        is_short = self.waited_s >= 30.0 and self.window_bytes < 3000
        assert isinstance(said, TooSlow) is (self.silent_s >= 10.0 or is_short)
        self.is_over = isinstance(said, TooSlow)
        if self.waited_s >= 30.0:
            self.waited_s, self.window_bytes = 0.0, 0
        assert isinstance(said, TooSlow) or said == min(10.0 - self.silent_s, 30.0 - self.waited_s)

    @precondition(lambda self: not self.is_over)
    @rule()
    def pauses(self) -> None:
        self.is_waiting = False
        self.rate.pause(self.now)


TestUploading = Uploading.TestCase
