"""Outcomes to numbers."""

import pytest

from webproxy.getfile import Status, Violation
from workloads.gfclient.outcome import Failure, Outcome, remedy_for
from workloads.gfclient.recorder import Recorder

SERVED = Outcome(b"/a", Status.OK, 1_000_000)
MISSING = Outcome(b"/b", Status.FILE_NOT_FOUND, 0, Failure.FILE_NOT_FOUND, "")
SHORT = Outcome(b"/c", Status.OK, 500_000, Failure.SHORT_BODY, "")
GARBLED = Outcome(b"/d", None, 0, Violation.BAD_SCHEME, "")


def test_counts_rates_statuses_and_failures() -> None:
    recorder = Recorder()
    for outcome in (SERVED, SERVED, MISSING, SHORT, GARBLED):
        recorder.add(outcome, 0.001)
    report = recorder.report(elapsed_s=2.0)
    assert (report.requests, report.served, report.failed) == (5, 2, 3)
    assert report.statuses == {"FILE_NOT_FOUND": 1, "OK": 3}
    assert report.failures == {"bad-scheme": 1, "file-not-found": 1, "short-body": 1}
    assert report.received_bytes == 2_500_000
    assert report.requests_per_s == pytest.approx(2.5)
    assert report.megabytes_per_s == pytest.approx(1.25)


def test_percentiles_are_within_a_thousandth() -> None:
    recorder = Recorder()
    for milliseconds in range(1, 10_001):
        recorder.add(SERVED, milliseconds / 1e3)
    latency_ms = recorder.report(1.0).latency_ms
    assert list(latency_ms) == ["p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99", "max"]
    for name, expected in [("p50", 5_000), ("p90", 9_000), ("p99", 9_900), ("p99.9", 9_990), ("p99.99", 9_999)]:
        assert latency_ms[name] == pytest.approx(expected, rel=1e-3)
    assert latency_ms["max"] == pytest.approx(10_000, rel=1e-3)


@pytest.mark.parametrize("latency_s", [-1.0, 0.0, 1e-9, 1e9])
def test_latencies_out_of_range_are_kept_at_its_ends(latency_s: float) -> None:
    recorder = Recorder()
    recorder.add(SERVED, latency_s)
    assert recorder.report(1.0).latency_ms["max"] == pytest.approx(0.001 if latency_s < 1 else 3_600_000, rel=1e-3)


def test_merged_recorders_report_as_one() -> None:
    one, first, second = Recorder(), Recorder(), Recorder()
    for number, outcome in enumerate([SERVED, MISSING, SHORT, GARBLED, SERVED]):
        one.add(outcome, number / 100)
        (first, second)[number % 2].add(outcome, number / 100)
    first.merge(second)
    assert first.report(3.0) == one.report(3.0)


def test_nothing_recorded_is_a_report_too() -> None:
    report = Recorder().report(0.0)
    assert (report.requests, report.requests_per_s, report.latency_ms) == (0, 0.0, {})


@pytest.mark.parametrize("kind", [*Failure, *Violation])
def test_every_failure_has_a_remedy(kind: Failure | Violation) -> None:
    assert remedy_for(kind)
