"""FetchTable: who shares a fetch, who gets one of their own, and what is remembered of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from shmchannel.deadline import Deadline
from tests.support.fetching import failure, table_of
from tests.support.http_values import fields
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import BodyCutShort, OriginTimeout, OriginUnreachable, Overloaded
from webproxy.fetch.job import FetchJob
from webproxy.fetch.spool import BodyFound, Spool, SpoolReader
from webproxy.fetch.table import FetchTable
from webproxy.origin.response_head import OriginResponse


class Job(FetchJob):
    """A job that waits for the test, then answers; `stores` says whether the cache has it afterwards."""

    def __init__(self, key: bytes, spool: Spool, stopping: threading.Event, *, tries: int = 1) -> None:
        super().__init__(key, spool, stopping, tries=tries, window_bytes=1 << 20, go_on_share=0.0)
        self.go = threading.Event()
        self.begun = threading.Event()
        self.errors: list[Exception] = []
        self.attempts = 0
        self.stores = False

    @property
    def name(self) -> str:
        return self.key.decode()

    @property
    def stored(self) -> bool:
        return self.stores

    def attempt(self) -> None:
        self.attempts += 1
        self.begun.set()
        while not (self.go.wait(0.01) or self._stopping.is_set()):
            pass
        if self._stopping.is_set():
            raise OriginTimeout("stopped")
        if self.errors:
            raise self.errors.pop(0)
        self.spool.answer(BodyFound(len(self.key)))
        self.spool.write(self.key)


class Opener:
    """Opens on a table, and remembers each job that was made."""

    def __init__(self, table: FetchTable) -> None:
        self.table = table
        self.made: list[Job] = []

    def __call__(
        self,
        key: bytes,
        missed_at: float = float("inf"),
        *,
        job_key: bytes | None = None,
        join: bool = True,
        prepare: Callable[[Job], None] = lambda job: None,
    ) -> tuple[SpoolReader, bool] | None:
        def make(spool: Spool) -> FetchJob:
            self.made.append(Job(job_key or key, spool, self.table.stopping))
            prepare(self.made[-1])
            return self.made[-1]

        return self.table.open(key, make, missed_at, join=join)

    def new(self, key: bytes, *, join: bool = True) -> SpoolReader:
        opened = self(key, join=join)
        assert opened is not None
        assert not opened[1]
        return opened[0]

    def joined(self, key: bytes) -> SpoolReader:
        opened = self(key)
        assert opened is not None
        assert opened[1]
        return opened[0]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.backoff.FIRST_PAUSE_SECONDS", 0.002)


@pytest.fixture
def opener() -> Iterator[Opener]:
    with table_of(4) as table:
        yield Opener(table)


def length_of(reader: SpoolReader) -> int:
    answer = reader.wait_answer()
    assert isinstance(answer, BodyFound)
    reader.close()
    return answer.length


# -- joining ---------------------------------------------------------------------------------------------------------
def test_the_first_one_begins_and_the_others_join(opener: Opener) -> None:
    first, second = opener.new(b"/x"), opener.joined(b"/x")
    other = opener.new(b"/other")
    for job in opener.made:
        job.go.set()
    assert [length_of(reader) for reader in (first, second, other)] == [2, 2, 6]
    assert (opener.table.fetched_total, opener.table.joined_total) == (2, 1)


def test_who_does_not_want_to_join_has_a_fetch_of_its_own(opener: Opener) -> None:
    opener.new(b"/x")
    alone = opener.new(b"/x", join=False)
    assert len(opener.made) == 2
    assert opener.made[1].begun.wait(WATCHDOG_S), "beside the first one, not behind it"
    opener.made[1].go.set()
    assert length_of(alone) == 2
    assert not opener.made[0].spool.answered


def test_the_latest_fetch_is_joined_and_the_end_of_an_older_one_does_not_hide_it(opener: Opener) -> None:
    older = opener.new(b"/x")
    newer = opener.new(b"/x", join=False)
    opener.made[0].go.set()
    assert length_of(older) == 2
    wait_until(lambda: opener.made[0].spool.fd == -1)  # the table has let go of it
    third = opener.joined(b"/x")
    assert opener.made[1].spool._readers == [newer, third]
    opener.made[1].go.set()
    assert [length_of(reader) for reader in (newer, third)] == [2, 2]


def test_a_fetch_that_ended_is_not_joined(opener: Opener) -> None:
    reader = opener.new(b"/x")
    opener.made[0].go.set()
    assert length_of(reader) == 2
    wait_until(lambda: not opener.table._running)
    opener.new(b"/x")


def test_a_fetch_that_nobody_waits_for_is_dropped_and_not_joined(opener: Opener) -> None:
    blockers = [opener.new(b"/%d" % n) for n in range(4)]
    for job in opener.made:
        assert job.begun.wait(WATCHDOG_S)
    opener.new(b"/x").close()  # before a thread has come to it
    for job in opener.made[:4]:
        job.go.set()
    wait_until(lambda: opener.table.failed_total == 1)
    assert opener.made[4].attempts == 0
    assert [length_of(reader) for reader in blockers] == [2] * 4
    opener.new(b"/x")


def test_who_stays_behind_is_somebody_who_waits(opener: Opener) -> None:
    opener.new(b"/x").detach()
    joined = opener.joined(b"/x")
    opener.made[0].go.set()
    assert length_of(joined) == 2
    wait_until(lambda: opener.made[0].spool.fd == -1)
    assert opener.table.failed_total == 0


# -- purges ----------------------------------------------------------------------------------------------------------
def test_what_is_withdrawn_is_not_joined_and_may_store_nothing(opener: Opener) -> None:
    """Also a fetch that another one has taken the place of; other keys, and who comes later, are not concerned."""
    overtaken, latest = opener.new(b"/x"), opener.new(b"/x", join=False)
    other = opener.new(b"/other")
    assert opener.table.withdraw(b"/x", Deadline.after(WATCHDOG_S))
    assert [job.token.withdrawn for job in opener.made] == [True, True, False]
    later = opener.new(b"/x")
    assert not opener.made[3].token.withdrawn
    opener.joined(b"/x").close()
    assert len(opener.made) == 4
    opener.joined(b"/other").close()
    for job in opener.made:
        job.go.set()
    assert [length_of(reader) for reader in (overtaken, latest, other, later)] == [2, 2, 6, 2]
    wait_until(lambda: not opener.table._living)


def test_a_withdrawal_waits_for_what_is_just_being_stored(opener: Opener) -> None:
    opener.new(b"/x")
    with opener.made[0].token.use() as granted:
        assert granted
        assert not opener.table.withdraw(b"/x", Deadline.after(0.0))
    assert opener.table.withdraw(b"/x", Deadline.after(0.0))


# -- what is remembered ----------------------------------------------------------------------------------------------
def stored(job: Job) -> None:
    job.stores = True
    job.go.set()


def test_who_asked_the_cache_before_the_fill_is_sent_back_to_it(opener: Opener) -> None:
    before = monotonic()
    opened = opener(b"/x", prepare=stored)
    assert opened is not None
    assert length_of(opened[0]) == 2
    wait_until(lambda: not opener.table._running)
    assert opener(b"/x", before) is None
    assert opener(b"/x", monotonic()) is not None
    assert opener(b"/y", before) is not None


def test_what_was_not_stored_is_not_remembered(opener: Opener) -> None:
    before = monotonic()
    reader = opener.new(b"/x")
    opener.made[0].go.set()
    length_of(reader)
    wait_until(lambda: not opener.table._running)
    assert opener(b"/x", before) is not None


def test_a_job_may_have_another_key_than_it_runs_under(opener: Opener) -> None:
    """It is remembered as what it filled, and joined, and forgotten, as what was asked for."""
    before = monotonic()
    opened = opener(b"/asked", job_key=b"/filled", prepare=lambda job: setattr(job, "stores", True))
    assert opened is not None
    second = opener.joined(b"/asked")
    opener.made[0].go.set()
    assert [length_of(reader) for reader in (opened[0], second)] == [7, 7]
    wait_until(lambda: not opener.table._running)
    assert opener(b"/filled", before) is None
    assert opener(b"/asked", before) is not None


# -- tries -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("retryable", "attempts"), [(True, 3), (False, 1)])
def test_only_what_may_help_is_tried_again(opener: Opener, *, retryable: bool, attempts: int) -> None:
    def failing(job: Job) -> None:
        job.tries, job.errors = 3, [OriginTimeout("slow", retryable=retryable) for _ in range(3)]
        job.go.set()

    opened = opener(b"/x", prepare=failing)
    assert opened is not None
    assert isinstance(failure(opened[0]), OriginTimeout)
    assert opener.made[0].attempts == attempts


@pytest.mark.parametrize(("resumable", "attempts"), [(True, 3), (False, 1)])
def test_what_was_begun_is_tried_again_when_it_can_go_on(opener: Opener, *, resumable: bool, attempts: int) -> None:
    def begun(job: Job) -> None:
        job.tries, job.errors = 3, [OriginTimeout("slow", retryable=True) for _ in range(3)]
        job.spool.answer(BodyFound(10))
        if resumable:
            job.note_head(OriginResponse(status=200, fields=fields(b'ETag: "a"'), length=10))
        job.go.set()

    opened = opener(b"/x", prepare=begun)
    assert opened is not None
    with pytest.raises(BodyCutShort):
        opened[0].wait_available()
    assert opener.made[0].attempts == attempts


def test_nobody_waits_any_more_between_two_tries(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.backoff.FIRST_PAUSE_SECONDS", 60.0)

    def failing(job: Job) -> None:
        job.tries, job.errors = 2, [OriginTimeout("slow", retryable=True)]
        job.go.set()

    opened = opener(b"/x", prepare=failing)
    assert opened is not None
    wait_until(lambda: opener.made[0].attempts == 1)
    opened[0].close()
    wait_until(lambda: opener.table.failed_total == 1)
    assert opener.made[0].attempts == 1


def test_what_is_no_error_of_an_origin_fails_the_fetch_and_not_the_thread(opener: Opener) -> None:
    def broken(job: Job) -> None:
        job.errors = [ZeroDivisionError("a bug")]
        job.go.set()

    for _ in range(6):  # more often than there are threads
        opened = opener(b"/x", prepare=broken, join=False)
        assert opened is not None
        assert "a bug" in str(failure(opened[0]))
    assert len(opener.table._threads) <= 4


# -- bounds and the end ----------------------------------------------------------------------------------------------
def test_as_many_wait_as_can_run_and_no_more(opener: Opener) -> None:
    for n in range(4):
        opener.new(b"/%d" % n)
        assert opener.made[n].begun.wait(WATCHDOG_S)
    waiting = [opener.new(b"/%d" % n) for n in range(4, 8)]
    with pytest.raises(Overloaded):
        opener(b"/8")
    opener.joined(b"/7").close()
    for job in opener.made:
        job.go.set()
    assert [length_of(reader) for reader in waiting] == [2] * 4


def test_stopping_is_told_to_jobs_and_refuses_new_ones(opener: Opener) -> None:
    reader = opener.new(b"/x")
    assert opener.made[0].begun.wait(WATCHDOG_S)
    assert not opener.table.stopping.is_set()
    opener.table.stop()
    assert opener.table.stopping.is_set()
    assert isinstance(failure(reader), OriginTimeout)
    with pytest.raises(OriginUnreachable):
        opener(b"/x")
    opener.table.join(WATCHDOG_S)
    assert not any(thread.is_alive() for thread in opener.table._threads)
