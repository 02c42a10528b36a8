"""WidthHints: how many segments to lease for a key, learned from its last response."""

from __future__ import annotations

import threading

from shmchannel.streams.pool import GROWTH_CHUNKS

LONG_CHUNKS = 2 * GROWTH_CHUNKS
"""An object of fewer chunks gains nothing from more than one segment."""


class WidthHints:
    """How many segments to lease for a key, learned from its last response, for objects of more than one chunk.

    A lease is taken before the object's size is known. One segment is right for a small object; a large one is
    requested with as many as it can use from its second request on.

    Keys are known by their hashes: they may be long, and one that is taken for another gets the wrong number once.
    """

    def __init__(self, keys_max: int = 4096) -> None:
        self._chunks: dict[int, int] = {}
        self._keys_max = keys_max
        self._lock = threading.Lock()

    def width_for(self, key: bytes) -> int:
        """How many segments to lease, before the pool's own limits."""
        return max(1, self._chunks.get(hash(key), 0) // GROWTH_CHUNKS)

    def knows(self, key: bytes) -> bool:
        """Whether the object of the key did not fit one chunk, when it was seen last."""
        return hash(key) in self._chunks

    def remember(self, key: bytes, chunk_count: int) -> None:
        """The object of the key does not fit one chunk, and fills that many. No lock if that is known."""
        if self._chunks.get(hash(key)) == chunk_count:
            return
        with self._lock:
            self._chunks.pop(hash(key), None)
            self._chunks[hash(key)] = chunk_count
            if len(self._chunks) > self._keys_max:
                del self._chunks[next(iter(self._chunks))]

    def correct(self, key: bytes, chunk_count: int) -> None:
        """The object of a key with a width above one now has that many chunks, possibly few."""
        if chunk_count >= LONG_CHUNKS:
            self.remember(key, chunk_count)
            return
        with self._lock:
            self._chunks.pop(hash(key), None)
