"""History: the last readings of the monitor, and the figures of the time that they span.

Figures span up to WINDOW_READINGS intervals, so that they do not jump with each reading; the curve shows each of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from webproxy.admin.overview import Overview
from webproxy.monitor.figures import Figures, derive, requests_per_s
from webproxy.monitor.rates import Reading

WINDOW_READINGS = 5
CURVE_READINGS = 60


class History:
    """Keeps a bounded number of readings; for one thread."""

    def __init__(self, take: Callable[[], Overview], clock_ns: Callable[[], int]) -> None:
        """`take` looks at everything; `clock_ns` is monotonic."""
        self._take = take
        self._clock_ns = clock_ns
        self._readings: deque[Reading] = deque(maxlen=WINDOW_READINGS + 1)
        self._curve: deque[float | None] = deque(maxlen=CURVE_READINGS)

    @property
    def curve(self) -> Sequence[float | None]:
        """Requests in a second from each reading to the next, oldest first."""
        return tuple(self._curve)

    def look(self) -> Figures:
        """Take a reading; the figures are those since the oldest one that is kept, of the first since the start.

        Raises:
            OSError: shared memory cannot be listed.
        """
        at_ns = self._clock_ns()  # before: what begins while it is taken began later
        now = Reading(at_ns, self._take())
        if self._readings:
            self._curve.append(requests_per_s(self._readings[-1], now))
        self._readings.append(now)
        return derive(self._readings[0] if len(self._readings) > 1 else None, now)
