"""FetchTable: requests that share a fetch, those that get their own, and the results it remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import cast

import pytest

from shmchannel.deadline import Deadline
from tests.support.failing import failing
from tests.support.fetching import failure, table_of, wait_answer
from tests.support.waiting import WATCHDOG_S
from webproxy.errors import OriginError, OriginTimeout, OriginUnreachable, Overloaded
from webproxy.fetch.lease_book import Standing
from webproxy.fetch.plan import Plan
from webproxy.fetch.spool import BodyFound, Spool, SpoolReader
from webproxy.fetch.strand import Crew
from webproxy.fetch.table import FetchTable, Opened
from webproxy.store.fill import StoreToken


class Job:
    """As Fetch: does nothing until the test finishes it, then answers with its key."""

    def __init__(self, plan: Wanted, spool: Spool, stopping: threading.Event, on_over: Callable[[Job], None]) -> None:
        self.plan = plan
        self.spool = spool
        self.token = StoreToken()
        self.stored = False
        self.tells_failure = False
        self.tells_passing_failure = False
        self.is_unshared = False
        self.failure: OriginError | None = None
        self.is_begun = False
        self.begun_by = b""
        self._stopping = stopping
        self._on_over = on_over

    def start(self) -> None:
        self.is_begun = True
        if self._stopping.is_set():
            self.finish(OriginTimeout("stopped"))

    def stop(self) -> None:
        self.finish(OriginTimeout("stopped"))

    def finish(self, failure: OriginError | None = None) -> None:
        self.failure = failure
        if failure is None:
            self.spool.answer(BodyFound(len(self.plan.key)))
            self.spool.write(self.plan.key)
        self._on_over(self)
        self.spool.end(failure)


class Wanted:
    """As Plan: remembers the job that was made of it."""

    def __init__(
        self, opener: Opener, key: bytes, prepare: Callable[[Job], None], lease: int = 0, *, follows: bool = False
    ) -> None:
        self.key = self.object_key = key
        self.lease = lease
        self.follows = follows
        self.name = key.decode()
        self._opener = opener
        self._prepare = prepare

    def start(self, spool: Spool, _crew: Crew, stopping: threading.Event, on_over: Callable[[Job], None]) -> Job:
        job = Job(self, spool, stopping, on_over)
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
        lease: int = 0,
        follows: bool = False,
    ) -> Opened | None:
        plan = cast(Plan, Wanted(self, key, prepare, lease, follows=follows))
        return self.table.open(plan, missed_at, collapse=collapse)

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
    answer = wait_answer(reader)
    assert isinstance(answer, BodyFound)
    reader.close()
    return answer.length


# -- joining ---------------------------------------------------------------------------------------------------------
def test_the_first_one_begins_and_the_others_join(opener: Opener) -> None:
    first, second = opener.new(b"/x"), opener.joined(b"/x")
    other = opener.new(b"/other")
    for job in opener.made:
        job.finish()
    assert [length_of(reader) for reader in (first, second, other)] == [2, 2, 6]
    assert (opener.table.fetched_total, opener.table.collapsed_total) == (2, 1)


def test_who_does_not_want_to_join_has_a_fetch_of_its_own(opener: Opener) -> None:
    opener.new(b"/x")
    alone = opener.new(b"/x", collapse=False)
    assert len(opener.made) == 2
    assert all(job.is_begun for job in opener.made), "beside the first one, not behind it"
    opener.made[1].finish()
    assert length_of(alone) == 2
    assert [fetch.spool for fetch in opener.table.living] == [opener.made[0].spool]


def test_the_latest_fetch_is_joined_and_the_end_of_an_older_one_does_not_hide_it(opener: Opener) -> None:
    older = opener.new(b"/x")
    newer = opener.new(b"/x", collapse=False)
    opener.made[0].finish()
    assert length_of(older) == 2
    third = opener.joined(b"/x")
    assert len(opener.made) == 2
    opener.made[1].finish()
    assert [length_of(reader) for reader in (newer, third)] == [2, 2]


def test_a_fetch_that_ended_is_not_joined(opener: Opener) -> None:
    reader = opener.new(b"/x")
    opener.made[0].finish()
    assert length_of(reader) == 2
    assert not opener.table.living
    opener.new(b"/x")


def test_a_fetch_leaves_the_table_before_its_readers_hear_of_its_end(opener: Opener) -> None:
    """Whoever fails with it and asks again must not be collapsed into the same failure."""
    reader = opener.new(b"/x")
    assert reader.subscribe(lambda: opener.new(b"/x").close())
    opener.made[0].finish(OriginTimeout("too slow"))
    assert isinstance(failure(reader), OriginTimeout)
    assert len(opener.made) == 2
    assert opener.table.failed_total == 1


def test_a_fetch_that_is_abandoned_is_not_joined(opener: Opener) -> None:
    opener.new(b"/x").close()
    assert opener.made[0].spool.abandon()
    opener.new(b"/x")


def test_a_detached_reader_is_somebody_who_waits(opener: Opener) -> None:
    opener.new(b"/x").detach()
    joined = opener.joined(b"/x")
    opener.made[0].finish()
    assert length_of(joined) == 2
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
        job.finish()
    assert [length_of(reader) for reader in (overtaken, latest, other, later)] == [2, 2, 6, 2]
    assert not opener.table.living


def test_a_revocation_waits_for_what_is_just_being_stored(opener: Opener) -> None:
    opener.new(b"/x")
    with opener.made[0].token.use() as granted:
        assert granted
        assert not opener.table.revoke(b"/x", Deadline.after(0.0))
    assert opener.table.revoke(b"/x", Deadline.after(0.0))


# -- what is remembered ----------------------------------------------------------------------------------------------
def stored(job: Job) -> None:
    job.stored = True


def test_who_asked_the_cache_before_the_fill_is_sent_back_to_it(opener: Opener) -> None:
    before = monotonic()
    opened = opener(b"/x", prepare=stored)
    assert opened is not None
    opener.made[0].finish()
    assert length_of(opened.reader) == 2
    assert opener(b"/x", before) is None
    assert opener(b"/x", monotonic()) is not None
    assert opener(b"/y", before) is not None


def test_what_was_not_stored_is_not_remembered(opener: Opener) -> None:
    before = monotonic()
    reader = opener.new(b"/x")
    opener.made[0].finish()
    length_of(reader)
    assert opener(b"/x", before) is not None


# -- failures that serve others --------------------------------------------------------------------------------------
@pytest.fixture
def sharing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Failures are shared for longer than any test lasts, or until it says so."""
    monkeypatch.setattr("webproxy.fetch.table.Fetch", Wanted.start)
    monkeypatch.setattr("webproxy.fetch.table.Spool", partial(Spool, memory_bytes_max=0))  # a file shows who keeps it
    table = FetchTable(threads=1, spool_directory=None, failures_s=1000.0)
    try:
        yield Opener(table)
    finally:
        table.stop(WATCHDOG_S)


