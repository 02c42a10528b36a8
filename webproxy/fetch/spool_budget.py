"""SpoolBudget: the room that all spools share beyond the window that each of them always has.

Theory of operation
===================

A spool may hold a window of bytes whatever others do, so that every transfer goes on. What it holds beyond that it
takes from the budget, in pieces of GRANT_BYTES, and gives back as its readers move or when it is closed:

    room       take() succeeds at once
    none left  the spool waits in a line, and nobody who comes later passes it. As bytes are given back, they are kept
               for those in front, who are woken to take them

A spool that is woken and has no use for it calls forget(), which wakes the next. Nothing waits in a thread. What
take(), wait(), give_back(), forget() and resize() return is to be called without any lock.

Files are bounded too, by the descriptors that are planned for them, and so is the number of spools that have to do with
memory because they get no file, or no room in theirs. These are never waited for.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

log = logging.getLogger(__name__)

GRANT_BYTES: Final = 1 << 20
IN_MEMORY_MAX: Final = 512
"""How many spools may lie in memory for want of a file, each with a part of its body."""
PLACES: Final = 512
"""How many spools may have a body in memory that is small, but not tiny (spool.py)."""

Wake: TypeAlias = Callable[[], None]


class _Waits(NamedTuple):
    wake: Wake
    wanted: int


class SpoolBudget:
    """Shared by all spools. Thread-safe; nothing blocks."""

    def __init__(self, bytes_max: int, files_max: int = sys.maxsize) -> None:
        self.bytes_max = bytes_max
        self._files_left = files_max
        self._in_memory_left = IN_MEMORY_MAX
        self._places_left = PLACES
        self._lock = threading.Lock()
        self._free = bytes_max
        self._line: dict[object, _Waits] = {}
        """In the order in which they came."""
        self._woken: dict[object, int] = {}
        """How much is kept for whom."""

    @property
    def used_bytes(self) -> int:
        """How much has been taken."""
        return self.bytes_max - self._free

    def take(self, owner: object, count: int) -> list[Wake] | None:
        """Take so many bytes, and return whom to wake; None if they are not there, or for those who came before."""
        with self._lock:
            kept = sum(self._woken.values()) - self._woken.get(owner, 0)
            if (self._line and owner not in self._woken) or count > self._free - kept:
                return None
            self._free -= count
            return self._to_wake() if self._woken.pop(owner, count) > count else []

    def wait(self, owner: object, count: int, wake: Wake) -> list[Wake]:
        """Join the line for so many bytes, unless the owner is in it: `wake` is called once, when they are there.

        Returns whom to wake at once. More than there is in all is not waited for.
        """
        with self._lock:
            self._woken.pop(owner, None)
            is_first = not self._line
            if count <= self.bytes_max:
                self._line.setdefault(owner, _Waits(wake, count))
            wakes = self._to_wake()
        if is_first and self.bytes_max:
            log.warning("spools full", extra={"spool_bytes_max": self.bytes_max})
        return wakes

    def give_back(self, count: int) -> list[Wake]:
        """Return bytes that were taken; returns whom to wake."""
        with self._lock:
            self._free += count
            return self._to_wake()

    def resize(self, bytes_max: int) -> list[Wake]:
        """Change how much there is in all, which may be less than is taken; returns whom to wake."""
        with self._lock:
            self._free += bytes_max - self.bytes_max
            self.bytes_max = bytes_max
            return self._to_wake()

    def take_file(self) -> bool:
        """Whether one more spool may have a file; give_back_file() follows."""
        with self._lock:
            is_free = self._files_left > 0
            self._files_left -= is_free
            return is_free

    def give_back_file(self) -> None:
        """It is closed."""
        with self._lock:
            self._files_left += 1

    def take_place(self) -> bool:
        """Whether one more spool may keep a small body in memory; give_back_place() follows."""
        with self._lock:
            is_free = self._places_left > 0
            self._places_left -= is_free
            return is_free

    def give_back_place(self) -> None:
        """It is closed, or has a file."""
        with self._lock:
            self._places_left += 1

    def take_memory(self) -> bool:
        """Whether one more spool may lie in memory; give_back_memory() follows."""
        with self._lock:
            is_free = self._in_memory_left > 0
            self._in_memory_left -= is_free
            return is_free

    def give_back_memory(self) -> None:
        """It does no longer."""
        with self._lock:
            self._in_memory_left += 1

    def forget(self, owner: object) -> list[Wake]:
        """The owner no longer waits; returns whom to wake in its stead."""
        with self._lock:
            self._line.pop(owner, None)
            self._woken.pop(owner, None)
            return self._to_wake()

    def _to_wake(self) -> list[Wake]:
        wakes = []
        room = self._free - sum(self._woken.values())
        while self._line:
            owner, (wake, count) = next(iter(self._line.items()))
            if count > room:
                break
            room -= count
            del self._line[owner]
            self._woken[owner] = count
            wakes.append(wake)
        return wakes


NO_BUDGET: Final = SpoolBudget(0)
"""Each spool has its window, and no more."""
