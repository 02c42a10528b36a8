"""Readers: what they tell of a page whose writer lives, hangs, is dead, half-way or of another release."""

from __future__ import annotations

import os
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from shmchannel.process.identity import ProcessIdentity, own_identity
from shmchannel.process.naming import SHM_DIRECTORY, stats_guard_path, stats_page_name
from shmchannel.process.reaper import sweep
from shmchannel.stats_pages import PageState, StatsPage, StatsPages, layout, list_pages, read_page, read_pages, reader
from tests.support.holders import free_lock, holding
from tests.support.stats_pages import SCHEMA, open_pages, raw_page
from tests.support.waiting import wait_until

WRITER = """
import os
from shmchannel.stats_pages import StatsPage
from tests.support.stats_pages import SCHEMA
page = StatsPage.open(sys.argv[1], SCHEMA)
page.begin()
page.counter("things_total", "red", "big").add(3)
print(os.getpid())
"""
OWNER = """
from shmchannel.stats_pages import StatsPages
from tests.support.stats_pages import SCHEMA
pages = StatsPages.create("test")
page = pages.add(0, SCHEMA)
page.begin()
page.counter("things_total", "red", "big").add(3)
print(page.name)
"""
HALF_MADE = """
from shmchannel.stats_pages import StatsPage, StatsPages
from tests.support.stats_pages import SCHEMA
def stop(page):
    print(page.name)
    print("holding", flush=True)
    sys.stdin.read()
StatsPage.name_last_rows = stop
StatsPages.create("test").add(0, SCHEMA)
"""
COUNTING = """
import itertools, threading
from shmchannel.stats_pages import StatsPage
from tests.support.stats_pages import SCHEMA
def count():
    page = StatsPage.open(sys.argv[1], SCHEMA)
    for number in itertools.count():
        page.begin()
        page.counter("things_total", "red", "big").add()
        page.histogram("taken_seconds").observe(number * 1000)
        page.row("places", str(number))
        page.beat()
threading.Thread(target=count, daemon=True).start()
"""


def state(name: str) -> PageState:
    """What a reader tells of a page."""
    found = read_page(name)
    assert found is not None
    return found.state


def page_of(pages: StatsPages) -> StatsPage:
    """A page that this process writes."""
    page = pages.add(0, SCHEMA)
    page.begin()
    return page


def test_a_writer_that_lives() -> None:
    with open_pages() as pages:
        page = page_of(pages)
        found = read_page(page.name)
        assert found is not None
        assert found.state is PageState.LIVE
        assert 0 <= found.heartbeat_age_s <= found.uptime_s < 3600


def test_a_writer_that_hangs() -> None:
    """Its heartbeat is old; its values are read all the same."""
    with open_pages() as pages:
        page = page_of(pages)
        page.counter("things_total", "red", "big").add()
        page.beat(1)
        found = read_page(page.name)
        assert found is not None
        assert (found.state, found.number("things_total", "red", "big")) == (PageState.STUCK, 1)
        assert found.heartbeat_age_s > 1
        page.beat()
        assert state(page.name) is PageState.LIVE
        patient = read_page(page.name, stuck_ns=-1)
        assert patient is not None
        assert patient.state is PageState.STUCK


def test_a_page_without_a_writer() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        found = read_page(page.name)
        assert found is not None
        assert (found.state, found.writer, found.owner) == (PageState.NO_WRITER, None, own_identity())
        assert (found.uptime_s, found.heartbeat_age_s) == (0, 0)


def test_a_writer_that_was_killed_and_replaced() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        with holding(WRITER, page.name) as writer:
            found = read_page(page.name)
            assert found is not None
            assert found.writer is not None
            assert (found.state, found.writer.pid) == (PageState.LIVE, writer.pid)
            writer.kill()
            assert state(page.name) is PageState.WRITER_DEAD
        with holding(WRITER, page.name):
            again = read_page(page.name)
            assert again is not None
            assert (again.state, again.writers_total) == (PageState.LIVE, 2)
            assert again.number("things_total", "red", "big") == 6


def test_a_writer_for_whose_end_nobody_has_waited() -> None:
    """It is still in the table of processes."""
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        with holding(WRITER, page.name) as writer:
            os.kill(writer.pid, signal.SIGKILL)
            wait_until(lambda: state(page.name) is PageState.WRITER_DEAD)
            assert Path(f"/proc/{writer.pid}").exists()


def test_another_process_with_the_writers_pid() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        mine = own_identity()
        page.begin(mine._replace(start_time=mine.start_time + 1))
        assert state(page.name) is PageState.WRITER_DEAD


def test_an_owner_that_was_killed() -> None:
    """Its values can be read until somebody sweeps its names."""
    with open_pages() as pages:
        page = page_of(pages)
        page.counter("things_total", "red", "big").add(3)
        free_lock(stats_guard_path(pages.name))
        found = read_page(page.name)  # unless another process sweeps at this moment
        assert found is None or found.state is PageState.OWNER_DEAD
        sweep()
        wait_until(lambda: read_page(page.name) is None, what="the sweep, ours or another's")


def test_an_owner_that_is_killed_while_it_makes_a_page() -> None:
    with holding(HALF_MADE) as owner:
        (name,) = owner.said
        assert state(name) is PageState.HALF_WRITTEN
        assert [found.state for found in read_pages() if found.name == name] == [PageState.HALF_WRITTEN]
        owner.kill()
        found = read_page(name)
        assert found is None or found.state is PageState.HALF_WRITTEN


