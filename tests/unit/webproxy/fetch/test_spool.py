"""Spool: does each reader get every byte or a clear word, and is the file there as long as somebody needs it?"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.failing import failing
from tests.support.fetching import wait_answer, wait_available, wait_news
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.caching.stored import StoredResponse
from webproxy.errors import BodyCutShort, OriginError, OriginTimeout
from webproxy.fetch import spool_budget
from webproxy.fetch.spool import (
    IN_MEMORY_BYTES,
    MEMORY_BYTES_MAX,
    PUNCH_BYTES,
    TINY_BYTES_MAX,
    BodyFound,
    BodyMissing,
    Head,
    Interim,
    Spool,
    SpoolReader,
    Validated,
)
from webproxy.fetch.spool_budget import GRANT_BYTES, SpoolBudget
from webproxy.http.fields import Fields
from webproxy.origin.response_head import OriginResponse

READERS: list[SpoolReader] = []
"""All that have joined in a test."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(str(tmp_path), memory_bytes_max=0)
    yield made
    made.end()
    for reader in READERS:
        reader.close()
    READERS.clear()
    assert made.fd == -1
    assert not os.listdir(tmp_path), "a spool has no name"


def joined(spool: Spool) -> SpoolReader:
    reader = spool.join()
    assert reader is not None
    READERS.append(reader)
    return reader


def read_all(reader: SpoolReader, length: int, step: int = 1 << 20) -> bytes:
    body = b""
    while len(body) < length:
        available = wait_available(reader)
        assert available > 0
        piece = reader.read(min(available, step))
        body += piece
        reader.advance(len(piece))
    return body


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_readers_at_every_pace_get_the_same_bytes(spool: Spool) -> None:
    body = os.urandom(300_001)
    readers = [joined(spool) for _ in range(8)]
    with ThreadPoolExecutor(8) as crew:
        bodies = [crew.submit(read_all, reader, len(body), 1000 * (n + 1)) for n, reader in enumerate(readers)]
        spool.answer(BodyFound(len(body)))
        for start in range(0, len(body), 7919):
            spool.write(body[start : start + 7919])
        assert all(got.result(WATCHDOG_S) == body for got in bodies)


def test_one_that_joins_late_reads_from_the_first_byte(spool: Spool) -> None:
    first = joined(spool)
    spool.answer(BodyFound(6))
    spool.write(b"abc")
    assert read_all(first, 3) == b"abc"
    late = joined(spool)
    spool.write(b"def")
    assert wait_answer(late) == BodyFound(6)
    assert read_all(late, 6) == b"abcdef"


@pytest.mark.parametrize("answer", [BodyFound(0), BodyMissing()])
def test_an_answer_without_a_body_needs_no_file(spool: Spool, answer: BodyFound | BodyMissing) -> None:
    reader = joined(spool)
    spool.answer(answer)
    assert wait_answer(reader) == answer
    assert spool.fd == -1


def test_a_waiting_reader_is_woken_by_answer_bytes_and_end(spool: Spool) -> None:
    reader = joined(spool)
    with ThreadPoolExecutor(1) as crew:
        answer = crew.submit(wait_answer, reader)
        spool.answer(BodyFound(2))
        assert answer.result(WATCHDOG_S) == BodyFound(2)
        available = crew.submit(wait_available, reader)
        spool.write(b"ab")
        assert available.result(WATCHDOG_S) == 2
        reader.advance(2)
        at_end = crew.submit(wait_available, reader)
        spool.end()
        assert at_end.result(WATCHDOG_S) == 0


def test_a_failure_before_the_answer_reaches_every_reader_as_an_error_of_its_own(spool: Spool) -> None:
    readers = [joined(spool) for _ in range(3)]
    spool.end(OriginTimeout("too slow", status=504, retryable=True))
    raised: list[OriginError] = []
    for reader in readers:
        with pytest.raises(OriginTimeout, match="too slow") as caught:
            wait_answer(reader)
        raised.append(caught.value)
    assert [(error.status, error.retryable) for error in raised] == [(504, True)] * 3
    assert len({id(error) for error in raised}) == 3


