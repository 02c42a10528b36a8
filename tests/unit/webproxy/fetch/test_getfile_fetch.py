"""Fetches: one request for equal misses, tries while nothing was promised, and an end that every reader hears of."""

from __future__ import annotations

import errno
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.failing import failing, refusing
from tests.support.fetching import failure, opened, read, running, skip_to_the_end, wait_answer, wait_available
from tests.support.waiting import WATCHDOG_S, wait_until
from webproxy.caching.partial import AGAIN_MAY_HELP
from webproxy.errors import BodyCutShort, OriginBadReply, OriginTooLarge, OriginUnreachable, Overloaded, SpoolFailed
from webproxy.fetch import getfile_fetch as fetches_module
from webproxy.fetch import table
from webproxy.fetch.spool import BodyFound, BodyMissing
from workloads.origin_stub import Framing, OriginStub, Route

BODY = os.urandom(400_001)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webproxy.fetch.state.FIRST_PAUSE_SECONDS", 0.002)


# -- one fetch for many -------------------------------------------------------------------------------------------
def test_fifty_equal_misses_make_one_request() -> None:
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_head=True)
    with OriginStub({"/x": route}) as origin, running(origin) as fetches, ThreadPoolExecutor(50) as crew:
        bodies = [crew.submit(lambda: read(opened(fetches, b"/x"))) for _ in range(50)]
        wait_until(lambda: fetches.table.collapsed_total == 49)
        gate.set()
        assert {got.result(WATCHDOG_S) for got in bodies} == {BODY}
        assert origin.count("/x") == 1
    assert (fetches.table.fetched_total, fetches.table.collapsed_total, fetches.table.failed_total) == (1, 49, 0)


def test_a_follower_is_served_while_the_leader_still_downloads() -> None:
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=200_000)
    with OriginStub({"/x": route}) as origin, running(origin) as fetches:
        leader = opened(fetches, b"/x")
        assert route.reached.wait(WATCHDOG_S)
        follower = opened(fetches, b"/x")
        assert wait_answer(follower) == BodyFound(len(BODY))
        while follower.position < 200_000:
            follower.advance(min(wait_available(follower), 200_000 - follower.position))
        assert not gate.is_set()
        gate.set()
        assert read(leader) == BODY
        while follower.position < len(BODY):
            follower.advance(wait_available(follower))
        follower.close()
        assert origin.count("/x") == 1


def test_the_leader_may_leave_and_the_follower_gets_all() -> None:
    gate = threading.Event()
    route = Route(body=BODY, hold=gate, hold_at=200_000)
    with OriginStub({"/x": route}) as origin, running(origin) as fetches:
        leader = opened(fetches, b"/x")
        assert route.reached.wait(WATCHDOG_S)
        follower = opened(fetches, b"/x")
        leader.close()
        gate.set()
        assert read(follower) == BODY
        assert origin.count("/x") == 1


def test_different_keys_are_fetched_side_by_side() -> None:
    gate = threading.Event()
    routes = {f"/{n}": Route(body=b"%d" % n, hold=gate, hold_head=True) for n in range(8)}
    with OriginStub(routes) as origin, running(origin, threads=8) as fetches:
        readers = [opened(fetches, path.encode()) for path in routes]
        for path in routes:
            assert origin.wait_for(path, 1)  # all eight are at the origin at the same time
        gate.set()
        assert [read(reader) for reader in readers] == [b"%d" % n for n in range(8)]


def test_a_second_fetch_begins_when_the_first_bytes_are_gone(tmp_path: Path) -> None:
    body = os.urandom(12 << 20)
    gate = threading.Event()
    route = Route(body=body, hold=gate, hold_at=11 << 20)
    with OriginStub({"/x": route}) as origin, running(origin, directory=tmp_path) as fetches:
        leader = opened(fetches, b"/x")
        wait_answer(leader)
        while leader.position < 10 << 20:
            leader.advance(wait_available(leader))
        gate.set()
        late = opened(fetches, b"/x")
        while leader.position < len(body):
            leader.advance(wait_available(leader))
        leader.close()
        assert read(late) == body
        assert origin.count("/x") == 2


# -- the answers --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("size", [0, 1, 400_001])
def test_the_declared_length_is_right_in_every_framing(framing: Framing, size: int) -> None:
    with OriginStub({"/x": Route(body=BODY[:size], framing=framing)}) as origin, running(origin) as fetches:
        reader = opened(fetches, b"/x")
        assert wait_answer(reader) == BodyFound(size)
        assert read(reader) == BODY[:size]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusals_that_reveal_nothing_are_not_found_at_the_first_try(status: int) -> None:
    with OriginStub({"/x": Route(status=status, body=b"n" * 100)}) as origin, running(origin) as fetches:
        with pytest.raises(AssertionError, match="BodyMissing"):
            read(opened(fetches, b"/x"))
        assert origin.count("/x") == 1


