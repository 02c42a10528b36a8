"""TopCounts: which paths the cache misses most, in a bounded number of rows of the stats page.

Only requests that an origin has answered are counted. The threads that answer these put a path into a queue; once a
second one thread brings what has come into the page, which decides what has a row (shmchannel.stats_pages.heaviest).
"""

from __future__ import annotations

from collections import deque
from typing import Final

from shmchannel.stats_pages import StatsPage
from shmchannel.stats_pages.heaviest import HeaviestRows
from webproxy.telemetry.metrics import MISSED, MISSED_BYTES, PATHS
from webproxy.telemetry.shown_names import shown_path

NOTED_MAX: Final = 10_000
"""In a second. Of more the oldest are not counted: the figures then are of a sample."""


class TopCounts:
    """Noting is for any thread and never blocks."""

    def __init__(self, page: StatsPage) -> None:
        self._paths = HeaviestRows(page, PATHS, MISSED, MISSED_BYTES)
        self._missed: deque[tuple[str, int]] = deque(maxlen=NOTED_MAX)

    def note_missed(self, target: bytes, sent_bytes: int) -> None:
        """An origin has answered a GET for this target."""
        self._missed.append((shown_path(target), sent_bytes))

    def flush(self) -> None:
        """Bring the page up to date; for one thread."""
        for _ in range(len(self._missed)):
            path, sent_bytes = self._missed.popleft()
            self._paths.add(path, 1, sent_bytes)
