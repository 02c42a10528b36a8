"""FetchJob: when does a fetch wait, go on or end, as clients and the cache come and go?"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.fetching import FakeFill
from tests.support.http_values import fields
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.errors import BodyCutShort, OriginBadReply, OriginTimeout
from webproxy.fetch.job import FetchJob
from webproxy.fetch.spool import PUNCH_BYTES, BodyFound, Spool, SpoolReader
from webproxy.origin.response_head import OriginResponse

WINDOW = 1000


class Job(FetchJob):
    """A job whose body the test writes."""

    def __init__(self, length: int | None, go_on_share: float, *, with_fill: bool) -> None:
        self.stop = threading.Event()
        spool = Spool(None)
        super().__init__(b"/x", spool, self.stop, tries=1, window_bytes=WINDOW, go_on_share=go_on_share)
        self.reader = joined(spool)
        self.fake = FakeFill(b"/x", spool)
        self.fake.taken = 0
        if with_fill:
            self.fill = self.fake
        self._length = length
        if length is not None:
            spool.answer(BodyFound(length))
            self.fake.set_size(length)


def joined(spool: Spool) -> SpoolReader:
    reader = spool.join()
    assert reader is not None
    return reader


class Jobs:
    """Makes jobs, and ends them after the test."""

    def __init__(self) -> None:
        self._made: list[Job] = []

    def __call__(self, length: int | None, go_on_share: float = 0.0, *, with_fill: bool = True) -> Job:
        self._made.append(Job(length, go_on_share, with_fill=with_fill))
        return self._made[-1]

    def end(self) -> None:
        for job in self._made:
            job.end(None)
            job.reader.close()
            assert job.spool.fd == -1


@pytest.fixture
def make() -> Iterator[Jobs]:
    jobs = Jobs()
    yield jobs
    jobs.end()


# -- the clients have left -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("written", "share", "goes_on"),
    [
        (0, 0.0, True),
        (0, 0.5, False),
        (499, 0.5, False),
        (500, 0.5, True),
        (999, 1.0, False),
        (1000, 1.0, True),
    ],
)
def test_it_goes_on_for_the_cache_from_its_share_on(make: Jobs, written: int, share: float, *, goes_on: bool) -> None:
    job = make(1000, share)
    job.write(bytes(written))
    assert not job.idle(), "somebody reads"
    job.reader.close()
    assert job.idle() is not goes_on
    late = job.spool.join()
    assert (late is not None) is goes_on, "what has ended takes nobody in"
    if late is not None:
        late.close()


def test_below_its_share_a_second_client_keeps_it(make: Jobs) -> None:
    job = make(1000, 0.5)
    second = joined(job.spool)
    job.write(bytes(100))
    job.reader.close()
    assert not job.idle()
    second.close()
    assert job.idle()


def test_a_reader_that_stays_behind_keeps_it_below_its_share(make: Jobs) -> None:
    job = make(1000, 0.5)
    job.write(bytes(100))
    job.reader.detach()
    assert not job.idle()


def test_a_length_that_nobody_knows_has_no_share(make: Jobs) -> None:
    job = make(None, 1.0)
    job.write(bytes(100))
    job.reader.close()
    assert not job.idle(), "the cache takes it"
    job.fake.taken = None
    assert job.idle()


def test_without_a_cache_it_ends_whatever_its_share_is(make: Jobs) -> None:
    job = make(1000, with_fill=False)
    job.write(bytes(999))
    job.reader.close()
    assert job.idle()


def test_a_complete_body_is_for_the_cache_also_when_its_readers_have_left(make: Jobs) -> None:
    """The fill gave way, the last byte has come, and the client is off before the origin client looks up."""
    job = make(6, 1.0)
    job.fake.takes, job.fake.taken = False, None
    job.write(b"abc")
    assert not job.idle()
    job.write(b"def")
    job.reader.close()
    assert not job.idle()
    assert not job.stored
    job.fake.finish()
    assert job.stored


def test_it_ends_at_once_when_the_daemon_stops(make: Jobs) -> None:
    job = make(1000)
    assert not job.idle()
    job.stop.set()
    assert job.idle()


def test_the_fill_gives_way_when_a_hit_waits(make: Jobs) -> None:
    job = make(1000)
    job.write(bytes(100))
    assert job.fake.taken == 100
    job.fake.waited_for = True
    assert not job.idle()
    assert job.fake.taken is None


# -- the window ------------------------------------------------------------------------------------------------------
def is_waiting(job: Job) -> bool:
    return job.spool.written > WINDOW


@pytest.mark.parametrize(
    "how", ["the reader moves", "the reader leaves", "the reader stays behind", "the daemon stops"]
)
def test_it_waits_for_its_fastest_reader_until(make: Jobs, how: str) -> None:
    job = make(10_000, with_fill=False)
    with ThreadPoolExecutor(1) as crew:
        writing = crew.submit(job.write, bytes(WINDOW + 1))
        wait_until(lambda: is_waiting(job))
        assert not writing.done()
        if how == "moves":
            job.reader.advance(1)
        elif how == "leaves":
            job.reader.close()
        elif how == "stays behind":
            job.reader.detach()
        else:
            job.stop.set()
        writing.result(WATCHDOG_S)


def test_it_does_not_wait_before_there_is_an_answer(make: Jobs) -> None:
    """Its length is unknown: the readers are told when all of it is there."""
    job = make(None, with_fill=False)
    job.write(bytes(10 * WINDOW))
    assert job.spool.written == 10 * WINDOW


def test_it_waits_for_a_cache_that_takes_it_when_the_clients_have_left(make: Jobs) -> None:
    """At least for a chunk: the fill moves in whole ones."""
    job = make(1 << 20)
    job.reader.close()
    job.fake.takes = False
    job.write(bytes(job.fake.chunk_bytes))  # within what a fill may hold back
    with ThreadPoolExecutor(1) as crew:
        writing = crew.submit(job.write, b"x")
        wait_until(lambda: job.spool.written > job.fake.chunk_bytes)
        assert not writing.done()
        job.fake.takes = True
        writing.result(WATCHDOG_S)


def test_a_fill_that_gave_up_lets_the_disk_be_freed(make: Jobs) -> None:
    job = make(8 * PUNCH_BYTES)
    data = os.urandom(PUNCH_BYTES)
    job.reader.detach()
    job.write(data)
    joined(job.spool).close()  # all is there yet, for a fill that begins anew
    job.fake.given_up = True
    job.fake.taken, job.fake.takes = None, False
    job.write(data)
    assert os.fstat(job.spool.fd).st_blocks * 512 < PUNCH_BYTES
    assert job.spool.join() is None


# -- a body that broke off -------------------------------------------------------------------------------------------
HEAD = OriginResponse(status=200, fields=fields(b'ETag: "a"'), length=1000)


def rest(*lines: bytes, status: int = 206, length: int = 997) -> OriginResponse:
    return OriginResponse(status=status, fields=fields(b'ETag: "a"', *lines), length=length)


def test_what_the_readers_were_told_says_whether_it_can_go_on(make: Jobs) -> None:
    untold, told, known = make(None), make(1000), make(1000)
    assert untold.can_go_on
    assert not told.can_go_on, "of no validator"
    known.note_head(HEAD)
    assert known.can_go_on
    known.write(bytes(1000))
    assert not known.can_go_on, "all of it is there"


def test_the_rest_is_asked_for_from_where_it_broke_off(make: Jobs) -> None:
    job = make(1000)
    plain = fields(b"Accept: */*")
    assert job.rest_of(plain) == plain
    job.note_head(HEAD)
    job.write(b"abc")
    assert job.rest_of(plain) == fields(b"Accept: */*", b"Range: bytes=3-", b'If-Range: "a"')


def test_only_the_rest_is_taken(make: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "name", "it")
    job = make(1000)
    job.note_head(HEAD)
    job.write(b"abc")
    job.begin_rest(rest(b"Content-Range: bytes 3-999/1000"))
    for answer, again in [
        (rest(b"Content-Range: bytes 4-999/1000"), False),
        (rest(status=200), False),
        (rest(status=416), False),
        (rest(status=503), True),
    ]:
        with pytest.raises(OriginBadReply) as caught:
            job.begin_rest(answer)
        assert (caught.value.status, caught.value.retryable) == (answer.status, again)


def test_a_body_has_the_length_that_was_said(make: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "name", "it")
    job = make(4)
    job.write(b"abc")
    with pytest.raises(OriginBadReply, match="3 of 4") as caught:
        job.check_whole()
    assert caught.value.retryable
    with pytest.raises(OriginBadReply, match="more than"):
        job.write(b"de")
    job.write(b"d")
    job.check_whole()
    make(None).check_whole()


# -- the end ---------------------------------------------------------------------------------------------------------
def test_the_readers_are_told_before_the_cache(make: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make(1000)
    told: list[str] = []
    monkeypatch.setattr(job.spool, "end", lambda error: told.append(str(error)))
    with monkeypatch.context() as patched:
        patched.setattr(job.fake, "cancel", lambda: told.append("cancel"))
        job.end(OriginTimeout("stalled"))
    assert told == ["stalled", "cancel"]
    monkeypatch.undo()


def test_an_end_in_mid_body_is_short_for_clients_and_cancelled_for_the_cache(make: Jobs) -> None:
    job = make(1000)
    job.write(b"abc")
    job.end(OriginTimeout("stalled"))
    job.reader.advance(3)
    with pytest.raises(BodyCutShort, match="stalled"):
        job.reader.wait_available()
    assert job.fake.cancelled
    assert not job.stored


def test_a_job_must_say_what_it_fetches_and_how(make: Jobs) -> None:
    job = make(1)
    with pytest.raises(NotImplementedError):
        job.attempt()
    with pytest.raises(NotImplementedError):
        _ = job.name
