"""LruIndex: sizes, recency and pins of a store's objects.

Pure bookkeeping: it knows neither files nor keys nor locks, and the caller carries out its decisions. It contains
everything in memory that takes space, including objects being written and removed objects still being read; both are
pinned. What a caller keeps elsewhere is counted in `outside_bytes` and `outside_count`: it takes the budget as well,
and the caller evicts it by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

K = TypeVar("K", bound="Hashable")


class _Slot:
    __slots__ = ("pins", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.pins = 0


class LruIndex(Generic[K]):
    """Names ordered by last use, within a budget of bytes and entries; not thread-safe by itself."""

    __slots__ = (
        "_pinned_bytes",
        "_pinned_count",
        "_slots",
        "_used_bytes",
        "budget_bytes",
        "entries_max",
        "outside_bytes",
        "outside_count",
    )

    def __init__(self, *, budget_bytes: int, entries_max: int) -> None:
        if budget_bytes < 0 or entries_max < 1:
            raise ValueError(f"budget of {budget_bytes} bytes and {entries_max} entries: expected at least 0 and 1")
        self.budget_bytes = budget_bytes
        self.entries_max = entries_max
        self.outside_bytes = 0
        self.outside_count = 0
        # An OrderedDict, because a plain dict leaves holes at its front when entries move to the end, and finding the
        # oldest then becomes slower with every hit.
        self._slots: OrderedDict[K, _Slot] = OrderedDict()
        self._used_bytes = 0
        self._pinned_bytes = 0
        self._pinned_count = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[K]:
        """Iterate from the least to the most recently used."""
        return iter(self._slots)

    def __contains__(self, name: object) -> bool:
        return name in self._slots

    @property
    def used_bytes(self) -> int:
        """Return the bytes of all entries, and of what is outside."""
        return self._used_bytes + self.outside_bytes

    @property
    def pinned_bytes(self) -> int:
        """Return the bytes of the entries that have at least one pin."""
        return self._pinned_bytes

    @property
    def pinned_count(self) -> int:
        """Return how many entries have at least one pin."""
        return self._pinned_count

    def victims_for(self, size_bytes: int, *, entry_count: int = 1) -> list[K] | None:
        """Return what must be evicted before an entry of this size fits, the least recently used first.

        With an `entry_count` of 0 it is space for a pinned entry to grow.

        The list is empty if there is space already, and the result is None if there cannot be any: the size exceeds the
        budget, or pinned entries leave too little. Nothing is changed.
        """
        if size_bytes > self.budget_bytes - self._pinned_bytes or self._pinned_count + entry_count > self.entries_max:
            return None
        surplus_bytes, surplus_count = self.surplus_with(size_bytes, entry_count)
        victims: list[K] = []
        if surplus_bytes <= 0 and surplus_count <= 0:
            return victims
        for name, slot in self._slots.items():
            if slot.pins:
                continue
            victims.append(name)
            surplus_bytes -= slot.size_bytes
            surplus_count -= 1
            if surplus_bytes <= 0 and surplus_count <= 0:
                break
        return victims

    def surplus_with(self, size_bytes: int, entry_count: int) -> tuple[int, int]:
        """Return how many bytes and entries would be too many with these in addition; 0 or less: none."""
        count = len(self._slots) + self.outside_count + entry_count
        return self.used_bytes + size_bytes - self.budget_bytes, count - self.entries_max

    def surplus(self) -> list[K]:
        """Return what must be evicted for the budget to hold, as far as it is not pinned; nothing is changed."""
        surplus_bytes = self.used_bytes - self.budget_bytes
        victims: list[K] = []
        for name, slot in self._slots.items():
            if surplus_bytes <= 0:
                break
            if not slot.pins:
                victims.append(name)
                surplus_bytes -= slot.size_bytes
        return victims

    def oldest(self, count: int) -> list[K]:
        """Return up to this many unpinned entries, the least recently used first; nothing is changed."""
        return list(islice((name for name, slot in self._slots.items() if not slot.pins), count))

    def add(self, name: K, size_bytes: int) -> None:
        """Add an unpinned entry as the most recently used; the caller has made space for it."""
        if name in self._slots:
            raise ValueError("this entry is in the index already")
        if max(self.surplus_with(size_bytes, 1)) > 0:
            raise ValueError(f"no space was made for {size_bytes} bytes")
        self._slots[name] = _Slot(size_bytes)
        self._used_bytes += size_bytes

    def bring_in(self, name: K, size_bytes: int) -> None:
        """Add what was outside, unpinned, as the most recently used; it is within the budget already."""
        self._slots[name] = _Slot(size_bytes)
        self._used_bytes += size_bytes
        self.outside_bytes -= size_bytes
        self.outside_count -= 1

    def put_out(self, name: K) -> None:
        """Remove an unpinned entry, which goes on to take its room outside."""
        size_bytes = self._slots[name].size_bytes
        self.discard(name)
        self.outside_bytes += size_bytes
        self.outside_count += 1

    def resize(self, name: K, size_bytes: int) -> None:
        """Change the size of an entry, pinned or not; the caller has made space for it."""
        slot = self._slots[name]
        growth_bytes = size_bytes - slot.size_bytes
        if self.used_bytes + growth_bytes > self.budget_bytes:
            raise ValueError(f"no space was made for {growth_bytes} bytes")
        slot.size_bytes = size_bytes
        self._used_bytes += growth_bytes
        if slot.pins:
            self._pinned_bytes += growth_bytes

    def touch(self, name: K) -> None:
        """Make an entry the most recently used."""
        self._slots.move_to_end(name)

    def pin(self, name: K) -> None:
        """Protect an entry from eviction until the matching unpin, and make it the most recently used."""
        slot = self._slots[name]
        self._slots.move_to_end(name)
        if not slot.pins:
            self._pinned_bytes += slot.size_bytes
            self._pinned_count += 1
        slot.pins += 1

    def unpin(self, name: K) -> int:
        """Release one pin and return how many are left."""
        slot = self._slots[name]
        if not slot.pins:
            raise ValueError("this entry has no pin")
        slot.pins -= 1
        if not slot.pins:
            self._pinned_bytes -= slot.size_bytes
            self._pinned_count -= 1
        return slot.pins

    def pins(self, name: K) -> int:
        """Return the number of pins of an entry."""
        return self._slots[name].pins

    def discard(self, name: K) -> None:
        """Remove an unpinned entry."""
        slot = self._slots[name]
        if slot.pins:
            raise ValueError("a pinned entry cannot be removed")
        del self._slots[name]
        self._used_bytes -= slot.size_bytes
