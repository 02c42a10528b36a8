"""Versions: the numbers that distinguish bodies of one key. 64 bit, never 0."""

from __future__ import annotations

import hashlib
import struct
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_WORD_MASK = 2**64 - 1
_FACTS = struct.Struct("=4Q")


class VersionClock:
    """Strictly increasing versions taken from the wall clock, so that they differ from those before a restart."""

    def __init__(self, floor: int = 0, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._last = floor
        self._now_ns = now_ns
        self._lock = threading.Lock()

    def next(self) -> int:
        """Return a version above the floor and above every earlier one, even if the clock steps back."""
        with self._lock:
            self._last = max(self._last + 1, self._now_ns())
            return self._last


def version_of_file(dev: int, ino: int, mtime_ns: int, size_bytes: int) -> int:
    """Return the version of a file on disk: a hash of attributes that change with its content."""
    packed = _FACTS.pack(*(fact & _WORD_MASK for fact in (dev, ino, mtime_ns, size_bytes)))
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "big") or 1
