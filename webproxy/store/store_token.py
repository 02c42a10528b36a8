"""StoreToken: permission of a fetch to change stored objects, revoked by a purge.

A fetch whose request was sent before a purge brings the content that the purge was meant to remove. The fetch continues
for its readers, but the purge must be certain that nothing of it is stored, not merely that the fetch will learn of it
in time. Therefore the fetch stores only within `use()`, and `revoke()` returns once that is over.
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
        """True if something may be stored inside the block; a revocation waits for its end."""
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
        """Nothing is stored from now on. Waits for a store in progress; False if that does not end in time."""
        with self._change:
            self._is_revoked = True
            return self._change.wait_for(lambda: not self._in_use, max(0.0, limit_s))
