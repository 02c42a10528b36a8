"""The step times in the log that the proxy writes for the benchmark."""

import json

import pytest

from scripts.benchmark.steps import step_times_in

SUMS = {
    "accept": 2_000_000,
    "lease": 1_000_000,
    "queue": 3_000_000,
    "cache": 3_000_000,
    "send": 1_000_000,
    "requests": 100,
}


def test_the_last_line_with_them_counts():
    older, line = (
        json.dumps({"event": "stopped", "step_times": sums, "level": "info"})
        for sums in ({"accept": 7, "requests": 1}, SUMS)
    )
    times = step_times_in(f"a traceback\n{older}\n{line}\nstopped\n")
    assert times is not None
    assert times.requests == 100
    assert times.microseconds["accept"] == 20
    assert times.shares == pytest.approx({"accept": 0.2, "lease": 0.1, "queue": 0.3, "cache": 0.3, "send": 0.1})


@pytest.mark.parametrize("sums", [None, {}, {"requests": 5}, {**SUMS, "requests": 0}])
def test_says_nothing_when_there_is_nothing(sums):
    log = "stopped" if sums is None else json.dumps({"event": "stopped", "step_times": sums})
    assert step_times_in(log) is None


def test_an_empty_log_has_no_steps():
    assert step_times_in("") is None
