"""The pool against a naive model: the holders, the order of the waiters, and the segments a lease may take."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shmchannel.deadline import Deadline
from shmchannel.errors import PoolExhausted
from shmchannel.streams.pool import SHARING_LEASES, Lease
from shmchannel.streams.segment import Segment
from tests.support.channels import memory_pool
from tests.support.examples import examples
from tests.support.waiting import WATCHDOG_S, wait_until

_WAITERS_MAX = 3


class PoolMachine(RuleBasedStateMachine):
    """The test holds the leases; each waiter is a thread of its own, queued one behind the other."""

    @initialize(count=st.integers(1, 16), width=st.integers(1, 5))
    def start(self, count: int, width: int) -> None:
        self.count, self.width = count, width
        self.pool = memory_pool(count, segments_per_transfer_max=width, waiters_max=_WAITERS_MAX)
        self.threads = ThreadPoolExecutor(_WAITERS_MAX)
        self.free = count
        self.held: list[tuple[Lease, dict[Segment, str]]] = []
        self.promised: list[tuple[int, Segment]] = []
        self.line: list[Future[Lease]] = []
        self.retired = 0

    def hold(self, lease: Lease, expected: int) -> None:
        """Take a lease into the model."""
        assert len(lease.segments) == expected
        names = {segment: segment.name for segment in lease.segments}
        in_use = {name for _, others in self.held for name in others.values()}
        assert in_use.isdisjoint(names.values())
        self.held.append((lease, names))

    def came_back(self, count: int) -> None:
        """After `count` segments came back, the first waiters get one each and the rest are free."""
        for _ in range(count):
            if self.line:
                self.hold(self.line.pop(0).result(WATCHDOG_S), 1)
            else:
                self.free += 1

    def allowed(self, want: int) -> int:
        """How many a lease may take now: half of what is free or, beside enough other leases, an equal share of all."""
        parts = len(self.held) + 1
        share = min(self.count // parts, self.free) if parts > SHARING_LEASES else 0
        return max(1, min(want or self.width, self.width, max(self.free // 2, share)))

    @rule(want=st.integers(0, 6))
    def try_lease(self, want: int) -> None:
        lease = self.pool.try_lease(want or None)
        if not self.free:
            assert lease is None
            return
        assert lease is not None
        expected = self.allowed(want)
        self.free -= expected
        self.hold(lease, expected)

    @precondition(lambda self: self.free and self.pool.admission is not None)
    @rule(want=st.integers(1, 6))
    def lease_with_a_place(self, want: int) -> None:
        """All that is wanted, as far as it is there."""
        assert self.pool.admission is not None
        ticket = self.pool.admission.try_enter()
        full = sum(lease.ticket is not None for lease, _ in self.held) == max(1, self.count // self.width)
        assert (ticket is None) is full
        if ticket is not None:
            expected = min(want, self.width, self.free)
            self.free -= expected
            self.hold(self.pool.lease(Deadline.after(WATCHDOG_S), want, ticket=ticket), expected)

    @precondition(lambda self: self.free)
    @rule()
    def lease(self) -> None:
        expected = self.allowed(0)
        self.free -= expected
        self.hold(self.pool.lease(Deadline.after(WATCHDOG_S)), expected)

    @precondition(lambda self: not self.free and len(self.line) < _WAITERS_MAX)
    @rule()
    def get_in_line(self) -> None:
        expected = len(self.line) + 1
        self.line.append(self.threads.submit(self.pool.lease, Deadline.after(WATCHDOG_S)))
        wait_until(lambda: self.pool.stats().waiting == expected)

    @precondition(lambda self: len(self.line) == _WAITERS_MAX)
    @rule()
    def find_the_line_full(self) -> None:
        try:
            self.pool.lease(Deadline(0))
        except PoolExhausted:
            return
        raise AssertionError("the line has a bound")

    @precondition(lambda self: self.held)
    @rule(data=st.data(), clean=st.booleans())
    def end_lease(self, data: st.DataObject, clean: bool) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        lease, names = self.held.pop(index)
        self.promised = [(holder - (holder > index), segment) for holder, segment in self.promised if holder != index]
        if clean:
            lease.give_back()
        else:
            lease.retire()
            self.retired += len(names)
        self.came_back(len(names))

    @precondition(lambda self: any(len(names) > 1 for _, names in self.held))
    @rule(data=st.data())
    def promise(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from([i for i, (_, names) in enumerate(self.held) if len(names) > 1]))
        lease, names = self.held[index]
        asked_back = {segment for holder, segment in self.promised if holder == index}
        kept = [segment for segment in names if segment not in asked_back]
        if len(kept) > 1:
            lease.promise(kept[0])
            self.promised.append((index, kept[0]))

    @precondition(lambda self: self.promised)
    @rule(data=st.data())
    def give_back_one(self, data: st.DataObject) -> None:
        index, segment = self.promised.pop(data.draw(st.integers(0, len(self.promised) - 1)))
        lease, names = self.held[index]
        del names[segment]
        lease.give_back_one(segment)
        self.came_back(1)

    @invariant()
    def agrees_with_model(self) -> None:
        stats = self.pool.stats()
        assert stats.segments_total == self.count
        assert stats.segments_leased == sum(len(names) for _, names in self.held)
        assert stats.waiting == self.pool.waiting == len(self.line)
        assert stats.retired_total == self.retired
        assert self.pool.promised == len(self.promised)
        shrinks = len(self.line) > len(self.promised)
        assert all(lease.should_shrink() is shrinks for lease, _ in self.held)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.close()
        for waiter in self.line:
            waiter.exception(WATCHDOG_S)
        self.threads.shutdown()


TestPool: Any = PoolMachine.TestCase
TestPool.settings = examples(50, stateful_step_count=30)