def test_not_found_is_said_before_the_page_about_it_has_come() -> None:
    route = Route(status=404, body=b"n" * 100, hold=threading.Event(), hold_at=50)
    with OriginStub({"/x": route}) as origin, running(origin) as fetches:
        reader = opened(fetches, b"/x")
        assert wait_answer(reader) == BodyMissing()
        reader.close()


@pytest.mark.parametrize("status", [204, 206, 304, 400, 405, 416])
def test_a_status_that_is_no_answer_fails_at_the_first_try(status: int) -> None:
    with OriginStub({"/x": Route(status=status)}) as origin, running(origin) as fetches:
        error = failure(opened(fetches, b"/x"))
        assert isinstance(error, OriginBadReply)
        assert error.status == status
        assert origin.count("/x") == 1


# -- trying again -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_failing_origin_is_tried_again_until_it_answers(status: int) -> None:
    route = Route(body=BODY, fail_first=2, fail_status=status)
    with OriginStub({"/x": route}) as origin, running(origin, tries=3) as fetches:
        assert read(opened(fetches, b"/x")) == BODY
        assert origin.count("/x") == 3


@pytest.mark.parametrize("status", [*sorted(AGAIN_MAY_HELP), 400, 418, 501, 505, 508, 511])
def test_which_statuses_are_tried_again_is_what_the_document_says(status: int) -> None:
    text = Path("docs/operations.md").read_text(encoding="utf-8")
    listed = re.search(r"status ([\d, or]+) where nothing but the object will do", " ".join(text.split()))
    assert listed is not None
    is_listed = str(status) in listed[1]
    with OriginStub({"/x": Route(status=status)}) as origin, running(origin, tries=2) as fetches:
        assert failure(opened(fetches, b"/x")).status == status
        assert origin.count("/x") == (2 if is_listed else 1)


def test_after_the_last_try_all_readers_fail_and_the_next_request_tries_anew() -> None:
    gate = threading.Event()
    with OriginStub({"/x": Route(status=503, hold=gate, hold_head=True)}) as origin, running(origin) as fetches:
        readers = [opened(fetches, b"/x") for _ in range(10)]
        gate.set()
        assert {failure(reader).status for reader in readers} == {503}
        assert origin.count("/x") == 3
        origin.add("/x", Route(body=b"well again"))
        assert read(opened(fetches, b"/x")) == b"well again"
        assert fetches.table.failed_total == 1


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
def test_a_body_cut_before_its_first_byte_is_tried_again(framing: Framing) -> None:
    with OriginStub({"/x": Route(body=BODY, framing=framing, truncate_at=0)}) as origin, running(origin) as fetches:
        assert failure(opened(fetches, b"/x")).retryable
        assert origin.count("/x") == 3


def test_a_body_of_unknown_length_is_tried_again_also_from_the_middle() -> None:
    route = Route(body=BODY, framing=Framing.CHUNKED, truncate_at=300_000)
    last = Route(body=BODY[:1000], framing=Framing.CHUNKED)
    with OriginStub({"/x": [route, last]}) as origin, running(origin) as fetches:
        assert read(opened(fetches, b"/x")) == BODY[:1000]  # shorter than what was spooled of the first try


def test_once_bytes_were_promised_there_is_no_second_try() -> None:
    with OriginStub({"/x": Route(body=BODY, truncate_at=300_000)}) as origin, running(origin) as fetches:
        reader = opened(fetches, b"/x")
        assert wait_answer(reader) == BodyFound(len(BODY))
        with pytest.raises(BodyCutShort):
            skip_to_the_end(reader)
        assert reader.position <= 300_000
        reader.close()
        assert origin.count("/x") == 1


def test_a_refusal_of_ours_is_not_tried_again() -> None:
    with OriginStub({"/x": Route(body=BODY)}) as origin, running(origin, object_bytes_max=1000) as fetches:
        assert isinstance(failure(opened(fetches, b"/x")), OriginTooLarge)
        assert origin.count("/x") == 1


def test_nobody_waits_any_more_so_nothing_is_tried_again() -> None:
    gate = threading.Event()
    with OriginStub({"/x": Route(status=503, hold=gate, hold_head=True)}) as origin, running(origin) as fetches:
        reader = opened(fetches, b"/x")
        assert origin.wait_for("/x", 1)
        reader.close()
        gate.set()
        wait_until(lambda: fetches.table.failed_total == 1)
        assert origin.count("/x") == 1


# -- bounds -------------------------------------------------------------------------------------------------------
def test_beyond_the_bound_a_miss_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "LIVING_MAX", 4)
    gate = threading.Event()
    routes = {f"/{n}": Route(body=b"x", hold=gate, hold_head=True) for n in range(8)}
    with OriginStub(routes) as origin, running(origin, threads=2) as fetches:
        readers = [opened(fetches, b"/%d" % n) for n in range(4)]
        for n in range(4):
            assert origin.wait_for(f"/{n}", 1)  # whatever the number of threads is
        with pytest.raises(Overloaded):
            fetches.open(b"/4")
        readers.append(opened(fetches, b"/3"))  # an equal one needs no place
        gate.set()
        assert {read(reader) for reader in readers} == {b"x"}
        wait_until(lambda: not fetches.table.living)
        assert read(opened(fetches, b"/4")) == b"x"


