"""StoreToken: whether a fetch may still change what is stored; a purge withdraws it.

A fetch that was asked for before a purge brings what the purge was against. It goes on for its readers, and the purge
has to know that nothing of it is stored any more: not that it will be told so in time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StoreToken:
    """One for each fetch: used by the fetch's thread, withdrawn by any."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._withdrawn = False
        self._in_use = False

    @property
    def withdrawn(self) -> bool:
        """True from withdraw() on."""
        return self._withdrawn

    @contextmanager
    def use(self) -> Iterator[bool]:
        """True when something may be stored inside the block, whose end whoever withdraws the permit waits for."""
        with self._change:
            self._in_use = not self._withdrawn
            granted = self._in_use
        try:
            yield granted
        finally:
            with self._change:
                self._in_use = False
                self._change.notify_all()

    def withdraw(self, limit_s: float) -> bool:
        """Nothing is stored from now on. Waits for what is just being stored; False when that is not over in time."""
        with self._change:
            self._withdrawn = True
            return self._change.wait_for(lambda: not self._in_use, max(0.0, limit_s))
