"""Outcomes: how many requests ended how."""

from __future__ import annotations

import threading
from collections import Counter


class Outcomes:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()

    def note(self, outcome: str) -> None:
        """One request ended so."""
        with self._lock:
            self._totals[outcome] += 1

    def totals(self) -> dict[str, int]:
        """How many of each there were."""
        with self._lock:
            return dict(self._totals)
