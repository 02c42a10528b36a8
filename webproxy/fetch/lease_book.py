"""LeaseBook: what this process fetches for others too, by the numbers of the leases that a cache has granted it.

Theory of operation
===================

A cache says that this process fetches a key (docs/protocol.md 2), and tells so to others, who ask for what has come.
They may ask before the request that was told has opened the fetch. So a request says beforehand that it asks the cache
(asking()), and that it has acted on the answer (end()): between the two, others wait instead of being told that
nothing is fetched.

    asking ──▶ held       the fetch runs, or its answer is a failure that still serves who asks
      │          └─over──▶ forgotten, or unshared: its response was for its own client alone
      └─nothing came of it──▶ forgotten

Whoever is told of nothing asks the cache again, and has the lease instead.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto
from typing import Generic, TypeVar

UNSHARED_MAX = 1024
"""How many leases are remembered whose responses were for one client alone."""

T = TypeVar("T")
_Wakes = list[Callable[[], None]]


class Standing(Enum):
    """What is known of a lease that no fetch holds."""

    AWAITED = auto()
    """A request is asking the cache for the key: it may be told that the lease is this process's."""
    GONE = auto()
    """Nothing is fetched under it."""
    UNSHARED = auto()
    """The response was for its own client alone."""


class Asking:
    """A request that asks the cache for a key, and may be granted its lease."""

    def __init__(self, end: Callable[[bytes], None], key: bytes) -> None:
        self._end = end
        self._key: bytes | None = key

    def end(self) -> None:
        """It has acted on the answer; may be called twice."""
        key, self._key = self._key, None
        if key is not None:
            self._end(key)


class AskingEnds(Generic[T]):
    """As Signal: nobody asks for the key any longer, or it is being fetched."""

    def __init__(self, book: LeaseBook[T], key: bytes) -> None:
        self._book = book
        self._key = key

    def subscribe(self, wake: Callable[[], None]) -> bool:
        """As Signal.subscribe()."""
        return self._book.subscribe(self._key, wake)


class LeaseBook(Generic[T]):
    """Thread-safe; T is a fetch, and keys are those under which fetches are shared."""

    def __init__(self, process: str = "") -> None:
        """`process` is what caches call this process as a holder; empty if it neither holds leases nor follows any."""
        self.process = process
        self._lock = threading.Lock()
        self._asking: dict[bytes, int] = {}
        self._wakes: dict[bytes, _Wakes] = {}
        self._held: dict[int, dict[bytes, T]] = {}
        """By the keys of fetches: each protocol has its own."""
        self._numbers: dict[T, list[int]] = {}
        self._unshared: OrderedDict[int, None] = OrderedDict()

    def asking(self, key: bytes) -> Asking:
        """A request is about to ask the cache for the key; it must end() this, whatever comes of it."""
        with self._lock:
            self._asking[key] = self._asking.get(key, 0) + 1
        return Asking(self._end, key)

    def _end(self, key: bytes) -> None:
        with self._lock:
            left = self._asking[key] - 1
            if left:
                self._asking[key] = left
                return
            del self._asking[key]
            wakes = self._wakes.pop(key, [])
        _call_all(wakes)

    def subscribe(self, key: bytes, wake: Callable[[], None]) -> bool:
        """See AskingEnds."""
        with self._lock:
            if key not in self._asking:
                return False
            self._wakes.setdefault(key, []).append(wake)
            return True

    def hold(self, number: int, key: bytes, fetch: T) -> Callable[[], None]:
        """The fetch runs under this lease; returns what is to be called once the caller has released its locks."""
        with self._lock:
            self._unshared.pop(number, None)
            by_key = self._held.setdefault(number, {})
            before, by_key[key] = by_key.get(key), fetch
            if before is not fetch:
                if before is not None:
                    self._numbers[before].remove(number)
                self._numbers.setdefault(fetch, []).append(number)
            wakes = self._wakes.pop(key, [])
        return lambda: _call_all(wakes)

    def drop(self, fetch: T, *, unshared: bool = False) -> None:
        """The fetch is over, and serves nobody else."""
        with self._lock:
            for number in self._numbers.pop(fetch, ()):
                by_key = {key: held for key, held in self._held.pop(number).items() if held is not fetch}
                if by_key:
                    self._held[number] = by_key
                elif unshared:
                    self._unshared[number] = None
                    if len(self._unshared) > UNSHARED_MAX:
                        self._unshared.popitem(last=False)

    def find(self, number: int, key: bytes) -> T | Standing:
        """The fetch that another process may follow, if it is shared under this key."""
        with self._lock:
            by_key = self._held.get(number, {})
            if key in by_key:
                return by_key[key]
            if by_key or number in self._unshared:
                return Standing.UNSHARED
            return Standing.AWAITED if key in self._asking else Standing.GONE

    def ends(self, key: bytes) -> AskingEnds[T]:
        """What to wait for if a lease is awaited."""
        return AskingEnds(self, key)


def _call_all(wakes: _Wakes) -> None:
    for wake in wakes:
        wake()
