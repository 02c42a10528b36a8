"""Outcomes: counts requests by outcome."""

from __future__ import annotations

import threading
from collections import Counter


class Outcomes:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()

    def note(self, outcome: str) -> None:
        """Count one request with this outcome."""
        with self._lock:
            self._totals[outcome] += 1

    def totals(self) -> dict[str, int]:
        """The counts by outcome."""
        with self._lock:
            return dict(self._totals)