def test_a_failure_in_mid_body_comes_after_the_bytes_that_are_there(spool: Spool) -> None:
    reader = joined(spool)
    spool.answer(BodyFound(10))
    spool.write(b"abcd")
    spool.end(OriginTimeout("stalled"))
    assert wait_answer(reader) == BodyFound(10)
    assert read_all(reader, 4) == b"abcd"
    with pytest.raises(BodyCutShort, match="stalled"):
        wait_available(reader)


def test_nobody_joins_a_failed_an_ended_or_an_abandoned_fetch(tmp_path: Path) -> None:
    failed, ended, abandoned = (Spool(str(tmp_path), memory_bytes_max=0) for _ in range(3))
    failed.end(OriginTimeout("x"))
    ended.end()
    assert abandoned.abandon()
    assert [spool.join() for spool in (failed, ended, abandoned)] == [None] * 3
    abandoned.end()


def test_a_fetch_that_is_read_cannot_be_abandoned(spool: Spool) -> None:
    reader = joined(spool)
    assert not spool.abandon()
    joined(spool)
    reader.close()
    assert not spool.abandon()


def test_the_file_closes_when_the_last_one_leaves_whoever_that_is(tmp_path: Path) -> None:
    for writer_first in (True, False):
        spool = Spool(str(tmp_path), memory_bytes_max=0)
        readers = [joined(spool), joined(spool)]
        spool.write(b"abc")
        fd = spool.fd
        leaving: list[Callable[[], None]] = [reader.close for reader in readers]
        leaving.insert(0 if writer_first else 2, spool.end)
        for leave in leaving:
            assert is_open(fd)
            leave()
        assert not is_open(fd)
        readers[0].close()
        assert spool.fd == -1


def test_nobody_joins_a_sealed_fetch_and_who_reads_it_reads_on(spool: Spool) -> None:
    reader = joined(spool)
    spool.seal()
    assert spool.join() is None
    spool.write(b"abc")
    assert reader.read(3) == b"abc"


def test_a_finished_body_is_joined_while_somebody_still_reads(spool: Spool) -> None:
    first = joined(spool)
    spool.answer(BodyFound(3))
    spool.write(b"abc")
    spool.end()
    assert read_all(joined(spool), 3) == b"abc"
    assert read_all(first, 3) == b"abc"


def test_a_restart_forgets_the_body(spool: Spool) -> None:
    reader = joined(spool)
    spool.write(b"old and longer")
    spool.restart()
    spool.write(b"new")
    spool.answer(BodyFound(3))
    assert read_all(reader, 3) == b"new"
    assert spool.written == 3


def lead(spool: Spool) -> int:
    """How far the body is ahead: the smallest window in which there is room."""
    return next(window for window in range(1000) if spool.has_room(window))


def test_the_lead_is_measured_from_the_fastest(spool: Spool) -> None:
    assert lead(spool) == 0
    slow, fast = joined(spool), joined(spool)
    spool.write(b"x" * 100)
    slow.advance(10)
    assert lead(spool) == 90
    fast.advance(60)
    assert lead(spool) == 40
    fast.close()
    slow.close()
    assert lead(spool) == 0


def test_space_is_given_back_behind_the_slowest_and_then_nobody_joins(spool: Spool) -> None:
    body = os.urandom(3 * PUNCH_BYTES)
    slow, fast = joined(spool), joined(spool)
    spool.answer(BodyFound(len(body)))
    spool.write(body)
    fast.advance(len(body))
    slow.advance(PUNCH_BYTES - 1)
    before = os.fstat(spool.fd).st_blocks
    spool.forget_read()
    assert os.fstat(spool.fd).st_blocks == before
    joined(spool).advance(len(body))
    slow.advance(PUNCH_BYTES + 5)
    spool.forget_read()
    assert os.fstat(spool.fd).st_blocks * 512 <= 2 * PUNCH_BYTES
    assert spool.join() is None
    assert slow.read(len(body)) == body[slow.position :]


