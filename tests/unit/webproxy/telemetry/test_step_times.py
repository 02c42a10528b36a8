"""LatencyBreakdown: does each worker's time add up, and is the clock passed from step to step?"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import monotonic_ns

from webproxy.telemetry.step_times import STEPS, LatencyBreakdown


def test_steps_of_all_workers_are_summed() -> None:
    times = LatencyBreakdown(enabled=True)
    together = Barrier(4)

    def work() -> int:
        together.wait(30)
        first = monotonic_ns()
        for _ in range(10):
            times.start()
            for step in STEPS:
                times.mark(step)
        return monotonic_ns() - first

    with ThreadPoolExecutor(4) as crew:
        spent = sum(result.result() for result in [crew.submit(work) for _ in range(4)])
    total = times.total()
    assert total["requests"] == 40
    assert set(total) == {*STEPS, "requests"}
    assert all(total[step] > 0 for step in STEPS)
    assert sum(total[step] for step in STEPS) <= spent


def test_a_step_outside_of_a_request_counts_nothing() -> None:
    times = LatencyBreakdown(enabled=True)
    times.mark("send")
    assert times.total() == dict.fromkeys((*STEPS, "requests"), 0)


def test_a_request_may_have_begun_earlier() -> None:
    times = LatencyBreakdown(enabled=True)
    times.start(monotonic_ns() - 5_000_000_000)
    times.mark("accept")
    assert times.total()["accept"] >= 5_000_000_000
