"""PURE: outcomes of requests → a report.

A recorder belongs to one thread; those of several threads are merged afterwards. Latencies of all requests are
recorded, including failed ones, so that a server cannot look fast by failing.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Self

from hdrh.histogram import HdrHistogram

from workloads.gfclient.outcome import Outcome

_LATENCY_US_MAX = 3_600_000_000
_SIGNIFICANT_DIGITS = 3
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


@dataclass(frozen=True, slots=True)
class Report:
    """The numbers of one run; a megabyte is 10^6 bytes, latency keys are `p50` ... `p99.99` and `max`."""

    requests: int
    served: int
    failed: int
    statuses: dict[str, int]
    failures: dict[str, int]
    received_bytes: int
    elapsed_s: float
    requests_per_s: float
    megabytes_per_s: float
    latency_ms: dict[str, float]


class Recorder:
    """Counts outcomes and their latencies."""

    def __init__(self) -> None:
        self._latencies_us = HdrHistogram(1, _LATENCY_US_MAX, _SIGNIFICANT_DIGITS)
        self._statuses: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._received_bytes = 0
        self._requests = 0
        self._served = 0

    def add(self, outcome: Outcome, latency_s: float) -> None:
        """Count one request that took `latency_s` from when it was due to its last byte or its failure."""
        self._requests += 1
        self._served += outcome.served
        self._received_bytes += outcome.received_bytes
        if outcome.status is not None:
            self._statuses[outcome.status.value] += 1
        if outcome.failure is not None:
            self._failures[outcome.failure.value] += 1
        self._latencies_us.record_value(min(max(round(latency_s * 1e6), 1), _LATENCY_US_MAX))

    def merge(self, other: Self) -> None:
        """Add everything that `other` has counted."""
        self._requests += other._requests
        self._served += other._served
        self._received_bytes += other._received_bytes
        self._statuses += other._statuses
        self._failures += other._failures
        self._latencies_us.add(other._latencies_us)

    def report(self, elapsed_s: float) -> Report:
        """Return the numbers of a run that lasted `elapsed_s`."""
        seconds = max(elapsed_s, 1e-9)
        return Report(
            requests=self._requests,
            served=self._served,
            failed=self._requests - self._served,
            statuses=dict(sorted(self._statuses.items())),
            failures=dict(sorted(self._failures.items())),
            received_bytes=self._received_bytes,
            elapsed_s=elapsed_s,
            requests_per_s=self._requests / seconds,
            megabytes_per_s=self._received_bytes / seconds / 1e6,
            latency_ms=self._latency_ms(),
        )

    def _latency_ms(self) -> dict[str, float]:
        if not self._requests:
            return {}
        histogram = self._latencies_us
        values = {f"p{percent:g}": histogram.get_value_at_percentile(percent) / 1e3 for percent in PERCENTILES}
        values["max"] = histogram.get_max_value() / 1e3
        return values
