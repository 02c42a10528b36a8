"""HitForMiss: URLs whose last response could not be shared with the requests that had waited for it.

The next request for one of these goes to the origin at once, instead of waiting for another request's response only to
learn that it must.
"""

from __future__ import annotations

from collections import OrderedDict

HIT_FOR_MISS_MAX = 4096
HIT_FOR_MISS_SECONDS = 60.0
"""How long requests do not wait. A response that has become shareable is stored by its first request anyway."""


class HitForMiss:
    """Shared by all workers; losing an entry costs one wait."""

    def __init__(self) -> None:
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def note(self, key: bytes, now: float) -> None:
        """A response under this key could not be shared; `now` is monotonic."""
        self._until[key] = now + HIT_FOR_MISS_SECONDS
        if len(self._until) > HIT_FOR_MISS_MAX:
            self._until.popitem(last=False)

    def forget(self, key: bytes) -> None:
        """A response under this key can be shared."""
        self._until.pop(key, None)

    def holds(self, key: bytes, now: float) -> bool:
        """Whether waiting for another request's response under this key is probably useless."""
        until = self._until.get(key)
        return until is not None and now < until