def test_bytes_that_wait_in_a_socket_outlive_their_space(spool: Spool) -> None:
    """sendfile() puts the file's pages into the socket: the hole must not cut one that its client has not read yet."""
    body = os.urandom(PUNCH_BYTES + 65_536)
    reader = joined(spool)
    spool.answer(BodyFound(len(body)))
    spool.write(body)
    sent_from = PUNCH_BYTES - 20_000
    reader.advance(sent_from)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            client.settimeout(WATCHDOG_S)
            sent = os.sendfile(server.fileno(), spool.fd, reader.position, 22_001)
            reader.advance(sent)
            spool.forget_read()
            server.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: client.recv(65_536), b""))
    assert received == body[sent_from : sent_from + sent]


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, after: int = 0) -> None:
    """No file takes more than so many bytes."""
    real = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[: after - offset], offset)  # short first, as a nearly full disk is

    monkeypatch.setattr(os, "pwrite", full)


@pytest.mark.parametrize("in_file", [0, 5, 40_000])
def test_what_a_full_disk_does_not_take_stays_in_memory_until_all_have_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, in_file: int
) -> None:
    spool = Spool(str(tmp_path), memory_bytes_max=3)
    body = os.urandom(3 * IN_MEMORY_BYTES)
    fast, slow = spool.reader(), joined(spool)
    spool.answer(BodyFound(len(body)))
    told: list[int] = []
    spool.on_room = lambda: told.append(spool.written)
    fill_the_disk(monkeypatch, in_file)
    got = {fast: bytearray(), slow: bytearray()}

    def take(reader: SpoolReader, most: int) -> None:
        while most > 0 and (available := reader.available()):
            data = reader.read(min(most, available))
            reader.advance(len(data))
            got[reader] += data
            most -= len(data)

    while spool.written < len(body):
        while spool.written < len(body) and spool.has_room(1 << 30):
            spool.write(body[spool.written :][:10_007])
        assert spool.written - max(in_file, slow.position) <= IN_MEMORY_BYTES + 20_014, "memory is bounded"
        take(fast, len(body))
        take(slow, 30_011)
    spool.end()
    for reader in (fast, slow):
        take(reader, len(body))
        reader.close()
    assert [data == body for data in got.values()] == [True, True]
    assert told, "the writer was told of room"
    assert spool.join() is None
    assert [record.message for record in caplog.records] == ["spool not written"]


def test_a_body_that_fits_memory_can_be_read_for_the_cache_as_well(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(60_000)
    spool.answer(BodyFound(len(body)))
    fill_the_disk(monkeypatch, 25_000)
    for position in range(0, len(body), 20_000):
        assert spool.has_room(1 << 30, is_kept=True, filled=0)
        spool.write(body[position : position + 20_000])
    assert spool.is_in_memory
    reader = joined(spool)  # nothing is gone yet
    assert read_all(reader, len(body), 7_001) == body
    for first, sizes in ((0, (60_000,)), (19_999, (1, 1, 1, 39_998)), (10_000, (30_000, 20_000)), (30_000, (30_000,))):
        views = [memoryview(bytearray(size)) for size in sizes]
        assert spool.read_into(views, first) == sum(sizes)
        assert b"".join(views) == body[first : first + sum(sizes)]
    assert spool.prefix() is None
    reader.close()


def test_a_restart_tries_the_file_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as full:
        fill_the_disk(full)
        spool.write(bytes(20_000))
    assert spool.is_in_memory
    spool.restart()
    spool.write(b"x" * 20_000)
    assert not spool.is_in_memory
    reader = joined(spool)
    spool.answer(BodyFound(20_000))
    assert read_all(reader, 20_000) == b"x" * 20_000
    reader.close()


def test_too_many_in_memory_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_budget, "IN_MEMORY_MAX", 1)
    budget = SpoolBudget(0)
    spools = [Spool(str(tmp_path / "missing"), memory_bytes_max=0, budget=budget) for _ in range(3)]
    spools[0].write(b"x")
    with pytest.raises(FileNotFoundError):
        spools[1].write(b"x")
    assert spools[1].written == 0
    spools[0].end()
    spools[2].write(b"x")
    spools[1].end()
    spools[2].end()


