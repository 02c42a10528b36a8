"""spool_budget: who gets room, in which order, and what becomes of room that nobody uses."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from webproxy.fetch.spool_budget import GRANT_BYTES, SpoolBudget

MAX = 4 * GRANT_BYTES
OWNERS = st.integers(0, 5)


class Budget(RuleBasedStateMachine):
    """Owners that take, wait, use or waste their turn, give back and leave."""

    def __init__(self) -> None:
        super().__init__()
        self.budget = SpoolBudget(MAX)
        self.taken = dict.fromkeys(range(6), 0)
        self.waiting: list[tuple[int, int]] = []
        self.turn: dict[int, int] = {}

    def wake(self, owner: int) -> Callable[[], None]:
        def called() -> None:
            (first, count), *self.waiting = self.waiting
            assert first == owner, "the one in front"
            self.turn[owner] = count

        return called

    @rule(owner=OWNERS, grants=st.integers(1, 5))
    def take_or_wait(self, owner: int, grants: int) -> None:
        count = grants * GRANT_BYTES
        wakes = self.budget.take(owner, count)
        if wakes is not None:
            assert owner in self.turn or not self.waiting
            self.taken[owner] += count
            self.turn.pop(owner, None)
            self.call(wakes)
            return
        self.turn.pop(owner, None)
        if count <= MAX and owner not in dict(self.waiting):
            self.waiting.append((owner, count))
        self.call(self.budget.wait(owner, count, self.wake(owner)))

    @rule(owner=OWNERS)
    def give_all_back(self, owner: int) -> None:
        count, self.taken[owner] = self.taken[owner], 0
        self.call(self.budget.give_back(count))

    @rule(owner=OWNERS)
    def leave(self, owner: int) -> None:
        self.waiting = [one for one in self.waiting if one[0] != owner]
        self.turn.pop(owner, None)
        self.call(self.budget.forget(owner))

    def call(self, wakes: list[Callable[[], None]]) -> None:
        for wake in wakes:
            wake()

    @invariant()
    def all_is_accounted_for(self) -> None:
        assert self.budget.used_bytes == sum(self.taken.values()) <= MAX

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        free = MAX - sum(self.taken.values()) - sum(self.turn.values())
        assert not self.waiting or self.waiting[0][1] > free


TestBudget = Budget.TestCase


def test_a_budget_that_shrinks_takes_back_nothing_and_lends_no_more() -> None:
    budget, woken = SpoolBudget(MAX), []
    assert budget.take(1, MAX) == []
    assert budget.resize(GRANT_BYTES) == []
    assert budget.give_back(2 * GRANT_BYTES) == []
    assert budget.take(2, GRANT_BYTES) is None, "more than there is in all is taken"
    assert budget.wait(2, GRANT_BYTES, lambda: woken.append(2)) == []
    for wake in budget.resize(MAX):
        wake()
    assert woken == [2]
    assert budget.take(2, GRANT_BYTES) == []
    assert budget.used_bytes == 3 * GRANT_BYTES