def failed(opener: Opener, key: bytes) -> None:
    """A fetch whose answer, which tells a failure, was read to its end."""
    reader = opener.new(key)
    opener.made[-1].tells_failure = True
    opener.made[-1].finish()
    assert length_of(reader) == len(key)


def test_a_failure_that_is_not_shared_serves_nobody_who_asks_before_its_fetch_has_ended(opener: Opener) -> None:
    opener.new(b"/x")
    opener.joined(b"/x")
    opener.made[0].tells_passing_failure = True
    opener.new(b"/x")


def test_a_failure_serves_who_asks_a_moment_later(sharing: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(sharing, b"/x")
    for _ in range(3):
        assert length_of(sharing.joined(b"/x")) == 2
    spool = sharing.made[0].spool
    assert spool.fd >= 0
    monkeypatch.setattr("webproxy.fetch.table.monotonic", lambda: monotonic() + 2000.0)
    sharing.new(b"/x")
    assert spool.fd == -1


def test_a_purge_ends_what_is_shared_of_a_failure(sharing: Opener) -> None:
    failed(sharing, b"/x")
    failed(sharing, b"/y")
    assert sharing.table.revoke(b"/x", Deadline.after(WATCHDOG_S))
    assert sharing.made[0].spool.fd == -1
    sharing.new(b"/x")
    assert length_of(sharing.joined(b"/y")) == 2


def test_only_so_many_failures_are_kept(sharing: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.table.LINGERING_MAX", 2)
    for key in (b"/0", b"/1", b"/2"):
        failed(sharing, key)
    assert [job.spool.fd == -1 for job in sharing.made] == [True, False, False]
    sharing.table.stop(WATCHDOG_S)
    assert all(job.spool.fd == -1 for job in sharing.made)


# -- bounds and the end ----------------------------------------------------------------------------------------------
def test_so_many_live_and_no_more(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.table.LIVING_MAX", 4)
    readers = [opener.new(b"/%d" % n) for n in range(4)]
    with pytest.raises(Overloaded, match="4 fetches"):
        opener(b"/4")
    opener.joined(b"/3").close()
    opener.made[0].finish()
    readers.append(opener.new(b"/4"))
    for job in opener.made[1:]:
        job.finish()
    assert [length_of(reader) for reader in readers] == [2] * 5


def test_without_any_thread_a_fetch_is_refused(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is a task of one: its readers would wait for ever."""
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", failing(RuntimeError("can't start new thread")))
        with pytest.raises(Overloaded, match="no thread"):
            opener(b"/x")
    opener.new(b"/x")


def test_stopping_is_told_to_fetches_and_refuses_new_ones(opener: Opener) -> None:
    reader = opener.new(b"/x")
    opener.table.stop(WATCHDOG_S)
    assert isinstance(failure(reader), OriginTimeout)
    with pytest.raises(OriginUnreachable):
        opener(b"/x")
    assert not any(thread.name.startswith("fetch-") for thread in threading.enumerate())


def test_stopping_waits_for_fetches_no_longer_than_it_is_told(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    opener.new(b"/x")
    monkeypatch.setattr(Job, "stop", lambda _job: None)
    opener.table.stop(0.01)
    assert [fetch.spool for fetch in opener.table.living] == [opener.made[0].spool]
    monkeypatch.undo()
    opener.made[0].finish()


# -- leases ----------------------------------------------------------------------------------------------------------
def test_another_process_reads_what_is_fetched_under_a_lease(opener: Opener) -> None:
    opened = opener(b"a", lease=7)
    assert opened is not None
    reader = opener.table.follow(7, b"a")
    assert isinstance(reader, SpoolReader)
    assert opener.table.follow(8, b"a") is Standing.GONE
    opener.made[0].finish()
    assert length_of(reader) == 1
    assert opener.table.follow(7, b"a") is Standing.GONE, "the cache has it now, or it was not stored"
    reader.close()
    opened.reader.close()


def test_a_request_that_joins_brings_a_lease_to_the_fetch(opener: Opener) -> None:
    """The cache has forgotten the first one."""
    readers = [opener.new(b"a")]
    for number in (7, 8):
        opened = opener(b"a", lease=number)
        assert opened is not None
        assert opened.collapsed
        readers.append(opened.reader)
        found = opener.table.follow(number, b"a")
        assert isinstance(found, SpoolReader)
        readers.append(found)
    opener.made[0].finish()
    assert [length_of(reader) for reader in readers] == [1] * 5


def test_a_response_for_one_alone_is_remembered(opener: Opener) -> None:
    opened = opener(b"a", lease=7)
    assert opened is not None
    opener.made[0].is_unshared = True
    opener.made[0].finish()
    assert opener.table.follow(7, b"a") is Standing.UNSHARED


def test_a_revoked_fetch_is_not_followed(opener: Opener) -> None:
    opened = opener(b"a", lease=7)
    assert opened is not None
    assert opener.table.revoke(b"a", Deadline.after(WATCHDOG_S))
    assert opener.table.follow(7, b"a") is Standing.GONE


def test_a_fetch_that_follows_is_no_holder(opener: Opener) -> None:
    """Nothing is forwarded twice. Its first request counts as collapsed: the fetch is another process's."""
    opened = opener(b"a", lease=7, follows=True)
    assert opened is not None
    assert opened.collapsed
    assert opener.table.follow(7, b"a") is Standing.GONE
    assert (opener.table.fetched_total, opener.table.followed_total) == (0, 1)


@pytest.mark.parametrize(
    ("lease", "follows", "joins"), [(7, True, True), (0, False, True), (8, True, False), (8, False, False)]
)
def test_who_joins_a_fetch_that_follows(opener: Opener, lease: int, follows: bool, joins: bool) -> None:
    """Another lease means that the one that is followed was purged, or has passed on."""
    opener(b"a", lease=7, follows=True)
    opener(b"a", lease=lease, follows=follows)
    assert len(opener.made) == (1 if joins else 2)


def test_a_failure_that_lingers_serves_followers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.table.Fetch", Wanted.start)
    opener = Opener(FetchTable(threads=1, spool_directory=None, failures_s=60.0))
    opened = opener(b"a", lease=7)
    assert opened is not None
    opener.made[0].tells_failure = True
    opener.made[0].finish()
    reader = opener.table.follow(7, b"a")
    assert isinstance(reader, SpoolReader)
    reader.close()
    opener.table.revoke(b"a", Deadline.after(WATCHDOG_S))
    assert opener.table.follow(7, b"a") is Standing.GONE
    opener.table.stop(WATCHDOG_S)
