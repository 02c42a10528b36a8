"""fleet: what is done about workers that end, are silent, or cannot start, and when a generation takes over."""

from __future__ import annotations

import signal

import pytest

from shmchannel.daemonkit.exits import ExitCode
from webproxy.daemon.fleet import (
    BACKOFF_MAX_S,
    BACKOFF_MIN_S,
    FORGIVEN_AFTER_S,
    Exit,
    Fleet,
    FleetLimits,
    Phase,
    Progress,
)

LIMITS = FleetLimits(start_s=10, silence_s=30, retire_s=15)
KILLED = -signal.SIGKILL


class Life:
    """A fleet with a clock and pids of its own: 1, 2, and so on."""

    def __init__(self, size: int = 0) -> None:
        """With a size, so many workers serve."""
        self.fleet = Fleet(at_once=4)
        self.now_s = 1000.0
        self.pid = 0
        if size:
            self.fleet.begin(size, LIMITS, self.now_s)
            self.ready(*self.start())
            self.fleet.promote(self.now_s)

    def start(self) -> list[int]:
        """Start a worker for each post that is due; returns their pids."""
        pids = []
        for post, slot in self.fleet.due(self.now_s):
            self.pid += 1
            self.fleet.started(post, slot, self.pid, self.now_s)
            pids.append(self.pid)
        return pids

    def ready(self, *pids: int) -> None:
        for pid in pids:
            assert self.fleet.beat(pid, self.now_s, is_ready=True) is self.fleet.workers[pid]

    def ends(self, pid: int, status: int = KILLED) -> Exit:
        found = self.fleet.exited(pid, status, self.now_s)
        assert found is not None
        return found

    def reload(self, size: int, limits: FleetLimits = LIMITS) -> list[int]:
        """Start the candidates; returns their pids."""
        self.fleet.begin(size, limits, self.now_s)
        return self.start()

    def progress(self) -> Progress:
        return self.fleet.progress(self.fleet.candidates or self.fleet.serving)

    def slots(self) -> dict[int, int]:
        return {worker.pid: worker.slot for worker in self.fleet.workers.values()}


def test_a_generation_is_ready_once_each_worker_is() -> None:
    life = Life()
    pids = life.reload(3)
    assert (pids, life.start(), life.progress()) == ([1, 2, 3], [], Progress.STARTING)
    life.ready(1, 3)
    assert life.progress() is Progress.STARTING
    life.ready(2)
    assert life.progress() is Progress.READY
    assert life.fleet.promote(life.now_s) == []


def test_of_many_workers_a_few_start_at_once_and_the_others_as_these_are_ready_or_end() -> None:
    life = Life()
    assert life.reload(64) == [1, 2, 3, 4]
    assert (life.start(), life.fleet.next_s()) == ([], None), "there is nothing to wake up for"
    life.ready(1, 3)
    assert life.start() == [5, 6]
    life.ends(2, ExitCode.CANNOT_START)
    assert life.start() == [7]
    while life.progress() is Progress.STARTING:
        starting = [worker for worker in life.fleet.workers.values() if worker.phase is Phase.STARTING]
        assert 0 < len(starting) <= 4
        life.ready(*(worker.pid for worker in starting))
        life.start()
    assert (life.progress(), life.pid) == (Progress.READY, 64)


def test_a_worker_is_replaced_at_once_while_candidates_start() -> None:
    life = Life(2)
    assert len(life.reload(64)) == 4
    life.ends(1)
    life.now_s += BACKOFF_MIN_S
    assert life.start() == [2 + 4 + 1]


def test_a_worker_becomes_ready_once() -> None:
    life = Life(1)
    assert life.fleet.beat(1, life.now_s, is_ready=True) is None
    assert life.fleet.beat(99, life.now_s, is_ready=True) is None


