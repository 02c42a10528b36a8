"""TopCounts: which paths the cache misses most, and who asks most, in a bounded number of rows of the stats page.

Of paths only requests that an origin has answered are counted. Clients are counted when their connections end: all of
them while they are few. Of more than EXACT_MAX in a second that asked and got little, one of LIGHT_SHARE stands for
all, because to ask for a client's address costs as much as to count a hit seven times. The threads put what they note
into queues; once a second one thread brings it into the page, which decides what has a row
(shmchannel.stats_pages.heaviest).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from shmchannel.stats_pages import StatsPage
from shmchannel.stats_pages.heaviest import HeaviestRows
from webproxy.telemetry.metrics import (
    CLIENT_REQUESTS,
    CLIENT_SAVED,
    CLIENT_SAVED_BYTES,
    CLIENT_SENT_BYTES,
    CLIENTS,
    MISSED,
    MISSED_BYTES,
    PATHS,
)
from webproxy.telemetry.shown_names import shown_path

NOTED_MAX: Final = 10_000
"""In a second. Of more the oldest are not counted: the figures then are of a sample."""
EXACT_MAX: Final = 128
LIGHT_SHARE: Final = 64
_HEAVY_REQUESTS: Final = 64
_HEAVY_BYTES: Final = 1 << 20
"""From so many on a connection is counted by itself."""


class TopCounts:
    """Noting is for any thread and never blocks."""

    def __init__(self, page: StatsPage, peer_name: Callable[[int], bytes]) -> None:
        """`peer_name` finds the address of a connection's client."""
        self._peer_name = peer_name
        self._paths = HeaviestRows(page, PATHS, MISSED, MISSED_BYTES)
        self._missed: deque[tuple[str, int]] = deque(maxlen=NOTED_MAX)
        self._clients = HeaviestRows(
            page, CLIENTS, CLIENT_SENT_BYTES, CLIENT_REQUESTS, CLIENT_SAVED, CLIENT_SAVED_BYTES
        )
        self.noted: deque[tuple[str, tuple[int, ...]]] = deque(maxlen=NOTED_MAX)
        """Of connections, since the last flush()."""
        self._light = 0

    def note_missed(self, target: bytes, sent_bytes: int) -> None:
        """An origin has answered a GET for this target."""
        self._missed.append((shown_path(target), sent_bytes))

    def note_connection(
        self, fd: int, sent_bytes: int, requests: int, saved: int, saved_bytes: int, client: bytes = b""
    ) -> None:
        """A connection ends that had so many requests and bytes, of which the cache saved so many."""
        stands_for = 1
        if len(self.noted) >= EXACT_MAX and sent_bytes < _HEAVY_BYTES and requests < _HEAVY_REQUESTS:
            self._light += 1  # a lost update does no harm
            if self._light % LIGHT_SHARE:
                return
            stands_for = LIGHT_SHARE
        self._note(client or self._peer_name(fd), (sent_bytes, requests, saved, saved_bytes), stands_for)

    def note_hit(self, client: bytes, sent_bytes: int, stands_for: int) -> None:
        """A connection of this client ends that had one hit, and stands for so many like it."""
        self._note(client, (sent_bytes, 1, 1, sent_bytes), stands_for)

    def _note(self, client: bytes, amounts: tuple[int, ...], stands_for: int) -> None:
        if client:  # one that is gone already may have no address any more
            self.noted.append((client.decode(), tuple(stands_for * max(0, amount) for amount in amounts)))

    def flush(self) -> None:
        """Bring the page up to date; for one thread."""
        missed: dict[str, list[int]] = {}
        for _ in range(len(self._missed)):
            path, sent_bytes = self._missed.popleft()
            counts = missed.setdefault(path, [0, 0])
            counts[0] += 1
            counts[1] += sent_bytes
        self._paths.add_all(missed)
        for _ in range(len(self.noted)):
            client, amounts = self.noted.popleft()
            self._clients.add(client, *amounts)
