"""LatencyBreakdown: the steps of a hit and their times. Off by default; each worker sums separately."""

from __future__ import annotations

import threading
from time import monotonic_ns

STEPS = ("accept", "lease", "queue", "cache", "send")


class LatencyBreakdown:
    """Sums of nanoseconds by step, and the number of requests they belong to. mark() ends the step it names."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._local = threading.local()
        self._all: list[dict[str, int]] = []

    def start(self, since_ns: int = 0) -> None:
        """A request begins, now or at `since_ns` (monotonic); its first step starts."""
        if not hasattr(self._local, "sums"):
            self._local.sums = dict.fromkeys((*STEPS, "requests"), 0)
            self._all.append(self._local.sums)
        self._local.sums["requests"] += 1
        self._local.since = since_ns or monotonic_ns()

    def mark(self, step: str) -> None:
        """The step ends and the next begins."""
        since = getattr(self._local, "since", 0)
        if since:
            now = monotonic_ns()
            self._local.sums[step] += now - since
            self._local.since = now

    def total(self) -> dict[str, int]:
        """The sums of all workers."""
        return {name: sum(sums[name] for sums in self._all) for name in (*STEPS, "requests")}
