"""The fleet under any history of ends, silences, reloads and stops."""

from __future__ import annotations

import signal
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shmchannel.daemonkit.exits import ExitCode
from tests.support.examples import examples
from webproxy.daemon.fleet import (
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    FORGIVEN_AFTER_S,
    Fleet,
    FleetLimits,
    Generation,
    Phase,
    Progress,
)

SIZES = st.integers(1, 4)
AT_ONCE = st.integers(1, 4)
CANNOT_START = ExitCode.CANNOT_START
STATUSES = st.sampled_from([0, -signal.SIGKILL, ExitCode.SOFTWARE, CANNOT_START])
LIMITS = st.builds(FleetLimits, start_s=st.just(10.0), silence_s=st.just(5.0), retire_s=st.sampled_from([3.0, 20.0]))


class FleetMachine(RuleBasedStateMachine):
    """The supervisor, and the processes as the kernel knows them: `alive`, by pid with the slot of each."""

    @initialize(size=SIZES, limits=LIMITS, at_once=AT_ONCE)
    def begin(self, size: int, limits: FleetLimits, at_once: int) -> None:
        """Most of what matters comes after a start that succeeds; one by single steps follows `start_anew`."""
        self._begin(size, limits, at_once)
        self._start_all()
        self.judge()

    def _begin(self, size: int, limits: FleetLimits, at_once: int) -> None:
        self.fleet = Fleet(at_once)
        self.at_once = at_once
        self.now_s = 1000.0
        self.pid = 0
        self.alive: dict[int, int] = {}
        self.retiring: set[int] = set()
        self.is_stopped = False
        self.untouched: list[int] | None = None
        """Who served when the reload began, without those that have ended since."""
        self.fleet.begin(size, limits, self.now_s)

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 4.0, 31.0, FORGIVEN_AFTER_S]))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    def _start_all(self) -> None:
        while self.fleet.due(self.now_s):
            self.start_what_is_due(fails=False)
            self.all_become_ready()

    @rule(fails=st.booleans())
    def start_what_is_due(self, fails: bool) -> None:
        for post, slot in self.fleet.due(self.now_s):
            assert not self.is_stopped
            assert not post.given_up
            if fails:
                assert BACKOFF_MIN_S <= self.fleet.not_started(post, self.now_s) <= BACKOFF_MAX_S
                continue
            assert slot not in self.alive.values()
            self.pid += 1
            self.alive[self.pid] = slot
            self.fleet.started(post, slot, self.pid, self.now_s)
        assert fails or self.fleet.due(self.now_s) == []

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), is_ready=st.booleans())
    def beat(self, data: st.DataObject, is_ready: bool) -> None:
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        worker = self.fleet.beat(pid, self.now_s, is_ready=is_ready)
        assert worker is None or (worker.pid == pid and pid not in self.retiring)

    @rule()
    def all_become_ready(self) -> None:
        for pid in self.alive:
            self.fleet.beat(pid, self.now_s, is_ready=True)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), status=STATUSES)
    def ends(self, data: st.DataObject, status: int) -> None:
        pid = data.draw(st.sampled_from(sorted(self.alive)))
        self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        worker = self.fleet.workers[pid]
        was_starting, others = worker.phase is Phase.STARTING, self._active() - {pid}
        found = self.fleet.exited(pid, status, self.now_s)
        del self.alive[pid]
        if self.untouched is not None and pid in self.untouched:
            self.untouched.remove(pid)
        assert found is not None
        assert found.worker is worker
        assert found.unasked == (pid not in self.retiring)
        if pid in self.retiring or (was_starting and status == CANNOT_START):
            assert found.pause_s is None
            assert worker.post.due_s is None, "not started again"
        else:
            assert found.pause_s is not None
            assert BACKOFF_MIN_S <= found.pause_s <= BACKOFF_MAX_S
            assert others or found.pause_s == BACKOFF_MIN_S
            assert worker.post.due_s == self.now_s + found.pause_s
        self.retiring.discard(pid)
        assert self.fleet.exited(pid, status, self.now_s) is None

    @rule()
    def kill_the_overdue(self) -> None:
        for worker in self.fleet.overdue(self.now_s):
            self._ended(worker.pid, -signal.SIGKILL)
        assert self.fleet.overdue(self.now_s) == []

    @precondition(lambda self: self.fleet.candidates is None and not self.is_stopped)
    @rule(size=SIZES, limits=LIMITS)
    def reload(self, size: int, limits: FleetLimits) -> None:
        self.untouched = [worker.pid for worker in self.fleet.workers.values()]
        self.fleet.begin(size, limits, self.now_s)

    @precondition(lambda self: self.fleet.candidates is not None)
    @rule()
    def judge(self) -> None:
        candidates = self.fleet.candidates
        assert candidates is not None
        progress = self.fleet.progress(candidates)
        if progress is Progress.READY:
            ready = [worker for worker in self.fleet.workers.values() if worker.phase is Phase.READY]
            assert {post for post in candidates.posts if not post.given_up} <= {worker.post for worker in ready}
            self.retiring |= set(self.fleet.promote(self.now_s))
            assert self.fleet.serving is candidates
            self.untouched = None
        elif progress is Progress.REFUSED and self.fleet.serving.posts:
            ended = self.fleet.abandon(self.now_s)
            self.retiring |= set(ended)
            assert self.untouched is not None
            assert not set(ended) & set(self.untouched)
            assert set(self.untouched) <= self.alive.keys()
            self.untouched = None
        elif progress is Progress.REFUSED:  # the start has failed
            self.stop()

    @precondition(lambda self: self.fleet.candidates is None and not self.is_stopped)
    @rule(size=SIZES, limits=LIMITS)
    def reload_without_trouble(self, size: int, limits: FleetLimits) -> None:
        """By single steps it would be rare."""
        self.reload(size, limits)
        self._start_all()
        self.judge()
        assert self.fleet.candidates is None

    @precondition(lambda self: self.is_stopped)
    @rule(size=SIZES, limits=LIMITS, at_once=AT_ONCE)
    def start_anew(self, size: int, limits: FleetLimits, at_once: int) -> None:
        self._begin(size, limits, at_once)

    @rule()
    def stop(self) -> None:
        self.retiring |= set(self.fleet.stop(self.now_s))
        self.is_stopped = True
        assert self.retiring == self.alive.keys()

    def _active(self) -> set[int]:
        return self.alive.keys() - self.retiring

    @invariant()
    def each_slot_has_one_worker(self) -> None:
        slots = {worker.pid: worker.slot for worker in self.fleet.workers.values()}
        assert slots == self.alive
        assert not [slot for slot, workers in Counter(slots.values()).items() if workers > 1]

    @invariant()
    def each_post_has_one_worker_or_a_time_or_is_given_up(self) -> None:
        generations: list[Generation] = [self.fleet.serving]
        generations += [] if self.fleet.candidates is None else [self.fleet.candidates]
        workers = Counter(worker.post for worker in self.fleet.workers.values() if worker.phase is not Phase.RETIRING)
        for generation in generations:
            for post in generation.posts:
                assert workers.pop(post, 0) + (post.due_s is not None) + post.given_up == 1
        assert not workers, "workers of no generation"

    @invariant()
    def few_of_a_generation_start_at_once(self) -> None:
        starting = [worker.post for worker in self.fleet.workers.values() if worker.phase is Phase.STARTING]
        for generation in filter(None, (self.fleet.serving, self.fleet.candidates)):
            assert sum(post in generation.posts for post in starting) <= self.at_once

    @invariant()
    def who_retires_is_what_was_said(self) -> None:
        assert {pid for pid, worker in self.fleet.workers.items() if worker.phase is Phase.RETIRING} == self.retiring

    @invariant()
    def what_is_due_next_is_known(self) -> None:
        next_s = self.fleet.next_s()
        assert bool(self.fleet.due(self.now_s)) == (next_s is not None and next_s <= self.now_s)


TestFleet = FleetMachine.TestCase
TestFleet.settings = examples(100, stateful_step_count=50)
