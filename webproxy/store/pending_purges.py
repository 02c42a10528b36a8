"""PURE: PendingPurges, the purges that the cache could not be told yet, and the keys it may not answer for until then.

An unsafe method that has succeeded, or a purge, must not be followed by a hit with the old object (RFC 9111, 4.4), and
a cache that was restarted or stopped at that moment still has it. So what it missed is remembered, and until it has
been told, its objects under those keys count as absent. All others are used.

Each purge is told twice, SETTLE_SECONDS apart, before it is forgotten: a cache that was stopped while it was storing an
object continues with that and with the purge at the same time, and the object may become visible after the purge.

There are at most PENDING_MAX. Beyond that one purge takes the place of all: everything is invalidated, that is to say
validated before its next use, and until the cache has been told that, all its objects count as absent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

PENDING_MAX: Final = 4096
SETTLE_SECONDS: Final = 1.0


class Purge(NamedTuple):
    """What CacheClient.purge() is asked for."""

    key: bytes
    prefix: bool = False
    below: bool = False
    invalidate: bool = False

    @property
    def object_key(self) -> bytes:
        """The key without what is added for variants, indexes and incomplete responses."""
        return self.key.partition(b"\0")[0]

    @property
    def reaches_others(self) -> bool:
        """Whether it concerns more than one object key."""
        return self.prefix and b"\0" not in self.key


EVERYTHING: Final = Purge(b"", prefix=True, invalidate=True)


Obstacle: TypeAlias = Callable[[], bool]
"""Tells whether it is out of the way. Called without a lock; must not block."""


@dataclass(slots=True, eq=False)
class Pending:
    """A purge that has not been told often enough."""

    purge: Purge
    due: float
    obstacles: list[Obstacle]
    """While one is left, something older than the purge may still be stored after it."""
    is_told: bool = False

    def is_possible(self) -> bool:
        """Whether all obstacles are gone."""
        self.obstacles = [one for one in self.obstacles if not one()]
        return not self.obstacles


class PendingPurges:
    """All times are seconds of one monotonic clock. The caller's lock covers each call, except withholds()."""

    def __init__(self) -> None:
        self._pending: dict[Purge, Pending] = {}
        self._keys: Counter[bytes] = Counter()
        """The keys that are withheld, and by how many purges each."""
        self._is_all = False
        """Whether all keys are."""

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, purge: Purge, now: float, obstacle: Obstacle | None = None) -> bool:
        """Remember a purge; True if EVERYTHING has taken the place of too many just now."""
        obstacles = [] if obstacle is None else [obstacle]
        overflows = False
        if EVERYTHING in self._pending:
            purge = EVERYTHING
        elif purge not in self._pending and len(self._pending) >= PENDING_MAX:
            purge, overflows = EVERYTHING, True
            for one in self._pending.values():
                obstacles += one.obstacles
            self._pending.clear()
            self._keys.clear()
        before = self._pending.pop(purge, None)  # never the same as before: that may be on its way to the cache now
        if before is None:
            self._withhold(purge)
        else:
            obstacles += before.obstacles
        self._pending[purge] = Pending(purge, now, obstacles)
        return overflows

    def withholds(self, key: bytes) -> bool:
        """Whether the cache's objects under this key may not be used."""
        return self._is_all or key.partition(b"\0")[0] in self._keys

    def due(self, now: float) -> list[Pending]:
        """What is to be told now."""
        return [one for one in self._pending.values() if one.due <= now]

    def told(self, pending: Pending, now: float) -> None:
        """The cache has done it; it is forgotten after the second time, unless it was asked for anew since."""
        purge = pending.purge
        if self._pending.get(purge) is not pending:
            return
        if not pending.is_told:
            pending.is_told, pending.due = True, now + SETTLE_SECONDS
            return
        del self._pending[purge]
        self._is_all = any(one.reaches_others for one in self._pending)
        if self._keys[purge.object_key] <= 1:
            del self._keys[purge.object_key]
        else:
            self._keys[purge.object_key] -= 1

    def _withhold(self, purge: Purge) -> None:
        self._keys[purge.object_key] += 1
        self._is_all = self._is_all or purge.reaches_others
