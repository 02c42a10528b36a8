"""The shares of origins under any history: bounds hold, nobody is lost, nobody waits in vain, turns are fair."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.examples import examples
from webproxy.origin.shares import Bound, Granted, LineFull, Queued, Shares, ShareSettings, SharesStats

ORIGIN = st.sampled_from(["A", "B", "C", "D"])


@dataclass
class Row:
    in_flight: set[int] = field(default_factory=set)
    line: list[tuple[int, float]] = field(default_factory=list)
    """Entries and the ends of their waits, the longest waiting first."""


class SharesMachine(RuleBasedStateMachine):
    """The model knows who waits and who is in flight; whose turn it is, it only checks for fairness."""

    @initialize(total=st.integers(1, 4), each=st.integers(1, 3), line_max=st.integers(0, 6))
    def begin(self, total: int, each: int, line_max: int) -> None:
        self.settings = ShareSettings(
            connections_max=total, origin_connections_max=each, line_max=line_max, line_s=10.0
        )
        self.shares: Shares[int] = Shares(self.settings)
        self.rows = {origin: Row() for origin in "ABCD"}
        self.now = 0.0
        self.entries = 0
        self.turns_since: dict[str, set[str]] = {}
        """For each eligible origin: the others that had a turn since it is eligible, or had its own."""

    @property
    def total(self) -> int:
        return sum(len(row.in_flight) for row in self.rows.values())

    def eligible(self, origin: str) -> bool:
        row = self.rows[origin]
        return bool(row.line) and len(row.in_flight) < self.settings.origin_connections_max

    @rule(seconds=st.sampled_from([0.5, 3.0, 10.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(origins=st.lists(ORIGIN, min_size=1, max_size=8))
    def requests(self, origins: list[str]) -> None:
        for origin in origins:
            self.request(origin)

    def request(self, origin: str) -> None:
        self.entries += 1
        entry, row = self.entries, self.rows[origin]
        at_own_bound = len(row.in_flight) == self.settings.origin_connections_max
        at_total = self.total == self.settings.connections_max
        match self.shares.request(origin, entry, self.now):
            case Granted():
                assert not at_own_bound
                assert not at_total
                row.in_flight.add(entry)
            case Queued(expires_at):
                assert at_own_bound or at_total
                assert len(row.line) < self.settings.line_max
                assert expires_at == self.now + self.settings.line_s
                row.line.append((entry, expires_at))
                self.note_eligible()
            case LineFull(bound):
                assert len(row.line) == self.settings.line_max
                assert (bound is Bound.ORIGIN) == at_own_bound
                assert at_own_bound or at_total

    @rule(data=st.data(), count=st.integers(1, 6))
    def releases(self, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, self.total)):
            self.release(data)

    def release(self, data: st.DataObject) -> None:
        busy = [origin for origin, row in self.rows.items() if row.in_flight]
        origin = data.draw(st.sampled_from(busy))
        row = self.rows[origin]
        row.in_flight.remove(data.draw(st.sampled_from(sorted(row.in_flight))))
        self.note_eligible()
        granted = self.shares.release(origin)
        if granted is None:
            assert not self.turns_since
            return
        (chosen,) = [name for name, row in self.rows.items() if row.line and row.line[0][0] == granted]
        assert chosen in self.turns_since
        for other in self.turns_since.keys() - {chosen}:
            assert chosen not in self.turns_since[other], f"{other} was passed over twice"
            self.turns_since[other].add(chosen)
        del self.turns_since[chosen], self.rows[chosen].line[0]
        self.rows[chosen].in_flight.add(granted)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.integers(1, self.entries + 1))
        waiting = False
        for row in self.rows.values():
            kept = [wait for wait in row.line if wait[0] != entry]
            waiting = waiting or kept != row.line
            row.line = kept
        assert self.shares.leave(entry) == waiting

    @rule(origin=ORIGIN)
    def dismiss(self, origin: str) -> None:
        row = self.rows[origin]
        assert self.shares.dismiss(origin) == [entry for entry, _ in row.line]
        row.line = []

    @rule()
    def expire(self) -> None:
        waits = sorted(wait for row in self.rows.values() for wait in row.line)  # entries are numbered as they come
        assert self.shares.expire(self.now) == [entry for entry, end in waits if end <= self.now]
        for row in self.rows.values():
            row.line = [wait for wait in row.line if wait[1] > self.now]

    @invariant()
    def note_eligible(self) -> None:
        """An origin that is no longer eligible gives its turn up, and comes last when it is again."""
        for origin in self.rows:
            if not self.eligible(origin):
                self.turns_since.pop(origin, None)
            elif origin not in self.turns_since:
                self.turns_since[origin] = set()

    @invariant()
    def bounds_hold(self) -> None:
        assert self.total <= self.settings.connections_max
        for row in self.rows.values():
            assert len(row.in_flight) <= self.settings.origin_connections_max
            assert len(row.line) <= self.settings.line_max

    @invariant()
    def nobody_waits_who_could_be_in_flight(self) -> None:
        assert self.total == self.settings.connections_max or not any(map(self.eligible, self.rows))

    @invariant()
    def nobody_is_lost_and_nothing_is_left(self) -> None:
        waits = [end for row in self.rows.values() for _, end in row.line]
        used = [row for row in self.rows.values() if row.in_flight or row.line]
        assert self.shares.stats() == SharesStats(self.total, len(waits), len(used))
        assert self.shares.next_expiry() == min(waits, default=None)

    def teardown(self) -> None:
        """Whoever still waits is served as connections become free: at the end nobody is there, and no row."""
        if not hasattr(self, "shares"):
            return
        in_flight = [origin for origin, row in self.rows.items() for _ in row.in_flight]
        waiting = {entry: origin for origin, row in self.rows.items() for entry, _ in row.line}
        while in_flight:
            granted = self.shares.release(in_flight.pop(0))
            if granted is not None:
                in_flight.append(waiting.pop(granted))
        assert not waiting
        assert self.shares.stats() == SharesStats(0, 0, 0)


TestShares = SharesMachine.TestCase
TestShares.settings = examples(40, stateful_step_count=50, deadline=None)