def test_the_fetch_stays_within_its_window_of_the_fastest_reader() -> None:
    body = os.urandom(8 << 20)
    with OriginStub({"/x": Route(body=body)}) as origin, running(origin, window_bytes=1 << 20) as fetches:
        reader = opened(fetches, b"/x")
        wait_answer(reader)
        wait_until(lambda: wait_available(reader) > 1 << 20)
        while reader.position < len(body):
            available = wait_available(reader)
            assert available <= (1 << 20) + 256 * 1024
            reader.advance(min(available, 100_000))
        reader.close()


def lies_in(fd: int, directory: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").startswith(str(directory))
    except OSError:  # closed by now
        return False


def test_the_disk_holds_no_more_than_the_window_behind_a_steady_reader(tmp_path: Path) -> None:
    body = os.urandom(40 << 20)
    with (
        OriginStub({"/x": Route(body=body)}) as origin,
        running(origin, window_bytes=1 << 20, directory=tmp_path) as fetches,
    ):
        reader = opened(fetches, b"/x")
        wait_answer(reader)
        most: int = 0
        held: set[int] = set()
        while reader.position < len(body):
            reader.advance(wait_available(reader))
            held = held or {fd for fd in map(int, os.listdir("/proc/self/fd")) if lies_in(fd, tmp_path)}
            most = max(most, sum(os.fstat(fd).st_blocks * 512 for fd in held))
        reader.close()
    assert most <= 12 << 20


def test_on_a_full_disk_a_body_of_unknown_length_fails_and_the_next_one_may_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with OriginStub({"/x": Route(body=BODY, framing=Framing.CHUNKED)}) as origin, running(origin) as fetches:
        monkeypatch.setattr(os, "pwrite", refusing(errno.ENOSPC))
        error = failure(opened(fetches, b"/x"))
        assert isinstance(error, SpoolFailed)
        assert "its length is unknown" in str(error)
        monkeypatch.undo()
        assert read(opened(fetches, b"/x")) == BODY


def test_on_a_full_disk_a_body_of_known_length_comes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with OriginStub({"/x": Route(body=BODY)}) as origin, running(origin) as fetches:
        monkeypatch.setattr(os, "pwrite", refusing(errno.ENOSPC))
        assert read(opened(fetches, b"/x")) == BODY


def test_a_broken_module_fails_its_fetch_and_not_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    with OriginStub({"/x": Route(body=b"abc")}) as origin, running(origin, threads=1) as fetches:
        monkeypatch.setattr(fetches_module, "getfile_request", failing(ZeroDivisionError("a bug")))
        assert "a bug" in str(failure(opened(fetches, b"/x")))
        monkeypatch.undo()
        assert read(opened(fetches, b"/x")) == b"abc"


def test_no_thread_to_be_had_refuses_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    with OriginStub({"/x": Route(body=b"abc")}) as origin, running(origin) as fetches:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", failing(RuntimeError("can't start new thread")))
            with pytest.raises(Overloaded):
                fetches.open(b"/x")
        assert read(opened(fetches, b"/x")) == b"abc"


# -- the end ------------------------------------------------------------------------------------------------------
def test_stop_ends_a_fetch_under_way_and_refuses_new_ones() -> None:
    route = Route(body=BODY, hold=threading.Event(), hold_at=1000)
    with OriginStub({"/x": route}) as origin, running(origin) as fetches:
        reader = opened(fetches, b"/x")
        assert route.reached.wait(WATCHDOG_S)
        fetches.table.stop(WATCHDOG_S)
        with pytest.raises(BodyCutShort):
            skip_to_the_end(reader)
        reader.close()
        with pytest.raises(OriginUnreachable):
            fetches.open(b"/y")


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a fetch waits before its next try, for longer than any test lasts."""
    waits = threading.Event()

    def pause(_number: int, _jitter: float) -> float:
        waits.set()
        return 1000.0

    monkeypatch.setattr("webproxy.fetch.job.pause_before_try", pause)
    return waits


def test_stop_fails_also_what_waits_before_its_next_try(pauses: threading.Event) -> None:
    with OriginStub({"/x": Route(status=503)}) as origin, running(origin) as fetches:
        reader = opened(fetches, b"/x")
        assert pauses.wait(WATCHDOG_S)
        fetches.table.stop(WATCHDOG_S)
        assert "stops" in str(failure(reader))
        assert origin.count("/x") == 1


def test_who_leaves_ends_also_what_waits_before_its_next_try(pauses: threading.Event) -> None:
    with OriginStub({"/x": Route(status=503)}) as origin, running(origin) as fetches:
        reader = opened(fetches, b"/x")
        assert pauses.wait(WATCHDOG_S)
        reader.close()
        wait_until(lambda: not fetches.table.living)
        assert origin.count("/x") == 1
