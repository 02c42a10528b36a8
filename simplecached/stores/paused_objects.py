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
        self._objects: dict[tuple[bytes, int], list[tuple[float, StoredObject]]] = {}
        self._count = 0

    def keep(self, key: bytes, found: StoredObject) -> None:
        """Take over the pin."""
        with self._lock:
            self._objects.setdefault((key, found.version), []).append((monotonic() + self._keep_s, found))
            self._count += 1
            surplus = self._pop(*next(iter(self._objects))) if self._count > self._paused_max else None
        if surplus is not None:
            surplus.release()

    def take(self, key: bytes, version: int) -> StoredObject | None:
        """The pin of an object of exactly that version, or None."""
        if not self._objects:
            return None
        with self._lock:
            return self._pop(key, version)

    def _pop(self, key: bytes, version: int) -> StoredObject | None:
        waiting = self._objects.get((key, version))
        if not waiting:
            return None
        _, found = waiting.pop(0)
        self._count -= 1
        if not waiting:
            del self._objects[key, version]
        return found

    def expire(self, now: float) -> int:
        """Release pins that were not resumed until `now` (monotonic seconds); returns how many."""
        with self._lock:
            late = [name for name, waiting in self._objects.items() for since, _ in waiting if since <= now]
            expired = [self._pop(key, version) for key, version in late]
        for found in expired:
            assert found is not None
            found.release()
        return len(expired)

    def close(self) -> None:
        """Release all."""
        self.expire(float("inf"))
