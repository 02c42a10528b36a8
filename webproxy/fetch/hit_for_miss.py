"""HitForMiss: URLs whose last answer could not be shared with the requests that had waited for it.

The next request for one of these asks the origin itself at once, instead of waiting for the whole delay of another
request's answer only to be told that it must.
"""

from __future__ import annotations

from collections import OrderedDict

HIT_FOR_MISS_MAX = 4096
HIT_FOR_MISS_SECONDS = 60.0
"""How long nobody waits. An answer that has become shareable is stored by its first request, and needs no wait."""


class HitForMiss:
    """Shared by all workers; an entry that is lost costs one wait."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def note(self, key: bytes, now: float) -> None:
        """An answer under this key could not be shared; `now` is monotonic."""
        self._until[key] = now + HIT_FOR_MISS_SECONDS
        if len(self._until) > HIT_FOR_MISS_MAX:
            self._until.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """An answer under this key can be shared."""
        self._until.pop(key, None)

    def holds(self, key: bytes, now: float) -> bool:
        """Whether waiting for another request's answer under this key is likely to be in vain."""
        until = self._until.get(key)
        return until is not None and now < until
