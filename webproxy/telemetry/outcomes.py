"""Outcomes of requests, counted; and failures, also logged, at a bounded rate."""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable
from time import monotonic

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
    """A cache or origin that is down fails every request: one line a minute for each kind of error, with its count.

    Each request has a line of its own at debug level. Thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = Outcomes()
        self._quiet_until: dict[str, float] = {}
        self.totals = self._counts.totals

    def note(self, path: bytes, error: Exception) -> None:
        """Count one failed request for this path."""
        kind = type(error).__name__
        now = self._clock()
        facts = {"path": path, "reason": str(error), "kind": kind, "failed": self._counts.note(kind)}
        with self._lock:
            quiet = now < self._quiet_until.get(kind, -math.inf)
            if not quiet:
                self._quiet_until[kind] = now + QUIET_SECONDS
        if quiet:
            log.debug("request failed", extra=facts)
        else:
            log.warning("request failed", extra=facts)
