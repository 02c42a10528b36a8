"""Pages: made by an owner, counted in by one writer after another, in memory of their own where there is none."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from shmchannel.errors import LayoutMismatch, NameMissing, UsageError
from shmchannel.process.identity import ProcessIdentity, own_identity
from shmchannel.process.naming import SHM_DIRECTORY, parse_stats_page_name, stats_guard_path
from shmchannel.process.reaper import survey, sweep
from shmchannel.stats_pages import OTHER, PageReading, PageState, Schema, SlotPages, StatsPage, own_page, read_page
from tests.support.channels import in_thread
from tests.support.holders import free_lock
from tests.support.stats_pages import SCHEMA, open_pages
from tests.support.waiting import WATCHDOG_S, wait_until


def reading_of(page: StatsPage) -> PageReading:
    """What a reader sees of it."""
    found = read_page(page.name)
    assert found is not None
    return found


def test_a_page_is_counted_in_and_read() -> None:
    with open_pages("proxy", "127.0.0.1:80") as pages:
        page = pages.add(3, SCHEMA)
        page.begin()
        page.counter("things_total", "red", "small").add(2)
        page.gauge("waiting").set(4)
        page.histogram("taken_seconds").observe(5_000_000)
        page.counter("of_place_total", page.row("places", "here")).add()
        found = reading_of(page)
        assert (found.state, found.role, found.instance, found.slot) == (PageState.LIVE, "proxy", "127.0.0.1:80", 3)
        assert found.owner == found.writer == own_identity()
        assert found.number("things_total", "red", "small") == page.value("things_total", "red", "small") == 2
        assert found.number("things_total", "blue", "big") == 0
        assert found.number("waiting") == page.value("waiting") == 4
        assert found.metrics["of_place_total"].numbers == {("here",): 1, (OTHER,): 0}
        taken = found.histogram("taken_seconds")
        assert taken is not None
        assert (taken.count, taken.total) == (1, 5_000_000)
        assert found.metrics["things_total"].metric == SCHEMA.metrics[0]


def test_its_mode_keeps_others_out() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        assert os.stat(SHM_DIRECTORY + page.name).st_mode & 0o777 == 0o600


def test_the_next_writer_goes_on_counting() -> None:
    """Counters, histograms and names stay; gauges of the last writer mean nothing."""
    with open_pages() as pages:
        first = pages.add(0, SCHEMA)
        first.begin(ProcessIdentity(1, 2, 3))
        first.counter("things_total", "red", "big").add(5)
        first.histogram("taken_seconds").observe(7)
        first.gauge("waiting").set(9)
        first.counter("of_place_total", first.row("places", "here")).add(3)
        second = StatsPage.open(first.name, SCHEMA)
        second.begin()
        second.counter("things_total", "red", "big").add(2)
        second.histogram("taken_seconds").observe(8)
        second.counter("of_place_total", second.row("places", "here")).add()
        found = reading_of(second)
        assert (found.writers_total, found.writer) == (2, own_identity())
        assert found.number("things_total", "red", "big") == 7
        assert found.number("of_place_total", "here") == 4
        assert found.number("waiting") == 0
        taken = found.histogram("taken_seconds")
        assert taken is not None
        assert (taken.count, taken.total) == (2, 15)


def test_a_sampled_total_adds_to_what_the_last_writer_counted() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        page.sampled("things_total", "red", "big").set(5)
        page.sampled("things_total", "red", "big").set(2)
        assert reading_of(page).number("things_total", "red", "big") == 7


def test_a_table_has_its_last_row_for_the_rest() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        assert [page.row("places", name) for name in ("a", "b", "a", "c", "d", "b", OTHER)] == [
            "a", "b", "a", "c", OTHER, "b", OTHER,
        ]  # fmt: skip
        for name in ("a", "c", "d", "e"):
            page.counter("of_place_total", page.row("places", name)).add()
        numbers = reading_of(page).metrics["of_place_total"].numbers
        assert numbers == {("a",): 1, ("b",): 0, ("c",): 1, (OTHER,): 2}


def test_one_row_for_one_name_from_many_threads() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        barrier = threading.Barrier(4)

        def ask() -> list[str]:
            barrier.wait(WATCHDOG_S)
            return [page.row("places", name) for name in ("a", "b", "c")]

        with in_thread(ask) as one, in_thread(ask) as two, in_thread(ask) as three, in_thread(ask) as four:
            assert [thread.result() for thread in (one, two, three, four)] == [["a", "b", "c"]] * 4
        assert set(reading_of(page).metrics["of_place_total"].numbers) == {("a",), ("b",), ("c",), (OTHER,)}


@pytest.mark.parametrize("name", ["", "x" * 248, "x" * 300, "ä" * 200, "\udcff"])
def test_any_text_names_a_row(name: str) -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        label = page.row("places", name)
        page.counter("of_place_total", label).add()
        assert reading_of(page).metrics["of_place_total"].numbers == {(label,): 1, (OTHER,): 0}
        assert StatsPage.open(page.name, SCHEMA).row("places", name) == label


def test_without_shared_memory_a_page_counts_for_itself() -> None:
    page = StatsPage.private(SCHEMA)
    page.begin()
    page.beat()
    page.counter("of_place_total", page.row("places", "here")).add(2)
    assert page.value("of_place_total", "here") == 2
    assert page.value("of_place_total", OTHER) == 0
    assert page.name == ""


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("nothing", ()),
        ("things_total", ()),
        ("things_total", ("red",)),
        ("things_total", ("blue", "small")),
        ("of_place_total", ("unknown",)),
        ("of_place_total", ()),
        ("waiting", ()),
        ("taken_seconds", ()),
    ],
)
def test_what_is_not_counted_there(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        StatsPage.private(SCHEMA).counter(name, *labels)


def test_a_table_that_there_is_not() -> None:
    with pytest.raises(UsageError, match="no table"):
        StatsPage.private(SCHEMA).row("nowhere", "x")


def test_a_writer_with_another_schema_is_refused() -> None:
    """Other metrics, and other words only: cells of the same number, in which something else would be counted."""
    fewer = Schema(SCHEMA.metrics[:2])
    text = SCHEMA.encoded.replace(b"Do more.", b"Do less.")
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        with pytest.raises(LayoutMismatch):
            StatsPage.open(page.name, fewer)
        path = Path(SHM_DIRECTORY + page.name)
        path.write_bytes(path.read_bytes().replace(SCHEMA.encoded, text))
        with pytest.raises(LayoutMismatch):
            StatsPage.open(page.name, SCHEMA)


def test_an_unpublished_page_is_refused() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        with open(SHM_DIRECTORY + page.name, "r+b") as file:
            file.write(bytes(8))
        with pytest.raises(LayoutMismatch, match="not published"):
            StatsPage.open(page.name, SCHEMA)


def test_a_slot_gets_a_new_page_for_a_new_schema() -> None:
    with open_pages() as pages:
        old = pages.add(0, SCHEMA)
        new = pages.add(0, Schema(SCHEMA.metrics[:2]))
        assert read_page(old.name) is None
        assert reading_of(new).slot == 0
        old.counter("things_total", "red", "big").add()  # its writer ends later: it counts for nobody


def test_names_end_with_their_owner() -> None:
    with open_pages() as pages:
        page, other = pages.add(0, SCHEMA), pages.add(1, SCHEMA)
        pages.remove(1)
        pages.remove(1)
        assert not os.path.exists(SHM_DIRECTORY + other.name)
    assert not os.path.exists(SHM_DIRECTORY + page.name)
    assert not os.path.exists(stats_guard_path(pages.name))
    with pytest.raises(NameMissing):
        StatsPage.open(page.name, SCHEMA)
    pages.close()
    page.counter("things_total", "red", "big").add()
    assert page.value("things_total", "red", "big") == 1, "threads that still run at the end may count"


def test_names_of_a_dead_owner_are_swept() -> None:
    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        assert {found.kind for found in survey() if found.name == page.name} == {"stats page"}
        sweep()
        assert reading_of(page).state is PageState.NO_WRITER, "a living owner's stay"
        free_lock(stats_guard_path(pages.name))
        sweep()
        wait_until(lambda: read_page(page.name) is None, what="the sweep, ours or another's")
        wait_until(lambda: not os.path.exists(stats_guard_path(pages.name)))


def test_a_page_that_is_refused_leaves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full /dev/shm: the slot keeps the page it had."""

    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with open_pages() as pages:
        page = pages.add(0, SCHEMA)
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(Exception, match="No space left"):
            pages.add(0, SCHEMA)
        mine = [name for name in os.listdir(SHM_DIRECTORY) if parse_stats_page_name(f"/{name}") == pages.name]
        assert mine == [page.name[1:]]
        assert reading_of(page).state is PageState.NO_WRITER