def test_beyond_the_planned_files_a_spool_lies_in_memory(tmp_path: Path) -> None:
    budget = SpoolBudget(0, files_max=1)
    spools = [Spool(str(tmp_path), memory_bytes_max=0, budget=budget) for _ in range(3)]
    spools[0].write(b"x")
    spools[1].write(b"x")
    assert [spool.fd >= 0 for spool in spools[:2]] == [True, False]
    spools[0].end()
    spools[2].write(b"x")
    assert spools[2].fd >= 0
    spools[1].end()
    spools[2].end()


def test_short_writes_go_on(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:7], offset))
    reader = joined(spool)
    spool.answer(BodyFound(100))
    spool.write(bytes(range(100)))
    assert read_all(reader, 100) == bytes(range(100))


def test_readers_come_and_go_while_it_is_written(spool: Spool) -> None:
    body = os.urandom(200_000)
    done = threading.Event()

    def come_and_go() -> int:
        whole = 0
        while not done.is_set() or not whole:
            reader = spool.join()
            assert reader is not None
            assert read_all(reader, len(body), 65_536) == body
            reader.close()
            whole += 1
        return whole

    keeper = joined(spool)
    with ThreadPoolExecutor(4) as crew:
        counts = [crew.submit(come_and_go) for _ in range(4)]
        spool.answer(BodyFound(len(body)))
        for start in range(0, len(body), 4096):
            spool.write(body[start : start + 4096])
        spool.end()
        done.set()
        assert all(count.result(WATCHDOG_S) for count in counts)
    assert is_open(spool.fd)
    keeper.close()
    wait_until(lambda: spool.fd == -1)


