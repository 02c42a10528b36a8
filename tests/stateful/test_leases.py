"""The leases of a cache under any history: at most one holder of a key, and nobody is told of one that has ended."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simplecached.serving.leases import Lease, LeaseTable
from tests.support.examples import examples

KEYS = st.sampled_from([b"/a", b"/ab", b"/b", b"/b/c"])
ASKERS = st.sampled_from(["one", "two", "three"])


class LeaseMachine(RuleBasedStateMachine):
    """The model has a lease for each key, in the order in which they were granted."""

    @initialize(leases_max=st.integers(1, 4))
    def begin(self, leases_max: int) -> None:
        self.leases_max = leases_max
        self.table = LeaseTable(100, leases_max)
        self.model: dict[bytes, Lease] = {}
        self.numbers: list[int] = []
        """Of all that were ever granted."""
        self.purged: set[int] = set()

    @rule(key=KEYS, asker=ASKERS, data=st.data())
    def ask(self, key: bytes, asker: str, data: st.DataObject) -> None:
        void = data.draw(st.sampled_from([0, *self.numbers[-5:]]))
        lease = self.table.ask(key, asker, void)
        present = self.model.get(key)
        if present is not None and present.number != void:
            assert lease == present
            return
        assert lease.holder == asker
        assert lease.number not in {0, *self.numbers}
        self.numbers.append(lease.number)
        self.model.pop(key, None)
        self.model[key] = lease
        if len(self.model) > self.leases_max:
            del self.model[next(iter(self.model))]

    @rule(key=KEYS, below=st.sampled_from([b"", b"\0", b"\0partial"]))
    def end(self, key: bytes, below: bytes) -> None:
        self.table.end(key + below)
        self.model.pop(key, None)

    @rule(key=KEYS, below=st.sampled_from([b"", b"\0", b"\0partial"]))
    def purge(self, key: bytes, below: bytes) -> None:
        self.table.purge(key + below)
        if key in self.model:
            self.purged.add(self.model.pop(key).number)

    @rule(prefix=st.sampled_from([b"", b"/", b"/b", b"/a", b"/ab\0"]))
    def purge_prefix(self, prefix: bytes) -> None:
        """Of a prefix that lies below a key, everything there goes: what the holder receives would come back."""
        self.table.purge_prefix(prefix)
        for key in list(self.model):
            if key.startswith(prefix) or (b"\0" in prefix and key == prefix.partition(b"\0")[0]):
                self.purged.add(self.model.pop(key).number)

    @rule(dead=st.sets(ASKERS))
    def end_those_of(self, dead: set[str]) -> None:
        self.table.end_those_of(dead)
        self.model = {key: lease for key, lease in self.model.items() if lease.holder not in dead}

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert len(self.table) == len(self.model) <= self.leases_max
        assert {number for number in self.numbers if self.table.is_purged(number)} == self.purged
        assert self.table.holders() == {lease.holder for lease in self.model.values()}


TestLeases = LeaseMachine.TestCase
TestLeases.settings = examples(60, stateful_step_count=40, deadline=None)
