"""LineLimit: how often an event may be written to a log whose lines strangers can cause. PURE.

Theory of operation
===================

Whatever a client or an origin does, an operator's disk must not fill, and the lines that matter must stay visible. So
an event is written once in a period for each kind, and the next line of that kind says how many were left out. A kind
is the event's text and, if the event has one, its `kind` field. What was left out last is told by rest(), at the end.

There are at most KINDS_MAX kinds with a count of their own; others share that of their event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KINDS_MAX: Final = 256
TRACEBACKS: Final = 10
"""Errors of ours are written so often in a period."""


@dataclass(slots=True)
class _Count:
    ends: float
    left: int
    suppressed: int = 0


class LineLimit:
    """Of one log; used under its lock."""

    def __init__(self, period_s: float) -> None:
        """`period_s` of 0 limits nothing."""
        self._period_s = period_s
        self._counts: dict[tuple[str, object], _Count] = {}

    def admit(self, event: str, kind: object, now: float, *, lines: int = 1) -> int | None:
        """How many lines of the kind were left out before this one; None if it is left out itself.

        `now` is monotonic; `lines` may be written in a period.
        """
        if self._period_s <= 0:
            return 0
        key = (event, kind)
        count = self._counts.get(key)
        if count is None and len(self._counts) >= KINDS_MAX:
            key = (event, None)
            count = self._counts.get(key)
        if count is None:
            self._counts[key] = _Count(now + self._period_s, lines - 1)
            return 0
        if now >= count.ends:
            suppressed, count.suppressed = count.suppressed, 0
            count.ends, count.left = now + self._period_s, lines - 1
            return suppressed
        if count.left > 0:
            count.left -= 1
            return 0
        count.suppressed += 1
        return None

    def rest(self) -> dict[str, int]:
        """How many lines of each event were left out and not told of; now they are."""
        told: dict[str, int] = {}
        for (event, _), count in self._counts.items():
            if count.suppressed:
                told[event] = told.get(event, 0) + count.suppressed
                count.suppressed = 0
        return told
