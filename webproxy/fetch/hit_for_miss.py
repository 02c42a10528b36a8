"""Unshared: URLs whose last answer was of no use to those who waited for it with the one who had asked.

Who asks next for one of these asks by himself at once, and does not wait an answer's whole delay to be told that he
must.
"""

from __future__ import annotations

from collections import OrderedDict

HIT_FOR_MISS_MAX = 4096
HIT_FOR_MISS_SECONDS = 60.0
"""So long nobody waits: what has become an answer for everybody is stored by its first request, and needs no wait."""


class HitForMiss:
    """Shared by all workers; an entry that is lost costs one wait."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def note(self, key: bytes, now: float) -> None:
        """An answer under this key was waited for in vain; `now` is monotonic."""
        self._until[key] = now + HIT_FOR_MISS_SECONDS
        if len(self._until) > HIT_FOR_MISS_MAX:
            self._until.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """An answer under this key is for everybody."""
        self._until.pop(key, None)

    def holds(self, key: bytes, now: float) -> bool:
        """Whether to wait for another's answer under this key is likely to be in vain."""
        until = self._until.get(key)
        return until is not None and now < until