# -- who is told of progress -----------------------------------------------------------------------------------------
class Told:
    """A wake that counts its calls."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self) -> None:
        self._count += 1

    def count(self) -> int:
        return self._count


def answered(spool: Spool) -> None:
    spool.answer(BodyFound(10))


PROGRESS: list[tuple[str, Callable[[Spool], None]]] = [
    ("interim", lambda spool: spool.interim(103, Fields())),
    ("answer", answered),
    ("end", lambda spool: spool.end()),
    ("failure", lambda spool: spool.end(OriginTimeout("stalled"))),
]


@pytest.mark.parametrize("progress", [happens for _, happens in PROGRESS], ids=[name for name, _ in PROGRESS])
def test_who_waits_for_news_is_told_once(spool: Spool, progress: Callable[[Spool], None]) -> None:
    reader, told = joined(spool), Told()
    assert reader.news() is None
    assert reader.subscribe(told)
    spool.write(b"abc")
    assert not told.count(), "there is no answer yet"
    progress(spool)
    assert told.count() == 1
    assert not reader.subscribe(told), "there is something already"
    spool.write(b"abc")
    spool.end()
    assert told.count() == 1


@pytest.mark.parametrize("progress", [lambda spool: spool.write(b"x"), PROGRESS[2][1], PROGRESS[3][1]])
def test_who_waits_for_the_body_is_told_once(spool: Spool, progress: Callable[[Spool], None]) -> None:
    reader, told = joined(spool), Told()
    answered(spool)
    spool.write(b"abc")
    assert (reader.news(), reader.available()) == (BodyFound(10), 3)
    assert not reader.subscribe(told)
    reader.advance(3)
    assert reader.available() is None
    assert reader.subscribe(told)
    progress(spool)
    assert told.count() == 1
    spool.write(b"y")
    spool.end()
    assert told.count() == 1


def test_who_has_left_is_not_told(spool: Spool) -> None:
    reader, told = joined(spool), Told()
    assert reader.subscribe(told)
    reader.close()
    answered(spool)
    spool.end()
    assert not told.count()


def test_the_latest_subscription_counts(spool: Spool) -> None:
    reader, first, second = joined(spool), Told(), Told()
    assert reader.subscribe(first)
    assert reader.subscribe(second)
    answered(spool)
    assert (first.count(), second.count()) == (0, 1)


def test_a_wake_that_breaks_keeps_nobody_else_asleep(spool: Spool) -> None:
    told = Told()
    assert joined(spool).subscribe(failing(ZeroDivisionError("a bug")))
    assert joined(spool).subscribe(told)
    answered(spool)
    assert told.count() == 1


def test_a_wake_may_use_the_spool(spool: Spool) -> None:
    """It is called without the lock."""
    reader, again = joined(spool), Told()

    def use() -> None:
        assert reader.news() == BodyFound(10)
        reader.advance(0)
        assert reader.subscribe(again)

    assert reader.subscribe(use)
    answered(spool)
    spool.write(b"x")
    assert again.count() == 1


def test_no_wake_is_lost_between_threads(spool: Spool) -> None:
    """Readers that sleep whenever they have to, beside a writer that waits whenever there is no room, for each byte."""
    body, window_bytes, count = os.urandom(3000), 7, 6
    readers = [joined(spool) for _ in range(count)]
    room = threading.Event()
    spool.on_room = room.set
    with ThreadPoolExecutor(count) as crew:
        bodies = [crew.submit(read_all, reader, len(body), n + 1) for n, reader in enumerate(readers)]
        answered(spool)
        for start in range(0, len(body), 3):
            room.clear()
            while not spool.has_room(window_bytes):
                assert room.wait(WATCHDOG_S), "the writer was not told"
                room.clear()
            spool.write(body[start : start + 3])
        spool.end()
        assert all(got.result(WATCHDOG_S) == body for got in bodies)


# -- room ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["advances", "leaves", "detaches"])
def test_the_writer_is_told_of_room_once(spool: Spool, how: str) -> None:
    reader, told = joined(spool), Told()
    spool.on_room = told
    spool.write(bytes(100))
    assert spool.has_room(100)
    assert not spool.has_room(99)
    if how == "advances":
        reader.advance(1)
        reader.advance(50)
    elif how == "leaves":
        reader.close()
    else:
        reader.detach()
    assert told.count() == 1
    reader.close()
    spool.tell_room()
    assert told.count() == 1


def test_the_writer_is_not_told_of_less_room_than_it_waits_for(spool: Spool) -> None:
    reader, told = joined(spool), Told()
    spool.on_room = told
    spool.write(bytes(100))
    assert not spool.has_room(10)
    reader.advance(89)
    joined(spool).advance(80)
    assert not told.count()
    reader.advance(1)
    assert told.count() == 1


def test_what_is_kept_takes_room_though_all_have_read_it(spool: Spool) -> None:
    reader, told = joined(spool), Told()
    spool.on_room = told
    spool.write(bytes(100))
    reader.advance(100)
    assert not spool.has_room(10, is_kept=True)
    spool.tell_room()
    assert not told.count()
    assert spool.has_room(10)


def test_a_slow_reader_lets_it_run_ahead_while_there_is_room_for_all(tmp_path: Path) -> None:
    """Of two spools one gets the room, and the other gets it when the first is closed."""
    budget = SpoolBudget(GRANT_BYTES)
    first, second = (Spool(str(tmp_path), budget=budget) for _ in range(2))
    readers, told = [first.reader(), second.reader()], Told()
    second.on_room = told
    for spool in (first, second):
        spool.write(bytes(100_000))
    assert first.has_room(50_000)
    assert not second.has_room(50_000)
    assert budget.used_bytes == GRANT_BYTES
    first.end()
    assert not told.count(), "its reader may still want it"
    readers[0].close()
    assert told.count() == 1
    assert second.has_room(50_000)
    second.end()
    readers[1].close()
    assert budget.used_bytes == 0


def test_what_is_forgotten_makes_room_for_others(tmp_path: Path) -> None:
    budget = SpoolBudget(PUNCH_BYTES)
    spool = Spool(str(tmp_path), budget=budget)
    reader = spool.reader()
    spool.write(bytes(PUNCH_BYTES + 100))
    assert spool.has_room(100)
    assert budget.used_bytes == PUNCH_BYTES
    reader.advance(PUNCH_BYTES)
    spool.forget_read(0)
    assert budget.used_bytes == PUNCH_BYTES
    spool.forget_read()
    assert budget.used_bytes == 0
    spool.end()
    reader.close()
    assert budget.used_bytes == 0


def test_who_was_not_refused_is_not_told(spool: Spool) -> None:
    reader, told = joined(spool), Told()
    spool.on_room = told
    spool.write(bytes(100))
    reader.advance(100)
    assert not told.count()


def test_a_subscription_to_room_is_one_call(spool: Spool) -> None:
    reader, told = joined(spool), Told()
    assert not spool.subscribe_room(0, told)
    spool.write(bytes(100))
    assert not spool.subscribe_room(100, told)
    assert spool.subscribe_room(50, told)
    reader.advance(49)
    assert not told.count()
    reader.advance(1)
    reader.advance(50)
    assert told.count() == 1


def test_the_end_lets_go_of_the_writer(spool: Spool) -> None:
    reader, told = joined(spool), Told()
    spool.on_room = told
    spool.write(bytes(100))
    assert not spool.has_room(0)
    spool.end()
    reader.advance(100)
    assert not told.count()
    assert spool.on_room is not told


# -- detached readers ------------------------------------------------------------------------------------------------
def test_a_reader_that_detaches_keeps_the_fetch_and_leaves_with_it(spool: Spool) -> None:
    joined(spool).detach()
    spool.write(b"abc")
    fd = spool.fd
    assert not spool.abandon()
    spool.end()
    assert not spool.wanted
    assert not is_open(fd)


def test_others_join_after_a_detached_reader_and_the_file_is_theirs_to_the_end(spool: Spool) -> None:
    joined(spool).detach()
    spool.answer(BodyFound(6))
    spool.write(b"abc")
    late = joined(spool)
    spool.write(b"def")
    spool.end()
    assert wait_answer(late) == BodyFound(6)
    assert read_all(late, 6) == b"abcdef"
    fd = spool.fd
    assert is_open(fd)
    late.close()
    assert not is_open(fd)


def test_the_writer_never_waits_for_a_detached_reader(spool: Spool) -> None:
    reader = joined(spool)
    reader.detach()
    spool.write(bytes(1000))
    assert spool.has_room(0)
    reader.close()
    assert spool.wanted, "it stays, whatever becomes of its reader"


def test_no_disk_is_held_for_a_detached_reader(spool: Spool) -> None:
    joined(spool).detach()
    spool.write(bytes(PUNCH_BYTES + 5))
    spool.forget_read()
    assert os.fstat(spool.fd).st_blocks * 512 < PUNCH_BYTES
    assert spool.join() is None


@pytest.mark.parametrize("times", [1, 2])
def test_of_many_who_detach_one_counts(spool: Spool, times: int) -> None:
    readers = [joined(spool) for _ in range(3)]
    for reader in readers * times:
        reader.detach()
    for reader in readers:
        reader.close()
    assert spool.wanted
    spool.write(b"abc")
    fd = spool.fd
    spool.end()
    assert not is_open(fd)


@pytest.mark.parametrize("others", [0, 1])
def test_detaching_from_a_fetch_that_has_ended_is_leaving(spool: Spool, others: int) -> None:
    readers = [joined(spool) for _ in range(others + 1)]
    if others:
        readers[0].detach()
    spool.write(b"abc")
    fd = spool.fd
    spool.end()
    assert is_open(fd)
    readers[-1].detach()
    assert not is_open(fd)


# -- answers in HTTP's words -----------------------------------------------------------------------------------------
def http_answers() -> list[Head | Validated]:
    response = OriginResponse(status=200, fields=Fields([(b"ETag", b'"a"')]), length=3)
    stored = StoredResponse(status=200, fields=response.fields, request_time=1.0, response_time=2.0, initial_age_s=0,
                            lifetime_s=9)  # fmt: skip
    return [
        Head(response, stored, True, True),
        Head(response, stored, False, False, b"no-store"),
        Validated(b"/x", stored, 7),
    ]


@pytest.mark.parametrize("answer", http_answers(), ids=["stored", "not stored", "validated"])
def test_an_http_answer_reaches_each_reader_as_it_is(spool: Spool, answer: Head | Validated) -> None:
    early = joined(spool)
    spool.answer(answer)
    assert spool.answered
    assert wait_answer(early) is answer
    assert wait_answer(joined(spool)) is answer


def test_a_validated_answer_needs_no_file_and_nothing_comes_behind_it(spool: Spool) -> None:
    reader = joined(spool)
    spool.answer(http_answers()[2])
    spool.end()
    assert wait_available(reader) == 0
    assert spool.fd == -1


def test_a_body_of_unknown_length_ends_where_the_fetch_does(spool: Spool) -> None:
    reader = joined(spool)
    spool.answer(http_answers()[0])
    spool.write(b"abc")
    assert read_all(reader, 3) == b"abc"
    spool.end()
    assert wait_available(reader) == 0


def test_interim_answers_come_first_and_once_to_each_reader_that_wants_them(spool: Spool) -> None:
    hints, processing = Interim(103, Fields([(b"Link", b"</a.css>; rel=preload")])), Interim(102, Fields())
    reader, unconcerned = joined(spool), joined(spool)
    with ThreadPoolExecutor(1) as crew:
        waiting = crew.submit(wait_news, reader)
        spool.interim(hints.status, hints.fields)
        assert waiting.result(WATCHDOG_S) == hints
        spool.interim(processing.status, processing.fields)
        spool.answer(BodyFound(0))
        assert [wait_news(reader) for _ in range(3)] == [processing, BodyFound(0), BodyFound(0)]
    assert wait_answer(unconcerned) == BodyFound(0)


def test_interim_answers_come_also_before_a_failure(spool: Spool) -> None:
    reader = joined(spool)
    spool.interim(103, Fields())
    spool.end(OriginTimeout("stalled"))
    assert wait_news(reader) == Interim(103, Fields())
    with pytest.raises(OriginTimeout):
        wait_news(reader)


def test_the_beginning_outlives_the_fetch(spool: Spool) -> None:
    assert spool.prefix() is None, "there is nothing"
    spool.write(memoryview(b"abc"))
    prefix = spool.prefix()
    assert prefix is not None
    with closing(prefix):
        spool.end(OriginTimeout("stalled"))
        assert spool.fd == -1
        assert (os.pread(prefix.fd, 10, 0), prefix.written) == (b"abc", 3)


def test_a_beginning_whose_first_bytes_are_gone_is_none(spool: Spool) -> None:
    spool.write(bytes(PUNCH_BYTES))
    spool.forget_read()
    assert spool.prefix() is None


@pytest.mark.parametrize("sizes", [[1], [65_536], [65_535, 1], [65_536, 1], [1, 65_536], [100_000], [20_000] * 7])
def test_a_small_body_lies_in_memory_and_a_larger_one_in_a_file(tmp_path: Path, sizes: list[int]) -> None:
    spool = Spool(str(tmp_path))
    early, late, body = spool.reader(), spool.reader(), b""
    spool.answer(BodyFound(sum(sizes)))
    wait_answer(early)
    for size in sizes:
        piece = os.urandom(size)
        body += piece
        spool.write(piece)
        assert (spool.fd < 0) == (len(body) <= 65_536)
        assert early.read(size) == piece
        early.advance(size)
        copy = bytearray(len(body))
        assert spool.read_into([memoryview(copy)], 0) == len(body)
        assert copy == body
    assert late.read(len(body)) == body
    prefix = spool.prefix()
    assert prefix is not None
    assert os.pread(prefix.fd, len(body), 0) == body
    prefix.close()
    spool.end()
    early.close()
    late.close()
    assert spool.fd == -1


def test_so_many_small_bodies_lie_in_memory_and_the_next_one_has_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny one needs no place."""
    monkeypatch.setattr("webproxy.fetch.spool_budget.PLACES", 2)
    budget = SpoolBudget(1 << 20)
    spools = [Spool(str(tmp_path), budget=budget) for _ in range(5)]
    readers = [spool.reader() for spool in spools]
    for spool in spools[:3]:
        spool.write(bytes(TINY_BYTES_MAX + 1))
    assert [spool.fd < 0 for spool in spools[:3]] == [True, True, False]
    spools[3].write(bytes(TINY_BYTES_MAX))
    assert spools[3].fd < 0
    spools[0].write(bytes(MEMORY_BYTES_MAX))  # now it has a file, and its place is free
    spools[3].write(b"x")
    assert spools[3].fd < 0
    spools[4].write(bytes(TINY_BYTES_MAX + 1))
    assert spools[4].fd >= 0
    for spool, reader in zip(spools, readers, strict=True):
        spool.end()
        reader.close()
    last = Spool(str(tmp_path), budget=budget)
    last.write(bytes(TINY_BYTES_MAX + 1))
    assert last.fd < 0, "places are given back"
    last.end()


