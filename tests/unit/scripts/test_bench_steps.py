"""The step times must be found in every form of the log that the proxy can write."""

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


@pytest.mark.parametrize(
    "line",
    [
        json.dumps({"event": "stopped", "step_times": SUMS, "level": "info"}),
        json.dumps({"step_times": SUMS}),
        f"2026-01-01T00:00:00Z [info] stopped step_times={SUMS}",
        f"stopped step_times={json.dumps(SUMS)} more=1",
        "stopped step_times=" + json.dumps(json.dumps(SUMS)),
        "step_times: " + json.dumps(SUMS),
    ],
)
def test_reads_every_form(line):
    times = step_times_in(f"listening port=1\n{line}\nstopped\n")
    assert times is not None
    assert times.requests == 100
    assert times.microseconds["accept"] == 20
    assert times.shares == pytest.approx({"accept": 0.2, "lease": 0.1, "queue": 0.3, "cache": 0.3, "send": 0.1})


@pytest.mark.parametrize(
    "text", ["", "stopped", "step_times={}", "step_times={broken", "step_times={1+}", 'step_times={"requests": 5}']
)
def test_says_nothing_when_there_is_nothing(text):
    assert step_times_in(text) is None


def test_a_proxy_that_served_nobody_has_no_steps():
    assert step_times_in(f"step_times={json.dumps({**SUMS, 'requests': 0})}") is None
