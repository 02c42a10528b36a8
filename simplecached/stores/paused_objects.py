"""PausedObjects: keeps paused objects readable for a while, so that a resumed transfer finds the same version.

A proxy pauses a response and resumes it with a GET of the same version. The object may be replaced or evicted in
between: without its pin the client's body would be truncated. What a proxy cancels because it does not want the rest is
not kept.
"""

from __future__ import annotations

import threading
from time import monotonic

from simplecached.descriptors import PAUSED_MAX
from simplecached.stores.store import StoredObject

KEEP_SECONDS = 30.0


class PausedObjects:
    """Pinned objects by key and version, each for one resume. Thread-safe; close() releases them all.

    Each may hold a descriptor; beyond the limit the one paused first is released.
    """

    def __init__(self, keep_s: float = KEEP_SECONDS, paused_max: int = PAUSED_MAX) -> None:
        self._keep_s = keep_s
        self._paused_max = paused_max
        self._lock = threading.Lock()
        self._paused: list[tuple[float, bytes, StoredObject]] = []  # until when, key; in order of time

    def keep(self, key: bytes, found: StoredObject) -> None:
        """Take over the pin."""
        with self._lock:
            self._paused.append((monotonic() + self._keep_s, key, found))
            surplus = self._paused.pop(0) if len(self._paused) > self._paused_max else None
        if surplus is not None:
            surplus[2].release()

    def take(self, key: bytes, version: int) -> StoredObject | None:
        """The pin of an object of exactly that version, or None."""
        with self._lock:
            for place, (_, paused_key, found) in enumerate(self._paused):
                if found.version == version and paused_key == key:
                    del self._paused[place]
                    return found
        return None

    def expire(self, now: float) -> int:
        """Release pins that were not resumed until `now` (monotonic seconds); returns how many."""
        with self._lock:
            late = [paused for paused in self._paused if paused[0] <= now]
            del self._paused[: len(late)]
        for _, _, found in late:
            found.release()
        return len(late)

    def close(self) -> None:
        """Release all."""
        self.expire(float("inf"))