def test_all_of_a_small_body_is_taken_at_once(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), memory_bytes_max=10)
    whole, begun, large = spool.reader(), spool.reader(), Spool(str(tmp_path), memory_bytes_max=10)
    spool.write(b"01234")
    assert whole.take_whole(10) is None
    assert whole.position == 0
    begun.advance(1)
    spool.write(b"56789")
    assert whole.take_whole(10) == b"0123456789"
    assert whole.position == 10
    assert begun.take_whole(10) is None
    reader = large.reader()
    large.write(bytes(11))
    assert reader.take_whole(11) is None, "it has a file"
    for ended, its in ((spool, whole), (spool, begun), (large, reader)):
        ended.end()
        its.close()


def test_the_end_of_an_empty_body_is_all_of_it(spool: Spool) -> None:
    assert joined(spool).take_whole(0) == b""


# -- errands ---------------------------------------------------------------------------------------------------------
class NotedErrand:
    """Notes what becomes of it."""

    def __init__(self) -> None:
        self.became: list[str] = []

    def run(self) -> None:
        self.became.append("run")

    def hand_over(self) -> None:
        self.became.append("handed over")


def test_an_errand_is_left_only_to_a_reader_that_runs_some(spool: Spool) -> None:
    errand = NotedErrand()
    assert not spool.leave_errand(errand)
    joined(spool)
    assert not spool.leave_errand(errand)
    joined(spool).runs_errands = True
    assert spool.leave_errand(errand)
    assert errand.became == []