def test_a_daemon_does_without_a_page(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It says so, and counts where nobody else sees it; nothing is left behind."""

    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    with ExitStack() as resources:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
        page = own_page("test", "", SCHEMA, resources)
        page.counter("things_total", "red", "big").add()
        assert (page.name, page.value("things_total", "red", "big")) == ("", 1)
    assert [record.message for record in caplog.records] == ["no stats page"]


def test_a_daemon_owns_its_page() -> None:
    with ExitStack() as resources:
        page = own_page("test", "me", SCHEMA, resources)
        assert (reading_of(page).state, reading_of(page).instance) == (PageState.LIVE, "me")
    assert read_page(page.name) is None


def test_an_event_needs_rows_of_its_kinds() -> None:
    page = StatsPage.private(SCHEMA)
    counter, times = ("things_total", "red", "big"), ("taken_seconds",)
    event = page.timed_event(counter, ("things_total", "blue", "big"), times)
    event.note(5, 7)
    event.flush()
    assert (page.value(*counter), page.value("things_total", "blue", "big")) == (1, 5)
    for rows in ((times, counter, times), (counter, counter, counter), (counter, ("things_total",), times)):
        with pytest.raises(UsageError):
            page.timed_event(*rows)


def test_events_that_have_a_part_in_the_same_counters() -> None:
    page = StatsPage.private(SCHEMA)
    times, also = ("taken_seconds",), (("things_total", "red", "small"), ("of_place_total", "other"))
    one, other = (page.timed_event(row, row, times, *also) for row in (("things_total", "red", "big"),) * 2)
    for _ in range(2):
        one.note(5, 7)
        other.note(3, 7)
        one.flush()
        other.flush()
    assert [page.value(*row) for row in also] == [4, 16]


def test_workers_go_on_in_the_page_of_their_slot() -> None:
    """Each slot has one; a worker of another release leaves it alone and has its own."""
    slots = SlotPages("test", "me", SCHEMA)
    try:
        given = slots.name_of(1)
        assert slots.name_of(1) == given != slots.name_of(0)
        with ExitStack() as resources:
            for writer in (1, 2):
                page = own_page("test", "me", SCHEMA, resources, given=given)
                page.counter("things_total", "red", "big").add()
                assert (page.name, reading_of(page).writers_total, reading_of(page).slot) == (given, writer, 1)
            assert page.value("things_total", "red", "big") == 2
            other = own_page("test", "me", Schema(SCHEMA.metrics[:2]), resources, given=given)
            assert other.name not in (given, "")
        assert reading_of(page).state is PageState.LIVE, "it is the supervisor's to remove"
        slots.ended(1, os.getpid() + 1)
        slots.ended(7, os.getpid())
        assert reading_of(page).state is PageState.LIVE, "others have ended"
        slots.ended(1, os.getpid())
        assert (reading_of(page).state, reading_of(page).writer) == (PageState.NO_WRITER, None)
        assert reading_of(page).number("things_total", "red", "big") == 2
    finally:
        slots.close()
    assert read_page(given) is None


def test_a_supervisor_without_room_names_no_page(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    slots = SlotPages("test", "", SCHEMA)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", refuse)
        assert slots.name_of(0) == ""
    assert [record.message for record in caplog.records] == ["no stats page"]
    assert slots.name_of(0) != ""
    slots.close()