def test_pauses_double_up_to_a_limit_and_a_long_life_ends_that() -> None:
    life, pauses = Life(2), []
    pid = 2
    for _ in range(9):
        found = life.ends(pid)
        assert found.unasked
        assert found.pause_s is not None
        pauses.append(found.pause_s)
        due_s = life.fleet.next_s()
        assert due_s == life.now_s + found.pause_s
        life.now_s = due_s - 0.01
        assert life.start() == []
        life.now_s = due_s
        (pid,) = life.start()
        life.ready(pid)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert life.fleet.restarts_total == 9
    life.now_s += FORGIVEN_AFTER_S
    assert life.ends(pid).pause_s == BACKOFF_MIN_S


def test_the_last_one_is_always_replaced_soon() -> None:
    life = Life(1)
    for _ in range(8):
        assert life.ends(life.pid).pause_s == BACKOFF_MIN_S < BACKOFF_MAX_S
        life.now_s += BACKOFF_MIN_S
        life.ready(*life.start())


def test_a_process_that_could_not_be_started_is_tried_again_later() -> None:
    life = Life()
    life.fleet.begin(1, LIMITS, life.now_s)
    ((post, _slot),) = life.fleet.due(life.now_s)
    pause_s = life.fleet.not_started(post, life.now_s)
    assert (life.fleet.due(life.now_s), life.fleet.next_s()) == ([], life.now_s + pause_s)
    assert life.progress() is Progress.STARTING, "there is nothing else that could serve"


@pytest.mark.parametrize("status", [ExitCode.USAGE, ExitCode.CANNOT_START, ExitCode.LOCK_HELD])
def test_one_that_cannot_start_is_not_replaced_and_the_others_serve(status: int) -> None:
    life = Life()
    life.reload(2)
    assert life.ends(1, status).pause_s is None
    life.ready(2)
    assert (life.progress(), life.fleet.next_s()) == (Progress.READY, None)


def test_if_no_worker_can_start_the_generation_is_refused() -> None:
    life = Life()
    life.reload(2)
    life.ends(1, ExitCode.CANNOT_START)
    life.ends(2, ExitCode.CANNOT_START)
    assert life.progress() is Progress.REFUSED
    assert [post.exit_status for post in life.fleet.candidates.posts] == [69, 69] if life.fleet.candidates else False


def test_that_status_of_a_worker_that_has_served_means_nothing_special() -> None:
    life = Life(2)
    assert life.ends(1, ExitCode.CANNOT_START).pause_s == BACKOFF_MIN_S


def test_where_one_has_served_a_shortage_may_pass_and_its_successor_is_tried_again() -> None:
    life = Life(2)
    life.now_s += FORGIVEN_AFTER_S
    life.ends(1)
    for pause_s in (1.0, 2.0, 4.0):
        life.now_s += BACKOFF_MAX_S
        (pid,) = life.start()
        assert life.ends(pid, ExitCode.CANNOT_START).pause_s == pause_s
    life.now_s += BACKOFF_MAX_S
    life.ready(*life.start())
    assert life.progress() is Progress.READY


@pytest.mark.parametrize("status", [KILLED, ExitCode.CANNOT_START, ExitCode.OK, ExitCode.SOFTWARE])
def test_one_candidate_that_ends_refuses_a_reload_and_the_old_ones_serve_on(status: int) -> None:
    life = Life(2)
    candidates = life.reload(2)
    life.ready(candidates[0])
    life.ends(candidates[1], status)
    assert life.progress() is Progress.REFUSED
    assert life.fleet.abandon(life.now_s) == [candidates[0]]
    assert not life.ends(candidates[0], ExitCode.OK).unasked
    assert life.progress() is Progress.READY
    assert sorted(life.fleet.workers) == [1, 2]


def test_a_candidate_that_could_not_be_started_refuses_a_reload() -> None:
    life = Life(1)
    life.fleet.begin(1, LIMITS, life.now_s)
    ((post, _slot),) = life.fleet.due(life.now_s)
    life.fleet.not_started(post, life.now_s)
    assert life.progress() is Progress.REFUSED