@pytest.mark.parametrize("after", range(12))
def test_a_writer_killed_at_any_moment(after: int) -> None:
    """Whatever it was doing: the page is read, each number whole, and the next writer begins."""
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        with holding(COUNTING, page.name) as writer:
            wait_until(lambda: page.value("things_total", "red", "big") > 50 * after)
            before = page.value("things_total", "red", "big")
            writer.kill()
            found = read_page(page.name)
            assert found is not None
            assert found.state in (PageState.WRITER_DEAD, PageState.NO_WRITER)
            count, taken = found.number("things_total", "red", "big"), found.histogram("taken_seconds")
            assert taken is not None
            assert count >= before
            assert count - 1 <= taken.count <= count
            assert set(found.metrics["of_place_total"].numbers) <= {("0",), ("1",), ("2",), ("other",)}
        StatsPage.open(page.name, SCHEMA).begin()
        assert state(page.name) is PageState.LIVE


def test_reading_while_the_owner_dies() -> None:
    """From living to swept, a reader sees values or nothing, and never an exception."""
    with holding(OWNER) as owner:
        (name,) = owner.said
        states = [state(name)]
        owner.kill()
        while (found := read_page(name)) is not None:
            states.append(found.state)
            assert found.number("things_total", "red", "big") == 3
            if found.state is PageState.OWNER_DEAD:
                break
        assert states[0] is PageState.LIVE
        assert set(states) <= {PageState.LIVE, PageState.WRITER_DEAD, PageState.OWNER_DEAD}


def test_pages_that_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_pages() as pages:
        page = page_of(pages)
    monkeypatch.setattr(reader, "list_pages", lambda: [page.name, "/gf-stats-1-00000000-0", "/something-else"])
    assert read_pages() == []


def test_pages_are_listed_by_role() -> None:
    with open_pages("one") as pages, open_pages("two") as others:
        mine, other = page_of(pages), page_of(others)
        assert {mine.name, other.name} <= set(list_pages())
        named = [found.name for found in read_pages("one")]
        assert mine.name in named
        assert other.name not in named


def test_another_users_page(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_pages() as pages:
        page = page_of(pages)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        assert read_page(page.name) is None
        assert page.name not in [found.name for found in read_pages()]


def _with_word(index: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: 8 * index] + struct.pack("=Q", value) + data[8 * index + 8 :]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: b"", PageState.HALF_WRITTEN),
        (lambda data: bytes(len(data)), PageState.HALF_WRITTEN),
        (lambda data: data[:256], PageState.HALF_WRITTEN),
        (_with_word(layout.MAGIC_WORD, 0), PageState.HALF_WRITTEN),
        (_with_word(layout.MAGIC_WORD, 77), PageState.INVALID),
        (_with_word(layout.VERSION_WORD, 0), PageState.OTHER_VERSION),
        (_with_word(layout.VERSION_WORD, 2), PageState.OTHER_VERSION),
        (_with_word(layout.SIZE_WORD, 8), PageState.INVALID),
        (_with_word(layout.SCHEMA_WORD, 2**63), PageState.INVALID),
        (_with_word(layout.SCHEMA_BYTES_WORD, 2**63), PageState.INVALID),
        (_with_word(layout.SCHEMA_CRC_WORD, 1), PageState.INVALID),
        (_with_word(layout.NAMES_WORD, 320), PageState.INVALID),
        (_with_word(layout.NAMES_WORD, 2**63), PageState.INVALID),
        (_with_word(layout.CELLS_WORD, 2**63), PageState.INVALID),
        (_with_word(layout.CELLS_WORD, 1), PageState.INVALID),
        (_with_word(layout.COUNT_WORD, 2**63), PageState.INVALID),
        (_with_word(layout.COUNT_WORD, 1), PageState.INVALID),
        (lambda data: data + bytes(8), PageState.INVALID),
        (lambda data: data[:-8], PageState.INVALID),
    ],
)
def test_pages_that_are_none(change: Callable[[bytes], bytes], told: PageState) -> None:
    """Half-written, of an older or a newer release, or with numbers that would lead out of the page."""
    with open_pages() as pages:
        whole = Path(SHM_DIRECTORY + page_of(pages).name).read_bytes()
        with raw_page(stats_page_name(pages.name, 99), change(whole)):
            found = read_page(stats_page_name(pages.name, 99))
            assert found is not None
            assert (found.state, found.metrics) == (told, {})
            assert found.number("things_total", "red", "big") == 0
            assert found.histogram("taken_seconds") is None


def test_names_of_rows_that_are_none() -> None:
    """A length beyond its room counts as no name."""
    with open_pages() as pages:
        page = page_of(pages)
        page.row("places", "here")
        data = Path(SHM_DIRECTORY + page.name).read_bytes()
        at = struct.unpack_from("=Q", data, 8 * layout.NAMES_WORD)[0]
        with raw_page(stats_page_name(pages.name, 99), data[:at] + b"\xff" * 8 + data[at + 8 :]):
            found = read_page(stats_page_name(pages.name, 99))
            assert found is not None
            assert set(found.metrics["of_place_total"].numbers) == {("other",)}


def test_a_writer_whose_state_cannot_be_read() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        page.begin(ProcessIdentity(sys.maxsize, 1, 1))
        assert state(page.name) is PageState.WRITER_DEAD
