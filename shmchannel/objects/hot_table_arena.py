"""RingArena: where in a hot table's memory its records lie. Pure bookkeeping, without a byte of that memory.

Theory of operation. A hand goes round through the memory that was taken so far, and a new record is placed where it
stands. What lies there already has to give way, unless it has been used since the hand last came by (a second chance,
as in CLOCK): then the hand goes on behind it. Records that were dropped are free the next time the hand comes by.

At the end of the memory taken the hand turns back if at least half of it is free, and otherwise takes more, up to the
bound. So memory is touched as the live records grow, at most twice as much as they are. While there could be more,
records stay, used or not.

A placement skips at most SKIPS_MAX records. If the next one may not give way either, it goes to the end of the memory
taken, and takes more; or, when there is no more, the next one gives way all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from shmchannel.objects.hot_table_layout import LINE_BYTES

SKIPS_MAX = 32


class Span:
    """The place of one record: offsets in bytes, set by the arena. `used`: by readers, since the hand last came by."""

    __slots__ = ("end", "live", "start", "used")

    def __init__(self) -> None:
        self.start = self.end = 0
        self.live = self.used = False


S = TypeVar("S", bound=Span)


class RingArena(Generic[S]):
    """Not thread-safe by itself."""

    __slots__ = ("_begin", "_bound", "_evict", "_hand", "_is_refused", "_live_bytes", "_ring", "_take", "_taken_end")

    def __init__(self, begin: int, bound: int, *, take: Callable[[int], int], evict: Callable[[S], None]) -> None:
        """`take(end)` takes more memory behind `end` and returns the new end, or `end` if there is none.

        `evict` is called for a record that gives way, before its place is used again.
        """
        self._begin = self._hand = self._taken_end = begin
        self._bound = bound
        self._take = take
        self._evict = evict
        self._ring: deque[S] = deque()  # in order of address, from the hand on and round to it
        self._live_bytes = 0
        self._is_refused = False
        """There was no more memory when it was last wanted."""

    @property
    def size_bytes(self) -> int:
        """The most memory that it can take."""
        return self._bound - self._begin

    @property
    def taken_bytes(self) -> int:
        """The memory taken so far, which is never given back."""
        return self._taken_end - self._begin

    def place(self, span: S, size_bytes: int) -> int:
        """Give a record its place, and return where that begins; it is not larger than the arena."""
        room_bytes = -(-max(1, size_bytes) // LINE_BYTES) * LINE_BYTES
        ring = self._ring
        skips = 0
        while True:
            start = self._hand
            end = start + room_bytes
            if end > self._taken_end:
                if not self._grow():
                    self._turn_back()
                continue
            front = ring[0] if ring else None
            if front is None or front.start >= end or front.start < start:
                break
            if front.live and skips < SKIPS_MAX and (front.used or self._may_grow):
                skips += 1
                front.used = False
                self._hand = front.end
                ring.rotate(-1)
                continue
            if front.live:
                if self._may_grow:
                    self._go_to_end()
                    self._grow(wanted=True)
                    continue
                self.drop(front)
                self._evict(front)
            ring.popleft()
        span.start, span.end, span.live = start, end, True
        self._hand = end
        ring.append(span)
        self._live_bytes += room_bytes
        return start

    def drop(self, span: S) -> None:
        """A record is no longer there; its place is used again when the hand comes by."""
        span.live = False
        self._live_bytes -= span.end - span.start

    @property
    def _may_grow(self) -> bool:
        return self._taken_end < self._bound and not self._is_refused

    def _grow(self, *, wanted: bool = False) -> bool:
        """Take more memory, if there may be more; unless it is `wanted`, not while half of it is free."""
        taken_bytes = self.taken_bytes
        is_roomy = not wanted and taken_bytes and 2 * self._live_bytes <= taken_bytes
        if self._taken_end >= self._bound or is_roomy:
            return False
        before = self._taken_end
        self._taken_end = self._take(before)
        self._is_refused = self._taken_end <= before
        return not self._is_refused

    def _turn_back(self) -> None:
        self._go_to_end()
        self._hand = self._begin

    def _go_to_end(self) -> None:
        """What lies between here and the end stays."""
        ring = self._ring
        for _ in range(len(ring)):
            if ring[0].start < self._hand:
                break
            ring.rotate(-1)
        self._hand = self._taken_end