def test_an_errand_is_taken_once(spool: Spool) -> None:
    first, second, errand = joined(spool), joined(spool), NotedErrand()
    first.runs_errands = second.runs_errands = True
    assert spool.leave_errand(errand)
    assert second.take_errand() is errand
    assert first.take_errand() is None
    first.close()
    second.close()
    assert errand.became == []


@pytest.mark.parametrize("how", ["close", "detach", "hand_over", "the daemon stops"])
def test_an_errand_that_its_reader_does_not_run_is_handed_over(spool: Spool, how: str) -> None:
    reader, other, errand = joined(spool), joined(spool), NotedErrand()
    reader.runs_errands = True
    assert spool.leave_errand(errand)
    other.close()
    assert errand.became == [], "who runs none has nothing to do with it"
    spool.hand_over() if how == "the daemon stops" else getattr(reader, how)()
    assert errand.became == ["handed over"]
    reader.close()
    assert errand.became == ["handed over"]


def test_a_reader_that_waits_for_its_client_is_left_nothing(spool: Spool) -> None:
    reader = joined(spool)
    reader.runs_errands = True
    reader.hand_over()
    assert not spool.leave_errand(NotedErrand())


def test_readers_are_woken_by_whom_the_writer_says(spool: Spool) -> None:
    put_off: list[Callable[[], None]] = []
    spool.wake_by = put_off.append
    reader, woken = joined(spool), []
    assert reader.subscribe(lambda: woken.append("woken"))
    spool.answer(BodyFound(3))
    spool.write(b"abc")
    assert woken == []
    (wake,) = put_off
    wake()
    assert woken == ["woken"]