def test_a_worker_that_ends_during_a_reload_is_replaced_with_the_old_settings() -> None:
    life = Life(2)
    candidates = life.reload(2)
    assert life.ends(1).pause_s == BACKOFF_MIN_S
    life.now_s += BACKOFF_MIN_S
    ((post, _slot),) = life.fleet.due(life.now_s)
    assert post in life.fleet.serving.posts
    life.ready(*candidates)
    assert life.progress() is Progress.READY


def test_the_old_ones_retire_and_are_not_replaced() -> None:
    life = Life(2)
    life.ready(*life.reload(1))
    assert life.fleet.promote(life.now_s) == [1, 2]
    found = life.ends(1)
    assert (found.unasked, found.pause_s, found.worker.was_starting) == (False, None, False)
    assert (life.fleet.due(life.now_s + 100), life.fleet.restarts_total) == ([], 0)


def test_the_replacement_of_a_worker_that_had_ended_retires_unready() -> None:
    life = Life(2)
    life.ends(1)
    life.now_s += 1
    (replacement,) = life.start()
    life.ready(*life.reload(1))
    assert replacement in life.fleet.promote(life.now_s)
    assert life.fleet.beat(replacement, life.now_s, is_ready=True) is None
    assert life.ends(replacement, -signal.SIGUSR2).worker.was_starting


def test_each_slot_has_one_worker_and_is_given_again() -> None:
    life = Life(2)
    assert life.slots() == {1: 0, 2: 1}
    life.ready(*life.reload(2))
    life.fleet.promote(life.now_s)
    assert life.slots() == {1: 0, 2: 1, 3: 2, 4: 3}
    life.ends(1)
    life.ends(4)
    life.now_s += 1
    assert life.start() == [5]
    assert life.slots() == {2: 1, 3: 2, 5: 0}


def test_the_slot_of_one_that_retires_is_not_given_to_another() -> None:
    life = Life(1)
    life.ready(*life.reload(1))
    life.fleet.promote(life.now_s)
    life.ends(2)
    life.now_s += 1
    life.start()
    assert life.slots() == {1: 0, 3: 1}


def overdue(life: Life) -> list[int]:
    return [worker.pid for worker in life.fleet.overdue(life.now_s)]


def test_silence_is_from_one_sign_of_life_to_the_next() -> None:
    life = Life(2)
    life.now_s += 20
    life.fleet.beat(2, life.now_s)
    life.now_s += 10.5
    assert overdue(life) == [1]
    assert overdue(life) == [], "it is killed once"


def test_signs_of_life_do_not_prolong_a_start() -> None:
    life = Life()
    life.reload(1)
    life.now_s += 9
    life.fleet.beat(1, life.now_s)
    life.now_s += 1.5
    assert overdue(life) == [1]


def test_each_generation_has_its_own_time_to_end() -> None:
    life = Life(1)
    short = FleetLimits(start_s=10, silence_s=30, retire_s=5)
    life.ready(*life.reload(1, short))
    life.fleet.promote(life.now_s)
    assert life.fleet.retire_s() == LIMITS.retire_s
    life.now_s += 14
    assert overdue(life) == []
    life.now_s += 2
    assert overdue(life) == [1]
    life.ends(1)
    assert life.fleet.stop(life.now_s) == [2]
    assert life.fleet.retire_s() == 5


def test_a_second_reason_to_retire_does_not_prolong_it() -> None:
    life = Life(1)
    life.fleet.stop(life.now_s)
    life.now_s += 10
    assert life.fleet.stop(life.now_s) == [1]
    life.now_s += 6
    assert overdue(life) == [1]


def test_nobody_is_blamed_for_a_time_in_which_nobody_was_heard() -> None:
    life = Life(1)
    life.now_s += 100
    life.fleet.forgive_silence(100)
    assert overdue(life) == []


def test_after_a_stop_nothing_is_due() -> None:
    life = Life(2)
    life.ends(1)
    life.reload(2)
    assert sorted(life.fleet.stop(life.now_s)) == [2, 3, 4]
    assert (life.fleet.next_s(), life.fleet.due(life.now_s + 100)) == (None, [])
    assert life.fleet.exited(99, 0, life.now_s) is None
