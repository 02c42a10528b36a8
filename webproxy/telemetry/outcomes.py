"""Outcomes of requests, counted; and failures, also logged, at a bounded rate."""

from __future__ import annotations

import logging
import threading
from collections import Counter

from webproxy.errors import BodyCutShort, ClientGone

log = logging.getLogger(__name__)

QUIET_SECONDS = 60.0


class Outcomes:
    """The outcomes of all requests. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._totals: Counter[str] = Counter()

    def note(self, outcome: str) -> int:
        """Count one request with this outcome; returns how many have had it."""
        with self._lock:
            self._totals[outcome] += 1
            return self._totals[outcome]

    def totals(self) -> dict[str, int]:
        """The counts by outcome."""
        with self._lock:
            return dict(self._totals)


def broken_off(path: bytes, error: ClientGone | BodyCutShort) -> str:
    """The outcome of a request whose response did not reach its end; the source's fault is also logged."""
    if not isinstance(error, BodyCutShort):
        return "client gone"
    log.warning("body cut short", extra={"path": path, "reason": str(error)})
    return "cut short"


class RequestFailures:
    """A cache or origin that is down fails every request: each is counted, and the log limits its lines by `kind`.

    Thread-safe.
    """

    def __init__(self) -> None:
        self._counts = Outcomes()
        self.totals = self._counts.totals

    def note(self, path: bytes, error: Exception) -> None:
        """Count one failed request for this path, and log it."""
        kind = type(error).__name__
        facts = {"path": path, "reason": str(error), "kind": kind, "failed": self._counts.note(kind)}
        log.warning("request failed", extra=facts)
