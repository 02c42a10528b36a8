"""PURE: Shares, who may use a connection to an origin now, who waits in line for one, and who is refused (bulkheads).

Theory of operation
===================

**States** of an entry, which stands for one transfer and is whatever hashable value the caller has for it:

    request ──┬──▶ in flight ─────── release ──▶ gone
              │       ▲
              │       │ it is its turn
              ├──▶ waiting ── leave, dismiss, expire ──▶ gone
              │
              └──▶ refused: the line is full

**Bounds.** At most `connections_max` entries are in flight, and at most `origin_connections_max` of them for one
origin, so that a slow origin keeps its own requests waiting and nobody else's. Behind these each origin has a line,
first in, first out, of at most `line_max` entries that wait for at most `line_s`: a wait costs a known amount of memory
and time, and whatever is beyond that is refused at once.

**Turns.** An origin is eligible when somebody waits for it and it is below its own bound. Eligible origins form a ring.
Each connection that becomes free goes to the first of its origin's line, and the origin to the end of the ring: between
two turns of one eligible origin every other has at most one, however long their lines are.

**Invariants.** Nobody waits who could be in flight: the ring is empty unless `connections_max` are in flight. Hence a
release lets at most one entry go ahead, and a request is granted past the ring only when the ring is empty. An entry is
in one line, or in none. An origin without entries has no row.

**Costs.** Every call is O(1), `expire` and `dismiss` for each entry that they return. One time limit for all lines
makes the order of arrival the order of expiry, so that no heap is needed.

**Why not otherwise.** One line for all origins lets the slowest of them fill it. A fixed share for each origin
(`connections_max` divided by their number) wastes what the others do not use, and forward proxying does not know the
number. Turns share the *rate* of grants, not the connections: origins that are slow hold theirs longer, each up to its
own bound. `connections_max` should therefore be several times `origin_connections_max`, and an origin that does not
answer at all is the matter of its Health.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

E = TypeVar("E", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareSettings:
    """The bounds; the latter three are those of each origin."""

    connections_max: int = 256
    origin_connections_max: int = 64
    line_max: int = 1024
    line_s: float = 10.0


class Bound(Enum):
    """The bound that keeps an entry from going ahead."""

    ORIGIN = "origin_connections_max"
    TOTAL = "connections_max"


class Granted(NamedTuple):
    """The entry is in flight until its release."""


class Queued(NamedTuple):
    """The entry waits, until `release` returns it, or `expire` from `expires_at` on."""

    expires_at: float


class LineFull(NamedTuple):
    """The entry is refused: it would have to wait for `bound`, and too many do."""

    bound: Bound


class SharesStats(NamedTuple):
    """What is counted now, in entries and origins."""

    in_flight: int
    waiting: int
    origins: int


@dataclass(slots=True)
class _Share(Generic[E]):
    in_flight: int = 0
    line: OrderedDict[E, None] = field(default_factory=OrderedDict)


class _Wait(NamedTuple):
    origin: str
    expires_at: float


class Shares(Generic[E]):
    """The connections to all origins. No call blocks; the caller's lock covers each of them."""

    def __init__(self, settings: ShareSettings) -> None:
        self._settings = settings
        self._in_flight = 0
        self._shares: dict[str, _Share[E]] = {}
        self._waits: OrderedDict[E, _Wait] = OrderedDict()
        """The entries of all lines, in the order of arrival."""
        self._ring: OrderedDict[str, None] = OrderedDict()
        """The eligible origins, in the order of their turns."""

    def request(self, origin: str, entry: E, now: float) -> Granted | Queued | LineFull:
        """Ask for a connection to an origin, named by its authority, for an entry that is in no line."""
        assert entry not in self._waits
        share = self._shares.get(origin) or _Share()
        bound = self._reached(share)
        if bound is not None and len(share.line) >= self._settings.line_max:
            return LineFull(bound)
        self._shares[origin] = share
        if bound is None:
            self._start(share)
            return Granted()
        wait = _Wait(origin, now + self._settings.line_s)
        share.line[entry] = None
        self._waits[entry] = wait
        self._settle(origin, share)
        return Queued(wait.expires_at)

    def release(self, origin: str) -> E | None:
        """A connection to this origin is free again; returns the entry that is in flight in its place, if any."""
        share = self._shares[origin]
        assert share.in_flight > 0
        share.in_flight -= 1
        self._in_flight -= 1
        self._settle(origin, share)
        return self._next()

    def leave(self, entry: E) -> bool:
        """Take an entry out of its line; False if it is in none, because it is in flight or gone."""
        wait = self._waits.pop(entry, None)
        if wait is None:
            return False
        share = self._shares[wait.origin]
        del share.line[entry]
        self._settle(wait.origin, share)
        return True

    def dismiss(self, origin: str) -> list[E]:
        """Empty the line of an origin that is known as failing; returns its entries, the longest waiting first."""
        share = self._shares.get(origin)
        gone = list(share.line) if share else []
        for entry in gone:
            self.leave(entry)
        return gone

    def expire(self, now: float) -> list[E]:
        """Take out the entries that have waited for too long; returns them, the longest waiting first."""
        gone = []
        for entry, wait in self._waits.items():
            if now < wait.expires_at:
                break
            gone.append(entry)
        for entry in gone:
            self.leave(entry)
        return gone

    def next_expiry(self) -> float | None:
        """When `expire` will have something to return; None while nobody waits."""
        return next(iter(self._waits.values())).expires_at if self._waits else None

    def stats(self) -> SharesStats:
        """When `waiting` stays above 0, an origin is slower than it is asked, or a bound is too low for it."""
        return SharesStats(self._in_flight, len(self._waits), len(self._shares))

    def load_of(self, origin: str) -> tuple[int, int]:
        """How many entries of this origin are in flight, and how many wait."""
        share = self._shares.get(origin)
        return (0, 0) if share is None else (share.in_flight, len(share.line))

    def _reached(self, share: _Share[E]) -> Bound | None:
        if share.in_flight >= self._settings.origin_connections_max:
            return Bound.ORIGIN
        return Bound.TOTAL if self._in_flight >= self._settings.connections_max else None

    def _next(self) -> E | None:
        """Give the free connection to the origin whose turn it is."""
        if not self._ring:
            return None
        origin, _ = self._ring.popitem(last=False)
        share = self._shares[origin]
        entry, _ = share.line.popitem(last=False)
        del self._waits[entry]
        self._start(share)
        self._settle(origin, share)
        return entry

    def _start(self, share: _Share[E]) -> None:
        share.in_flight += 1
        self._in_flight += 1

    def _settle(self, origin: str, share: _Share[E]) -> None:
        """After any change of a share: is it eligible, and is there anything to keep?"""
        if share.line and share.in_flight < self._settings.origin_connections_max:
            self._ring.setdefault(origin)  # where it is already, it keeps its turn
            return
        self._ring.pop(origin, None)
        if not share.line and not share.in_flight:
            del self._shares[origin]
