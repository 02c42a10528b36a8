"""PURE: Purge and PurgeList: purges of many objects that hold at once and are carried out behind.

A purge has a number. Each row says the number of the last purge at the time it was written (its epoch), so a purge
holds for the rows of its prefix with a lower one. It is written to the index before it is acknowledged, and looked at
whenever a row is read, until all its rows have been removed or changed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Purge:
    """Everything with a prefix that was written before; removed, or only invalidated."""

    number: int
    prefix: bytes
    invalidates: bool

    def holds_for(self, key: bytes, epoch: int) -> bool:
        """Return whether a row with this key and epoch is purged by it."""
        return epoch < self.number and key.startswith(self.prefix)


class PurgeList:
    """Those that are not carried out yet; a value: changes make a new one."""

    __slots__ = ("active", "epoch")

    def __init__(self, epoch: int, active: tuple[Purge, ...]) -> None:
        self.epoch = epoch
        self.active = active

    def with_one(self, purge: Purge) -> PurgeList:
        """Return the list with a new purge; its number is the epoch from now on."""
        return PurgeList(max(self.epoch, purge.number), (*self.active, purge))

    def without(self, purge: Purge) -> PurgeList:
        """Return the list without one that has been carried out."""
        return PurgeList(self.epoch, tuple(one for one in self.active if one is not purge))

    def state_of(self, key: bytes, epoch: int) -> tuple[bool, bool]:
        """Return whether a row is removed, and whether it is invalidated."""
        invalidated = False
        for purge in self.active:
            if purge.holds_for(key, epoch):
                if not purge.invalidates:
                    return True, False
                invalidated = True
        return False, invalidated
