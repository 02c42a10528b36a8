"""The window of readings that figures span."""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.overviews import SECOND_NS, page, reading
from webproxy.admin.overview import Overview
from webproxy.monitor.history import CURVE_READINGS, WINDOW_READINGS, History
from webproxy.telemetry.metrics import REQUESTS


def overviews() -> Iterator[Overview]:
    """One a second, in the n-th of which there are n more requests."""
    total = 0
    for second in range(1000):
        total += second
        yield reading(second, page({(REQUESTS, "http", "hit", "2xx"): total})).overview


def test_figures_span_a_window_and_the_curve_each_reading() -> None:
    seconds = iter(range(1000))
    taken = overviews()
    history = History(lambda: next(taken), lambda: next(seconds) * SECOND_NS)
    first = history.look()
    assert (first.interval_s, first.traffic.requests_per_s, history.curve) == (None, None, ())
    second = history.look()
    assert (second.interval_s, second.traffic.requests_per_s, history.curve) == (1, 1, (1,))
    for _ in range(2, 10):
        last = history.look()
    assert last.interval_s == WINDOW_READINGS
    assert last.traffic.requests_per_s == sum(range(5, 10)) / 5
    assert history.curve == tuple(range(1, 10))
    for _ in range(10, 200):
        history.look()
    assert history.curve == tuple(range(200 - CURVE_READINGS, 200))
