"""RunQueue against a model of two lists: order, bounds, and a descriptor that is readable once for each entry."""

from __future__ import annotations

import select

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.jobs import FakeJob
from webproxy.serving.run_queue import LIFO_DEPTH, QueueSettings, RunQueue, Schedule

LIMIT_S = 5


class RunQueueMachine(RuleBasedStateMachine):
    """The model: new jobs with the times of their arrival, and those that have come back, each in order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.new: list[tuple[FakeJob, int]] = []
        self.back: list[FakeJob] = []
        self.queue: RunQueue | None = None

    @initialize(schedule=st.sampled_from(Schedule), length_max=st.sampled_from([1, 3, 2 * LIFO_DEPTH]))
    def begin(self, schedule: Schedule, length_max: int) -> None:
        self.is_lifo, self.length_max = schedule is Schedule.LIFO, length_max
        self.queue = RunQueue(QueueSettings(schedule, length_max, LIMIT_S), lambda: self.now)

    def teardown(self) -> None:
        if self.queue is not None:
            while self.queue.take() or self.queue.take_back():
                pass
            self.queue.close()

    @rule(count=st.integers(1, LIFO_DEPTH))
    def arrive(self, count: int) -> None:
        assert self.queue is not None
        for _ in range(count):
            job, refused = FakeJob(-1), None
            if len(self.new) < self.length_max:
                self.new.append((job, self.now))
            elif self.is_lifo:
                refused = self.new.pop(0)[0]
                self.new.append((job, self.now))
            else:
                refused = job
            assert self.queue.put_bounded(job) is refused

    @rule()
    def come_back(self) -> None:
        assert self.queue is not None
        self.back.append(FakeJob(-1))
        self.queue.put_back(self.back[-1])

    @rule()
    def take(self) -> None:
        assert self.queue is not None
        expected = None
        if self.new:
            expected = self.new.pop(-1 if self.is_lifo and len(self.new) > LIFO_DEPTH else 0)[0]
        assert self.queue.take() is expected

    @rule()
    def take_back(self) -> None:
        assert self.queue is not None
        assert self.queue.take_back() is (self.back.pop(0) if self.back else None)

    @rule(seconds=st.integers(1, LIMIT_S))
    def time_passes(self, seconds: int) -> None:
        assert self.queue is not None
        self.now += seconds
        while self.new and self.new[0][1] + LIMIT_S <= self.now:
            assert self.queue.take_late() is self.new.pop(0)[0]
        assert self.queue.take_late() is None

    @invariant()
    def is_counted(self) -> None:
        if self.queue is None:
            return
        assert self.queue.waiting == len(self.new) + len(self.back)
        poll = select.poll()
        poll.register(self.queue.fileno(), select.POLLIN)
        assert bool(poll.poll(0)) is bool(self.new or self.back)


TestRunQueue = RunQueueMachine.TestCase
