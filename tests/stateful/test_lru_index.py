"""LruIndex against a list that is searched from the front."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from simplecached.stores.lru import LruIndex

BUDGET_BYTES = 60
ENTRIES_MAX = 5


class LruIndexMachine(RuleBasedStateMachine):
    """The model: a list of [name, size, pins], the least recently used first."""

    names = Bundle("names")

    @initialize()
    def begin(self) -> None:
        self.index: LruIndex[int] = LruIndex(budget_bytes=BUDGET_BYTES, entries_max=ENTRIES_MAX)
        self.model: list[list[int]] = []
        self.next_name = 0

    def slot(self, name: int) -> list[int] | None:
        return next((slot for slot in self.model if slot[0] == name), None)

    def expected_victims(self, size_bytes: int, entry_count: int = 1) -> list[int] | None:
        left, victims = [list(slot) for slot in self.model], []
        while sum(slot[1] for slot in left) + size_bytes > BUDGET_BYTES or len(left) + entry_count > ENTRIES_MAX:
            idle = [slot for slot in left if not slot[2]]
            if not idle:
                return None
            left.remove(idle[0])
            victims.append(idle[0][0])
        return victims

    @rule(target=names, size_bytes=st.integers(min_value=0, max_value=BUDGET_BYTES + 5))
    def make_room_and_add(self, size_bytes: int) -> object:
        victims = self.index.victims_for(size_bytes)
        assert victims == self.expected_victims(size_bytes)
        if victims is None:
            return multiple()
        for victim in victims:
            self.index.discard(victim)
        self.model = [slot for slot in self.model if slot[0] not in victims]
        self.next_name += 1
        self.index.add(self.next_name, size_bytes)
        self.model.append([self.next_name, size_bytes, 0])
        return self.next_name

    @rule(name=names, size_bytes=st.integers(min_value=0, max_value=BUDGET_BYTES + 5))
    def make_room_and_resize(self, name: int, size_bytes: int) -> None:
        slot = self.slot(name)
        if slot is None:
            return
        self.pin(name)
        growth_bytes = size_bytes - slot[1]
        victims = []
        if growth_bytes > 0:
            victims = self.index.victims_for(growth_bytes, entry_count=0)
            assert victims == self.expected_victims(growth_bytes, 0)
        if victims is not None:
            for victim in victims:
                self.index.discard(victim)
            self.model = [slot for slot in self.model if slot[0] not in victims]
            self.index.resize(name, size_bytes)
            slot[1] = size_bytes
        self.unpin(name)

    @rule(name=names)
    def touch(self, name: int) -> None:
        if slot := self.slot(name):
            self.index.touch(name)
            self.model.remove(slot)
            self.model.append(slot)

    @rule(name=names)
    def pin(self, name: int) -> None:
        if slot := self.slot(name):
            self.index.pin(name)
            self.model.remove(slot)
            self.model.append(slot)
            slot[2] += 1

    @rule(name=names)
    def unpin(self, name: int) -> None:
        slot = self.slot(name)
        if slot and slot[2]:
            slot[2] -= 1
            assert self.index.unpin(name) == slot[2]

    @rule(name=consumes(names))
    def discard(self, name: int) -> None:
        slot = self.slot(name)
        if slot and not slot[2]:
            self.index.discard(name)
            self.model.remove(slot)

    @invariant()
    def agrees_with_model(self) -> None:
        assert list(self.index) == [slot[0] for slot in self.model]
        assert len(self.index) == len(self.model)
        assert self.index.used_bytes == sum(slot[1] for slot in self.model) <= BUDGET_BYTES
        assert self.index.pinned_bytes == sum(slot[1] for slot in self.model if slot[2])
        assert self.index.pinned_count == sum(1 for slot in self.model if slot[2])
        assert all(self.index.pins(slot[0]) == slot[2] for slot in self.model)


TestLruIndex = LruIndexMachine.TestCase
TestLruIndex.settings = settings(deadline=None)
