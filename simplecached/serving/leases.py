"""PURE: LeaseTable, who fetches what the cache lacks: one process for each key, over all proxies of a machine.

Theory of operation
===================

The first who asks for a missing key and wants the lease is its holder, and fetches the object. Others who ask are told
who that is, and read what the holder receives. Nothing is sent to keep or to end a lease:

    granted    to whoever asks while there is none, or finds the present one void
    ended      when something is stored at the key or below it: whoever asks next finds that
    purged     what the holder receives was requested before the purge, and must not be stored after it. Purged numbers
               are remembered, and a PUT names the one under which its object was fetched
    void       the holder does not fetch it: it has ended, it hangs, or its response may not be stored. Whoever finds
               out says so with the question, by the number, and has the lease instead; who comes second with the same
               number learns of the new holder

A lease has no time limit: the holder itself knows best whether it fetches, and each asker asks it. The table forgets
the oldest beyond its bound, which costs a second fetch at worst, and those of processes that have ended.

Numbers are never used again, so that a number that is void stays so. The first is random: no other cache gives it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

LEASES_MAX = 4096
PURGED_MAX = 4096
"""How many purged leases are remembered. A forgotten one costs what a fetch without a lease costs: it may store."""
NUMBER_BITS = 62
"""Of the first number: whatever follows has 64."""


class Lease(NamedTuple):
    """`holder` is whatever tells processes apart."""

    number: int
    holder: str


class LeaseTable:
    """For one thread at a time."""

    def __init__(self, first_number: int, leases_max: int = LEASES_MAX) -> None:
        """`first_number` is at least 1."""
        self.next_number = first_number
        """Of the next lease that is granted."""
        self._leases_max = leases_max
        self._leases: OrderedDict[bytes, Lease] = OrderedDict()
        self._purged: OrderedDict[int, None] = OrderedDict()

    def ask(self, key: bytes, asker: str, void: int = 0) -> Lease:
        """The lease of a key, which is the asker's if there was none, or only the one with the number `void`."""
        lease = self._leases.get(key)
        if lease is not None and lease.number != void:
            return lease
        lease = Lease(self.next_number, asker)
        self.next_number += 1
        self._leases[key] = lease
        self._leases.move_to_end(key)
        if len(self._leases) > self._leases_max:
            self._leases.popitem(last=False)
        return lease

    def end(self, key: bytes) -> None:
        """Something is stored at the key or below it: `key` may itself lie below the lease's key."""
        self._leases.pop(key.partition(b"\0")[0], None)

    def purge(self, key: bytes) -> None:
        """What is at the key is purged; as end()."""
        lease = self._leases.pop(key.partition(b"\0")[0], None)
        if lease is not None:
            self._purged[lease.number] = None
            if len(self._purged) > PURGED_MAX:
                self._purged.popitem(last=False)

    def purge_prefix(self, prefix: bytes) -> None:
        """Everything with this prefix is purged."""
        for key in [key for key in self._leases if key.startswith(prefix)]:
            self.purge(key)
        self.purge(prefix)

    def is_purged(self, number: int) -> bool:
        """Whether what was fetched under this lease was purged before it was stored."""
        return number in self._purged

    def holders(self) -> set[str]:
        """Those of all leases."""
        return {lease.holder for lease in self._leases.values()}

    def end_those_of(self, holders: Collection[str]) -> None:
        """These processes have ended."""
        for key in [key for key, lease in self._leases.items() if lease.holder in holders]:
            del self._leases[key]

    def __len__(self) -> int:
        return len(self._leases)
