"""FetchTable: requests that share a fetch, those that get their own, and the results it remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from shmchannel.deadline import Deadline
from tests.support.fetching import failure, table_of
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import FetchAborted, OriginError, OriginTimeout, OriginUnreachable, Overloaded
from webproxy.fetch.spool import BodyFound, Spool, SpoolReader
from webproxy.fetch.table import FetchTable, Opened
from webproxy.store.fill import StoreToken


class Job:
    """As Fetch: waits for the test, then answers with its key."""

    def __init__(self, plan: Wanted, spool: Spool, stopping: threading.Event) -> None:
        self._key = plan.key
        self.plan = plan
        self.token = StoreToken()
        self.stored = False
        self.go = threading.Event()
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.error: Exception | None = None
        self.spool = self._spool = spool
        self._stopping = stopping

    def run(self) -> OriginError | None:
        if self._spool.abandon():
            return FetchAborted("nobody waits")
        self.begun.set()
        while not (self.go.wait(0.01) or self._stopping.is_set()):
            pass
        if self._stopping.is_set():
            return OriginTimeout("stopped")
        if self.error is not None:
            raise self.error
        self._spool.answer(BodyFound(len(self._key)))
        self._spool.write(self._key)
        return None

    def end(self, error: OriginError | None) -> None:
        self._spool.end(error)
        self.ended.set()


class Wanted:
    """As Plan: remembers the job that was made of it."""

    def __init__(self, opener: Opener, key: bytes, prepare: Callable[[Job], None]) -> None:
        self.key = self.object_key = key
        self.name = key.decode()
        self._opener = opener
        self._prepare = prepare

    def start(self, spool: Spool, stopping: threading.Event) -> Job:
        job = Job(self, spool, stopping)
        self._prepare(job)
        self._opener.made.append(job)
        return job


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
        collapse: bool = True,
        prepare: Callable[[Job], None] = lambda job: None,
    ) -> Opened | None:
        return self.table.open(Wanted(self, key, prepare), missed_at, collapse=collapse)

    def new(self, key: bytes, *, collapse: bool = True) -> SpoolReader:
        opened = self(key, collapse=collapse)
        assert opened is not None
        assert not opened.collapsed
        return opened.reader

    def joined(self, key: bytes) -> SpoolReader:
        opened = self(key)
        assert opened is not None
        assert opened.collapsed
        return opened.reader


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    monkeypatch.setattr("webproxy.fetch.table.Fetch", Wanted.start)
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
    assert (opener.table.fetched_total, opener.table.collapsed_total) == (2, 1)


def test_who_does_not_want_to_join_has_a_fetch_of_its_own(opener: Opener) -> None:
    opener.new(b"/x")
    alone = opener.new(b"/x", collapse=False)
    assert len(opener.made) == 2
    assert opener.made[1].begun.wait(WATCHDOG_S), "beside the first one, not behind it"
    opener.made[1].go.set()
    assert length_of(alone) == 2
    assert not opener.made[0].ended.is_set()


def test_the_latest_fetch_is_joined_and_the_end_of_an_older_one_does_not_hide_it(opener: Opener) -> None:
    older = opener.new(b"/x")
    newer = opener.new(b"/x", collapse=False)
    opener.made[0].go.set()
    assert length_of(older) == 2
    assert opener.made[0].ended.wait(WATCHDOG_S)  # the table has let go of it
    third = opener.joined(b"/x")
    assert len(opener.made) == 2
    opener.made[1].go.set()
    assert [length_of(reader) for reader in (newer, third)] == [2, 2]


def test_a_fetch_that_ended_is_not_joined(opener: Opener) -> None:
    reader = opener.new(b"/x")
    opener.made[0].go.set()
    assert length_of(reader) == 2
    wait_until(lambda: not opener.table.living)
    opener.new(b"/x")


def test_a_fetch_that_nobody_waits_for_is_dropped_and_not_joined(opener: Opener) -> None:
    blockers = [opener.new(b"/%d" % n) for n in range(4)]
    for job in opener.made:
        assert job.begun.wait(WATCHDOG_S)
    opener.new(b"/x").close()  # before a thread has come to it
    for job in opener.made[:4]:
        job.go.set()
    wait_until(lambda: opener.table.failed_total == 1)
    assert not opener.made[4].begun.is_set()
    assert [length_of(reader) for reader in blockers] == [2] * 4
    opener.new(b"/x")


def test_a_detached_reader_is_somebody_who_waits(opener: Opener) -> None:
    opener.new(b"/x").detach()
    joined = opener.joined(b"/x")
    opener.made[0].go.set()
    assert length_of(joined) == 2
    assert opener.made[0].ended.wait(WATCHDOG_S)
    assert opener.table.failed_total == 0


# -- purges ----------------------------------------------------------------------------------------------------------
def test_what_is_revoked_is_not_joined_and_storing_refused_nothing(opener: Opener) -> None:
    """Also a fetch that another one has taken the place of; other keys, and who comes later, are not concerned."""
    overtaken, latest = opener.new(b"/x"), opener.new(b"/x", collapse=False)
    other = opener.new(b"/other")
    assert opener.table.revoke(b"/x", Deadline.after(WATCHDOG_S))
    assert [job.token.revoked for job in opener.made] == [True, True, False]
    later = opener.new(b"/x")
    assert not opener.made[3].token.revoked
    opener.joined(b"/x").close()
    assert len(opener.made) == 4
    opener.joined(b"/other").close()
    for job in opener.made:
        job.go.set()
    assert [length_of(reader) for reader in (overtaken, latest, other, later)] == [2, 2, 6, 2]
    wait_until(lambda: not opener.table.living)


def test_a_revocation_waits_for_what_is_just_being_stored(opener: Opener) -> None:
    opener.new(b"/x")
    with opener.made[0].token.use() as granted:
        assert granted
        assert not opener.table.revoke(b"/x", Deadline.after(0.0))
    assert opener.table.revoke(b"/x", Deadline.after(0.0))


# -- what is remembered ----------------------------------------------------------------------------------------------
def stored(job: Job) -> None:
    job.stored = True
    job.go.set()


def test_who_asked_the_cache_before_the_fill_is_sent_back_to_it(opener: Opener) -> None:
    before = monotonic()
    opened = opener(b"/x", prepare=stored)
    assert opened is not None
    assert length_of(opened.reader) == 2
    wait_until(lambda: not opener.table.living)
    assert opener(b"/x", before) is None
    assert opener(b"/x", monotonic()) is not None
    assert opener(b"/y", before) is not None


def test_what_was_not_stored_is_not_remembered(opener: Opener) -> None:
    before = monotonic()
    reader = opener.new(b"/x")
    opener.made[0].go.set()
    length_of(reader)
    wait_until(lambda: not opener.table.living)
    assert opener(b"/x", before) is not None


# -- failures ------------------------------------------------------------------------------------------------------
def test_what_is_no_error_of_an_origin_fails_the_fetch_and_not_the_thread(opener: Opener) -> None:
    def broken(job: Job) -> None:
        job.error = ZeroDivisionError("a bug")
        job.go.set()

    for _ in range(6):  # more often than there are threads
        opened = opener(b"/x", prepare=broken, collapse=False)
        assert opened is not None
        assert "a bug" in str(failure(opened.reader))
    assert sum(thread.name.startswith("fetch-") for thread in threading.enumerate()) <= 4


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
    opener.table.stop()
    assert isinstance(failure(reader), OriginTimeout)
    with pytest.raises(OriginUnreachable):
        opener(b"/x")
    opener.table.join(WATCHDOG_S)
    assert not any(thread.name.startswith("fetch-") for thread in threading.enumerate())
