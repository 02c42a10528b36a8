"""PURE: choosing one of several members, by turns, by chance, by load, or by key.

Members are named by strings, and every function gives the same answer in every process: the hash is BLAKE2b, not
Python's own, which differs from process to process.

Rendezvous hashing (Thaler and Ravishankar, 1998) ranks all members for a key, each by a hash of key and member. A key
belongs to the first; if that is away, to the second, and so on. So a member that goes moves only its own keys, one that
comes takes only what it will own, and one that comes back gets back exactly what it had. With bounded load (Mirrokni,
Thorup and Zadimoghaddam, 2016) a member that carries more than `factor` times the mean passes the key on to the next of
its ranking: fail over by load, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from hashlib import blake2b
from random import Random
from typing import TypeVar

LOAD_FACTOR = 1.25
SLOTS = 4096
M = TypeVar("M")


def round_robin(names: Sequence[str]) -> Iterator[str]:
    """Each name in turn, for ever; nothing if there is none."""
    while names:
        yield from names


def at_random(names: Sequence[str], random: Random) -> str | None:
    """One of them by chance; None if there is none."""
    return random.choice(names) if names else None


def least_loaded(loads: Mapping[str, float]) -> str | None:
    """The name with the lowest load, the first by name among equals; None if there is none."""
    return min(loads, key=lambda name: (loads[name], name), default=None)


def rendezvous_order(key: bytes, names: Collection[str]) -> list[str]:
    """All names, in the order in which they should have the key; the order of `names` does not matter."""
    return sorted(names, key=lambda name: (_weight(key, name), name), reverse=True)


def _weight(key: bytes, name: str) -> bytes:
    # As a key, the name cannot run into what is hashed; it is hashed first because a key has at most 64 bytes.
    member = blake2b(name.encode(errors="surrogateescape"), digest_size=16).digest()
    return blake2b(key, digest_size=8, key=member).digest()


def bounded(order: Sequence[str], loads: Mapping[str, float], factor: float = LOAD_FACTOR) -> str | None:
    """The first in an order whose load is at most `factor` (1 or more) times the mean; None if the order is empty.

    `loads` are those of all members that are there; a name that is not among them is passed over, for it is away.
    """
    if not loads:
        return None
    most = factor * sum(loads.values()) / len(loads)
    present = [name for name in order if name in loads]
    return next((name for name in present if loads[name] <= most), present[0] if present else None)


def first_available(order: Sequence[M], is_available: Callable[[M], bool]) -> M | None:
    """The first in an order that is available: fails over to the next, and back as soon as it is there again."""
    return next((member for member in order if is_available(member)), None)


class RendezvousTable:
    """The orders of many keys over one set of names, remembered: a look-up costs one hash.

    A key falls into one of SLOTS slots, and all keys of a slot have its order, so that there is nothing to bound.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.names = tuple(sorted(names))
        self._orders: list[tuple[str, ...] | None] = [None] * SLOTS

    def order(self, key: bytes) -> tuple[str, ...]:
        """All names, in the order in which they should have the key."""
        slot = int.from_bytes(blake2b(key, digest_size=4).digest(), "little") % SLOTS
        order = self._orders[slot]
        if order is None:
            order = self._orders[slot] = tuple(rendezvous_order(slot.to_bytes(4, "little"), self.names))
        return order
