"""StoreToken: whether a fetch may still change what is stored; a purge revokes it.

A fetch whose request was sent before a purge brings what the purge was against. It continues for its readers, but the
purge must know that nothing of it is stored, not merely that the fetch will be told so in time. Therefore the fetch
stores only within `use()`, and `revoke()` returns when that is over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StoreToken:
    """One for each fetch: used by the fetch's thread, revoked by any."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._is_revoked = False
        self._in_use = False

    @property
    def revoked(self) -> bool:
        """True from revoke() on."""
        return self._is_revoked

    @contextmanager
    def use(self) -> Iterator[bool]:
        """True when something may be stored inside the block; whoever revokes the token waits for its end."""
        with self._change:
            self._in_use = not self._is_revoked
            granted = self._in_use
        try:
            yield granted
        finally:
            with self._change:
                self._in_use = False
                self._change.notify_all()

    def revoke(self, limit_s: float) -> bool:
        """Nothing is stored from now on. Waits for what is just being stored; False when that is not over in time."""
        with self._change:
            self._is_revoked = True
            return self._change.wait_for(lambda: not self._in_use, max(0.0, limit_s))
