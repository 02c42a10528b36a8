from __future__ import annotations

import errno
import sqlite3
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from simplecached.errors import StartupError, StoreUnavailable
from simplecached.stores.directory_index import DirectoryIndex
from simplecached.stores.record import Record
from tests.support.stores import Facts, LockThatTells, facts_of
from tests.support.waiting import WATCHDOG_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "index.sqlite")


def record(version: int, key: bytes = b"/key") -> Record:
    return Record(key, 10, b"\0meta", version)


def add(index: DirectoryIndex, new: Record, used_tick: int) -> None:
    new.used_tick = used_tick
    index.add(lambda: new)


def rows_in(path: str) -> list[tuple[Facts, int]]:
    index = DirectoryIndex(path)
    try:
        return [(facts_of(found), found.used_tick) for found in index.take_records()]
    finally:
        index.close()


def test_rows_come_back_in_the_order_of_use(path: str) -> None:
    index = DirectoryIndex(path)
    for version in (1, 2, 3):
        add(index, record(version), version)
    index.note_use([(9, 1), (5, 77)])
    index.remove([2, 88])
    index.close()
    index.close()
    assert rows_in(path) == [(facts_of(record(3)), 3), (facts_of(record(1)), 9)]


def test_invalidation_and_other_metadata(path: str) -> None:
    index = DirectoryIndex(path)
    for version in (1, 2, 3, 4):
        add(index, record(version), version)
    invalidated = record(5)
    invalidated.invalidated = True
    add(index, invalidated, 5)
    index.invalidate([2, 3, 88])
    index.replace_metadata(3, b"new")
    index.replace_metadata(4, b"other")
    index.replace_metadata(88, b"nobody's")
    index.close()
    assert [(row.version, row.metadata, row.invalidated) for row, _ in rows_in(path)] == [
        (1, b"\0meta", False),
        (2, b"\0meta", True),
        (3, b"new", False),
        (4, b"other", False),
        (5, b"\0meta", True),
    ]


def test_the_highest_version_is_remembered_after_its_row_is_gone(path: str) -> None:
    index = DirectoryIndex(path)
    assert index.last_version == 0
    add(index, record(2**62), 1)
    index.remove([2**62])
    index.close()
    index = DirectoryIndex(path)
    index.close()
    assert index.last_version == 2**62


def test_rows_are_handed_over_once(path: str) -> None:
    index = DirectoryIndex(path)
    add(index, record(1), 1)
    index.close()
    index = DirectoryIndex(path)
    assert len(index.take_records()) == 1
    assert index.take_records() == []
    index.close()


def test_a_refused_write_leaves_no_half(path: str) -> None:
    index = DirectoryIndex(path)
    add(index, record(1), 1)
    with pytest.raises(StoreUnavailable):
        add(index, record(1), 1)
    add(index, record(2), 2)
    index.close()
    assert [row.version for row, _ in rows_in(path)] == [1, 2]


def test_who_purges_meets_the_row_or_the_question_for_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A removal or an invalidation that comes when the question has been answered waits until the row is there."""
    waits = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Lock", partial(LockThatTells, waits))
        index = DirectoryIndex(path)
    changes: list[threading.Thread] = []

    def ask(number: int, change: Callable[[], None]) -> Record:
        waits.clear()
        changes.append(threading.Thread(target=change))
        changes[-1].start()
        assert waits.wait(WATCHDOG_S)
        return record(number)

    index.add(partial(ask, 1, partial(index.remove, [1])))
    index.add(partial(ask, 2, partial(index.invalidate, [2])))
    index.add(lambda: None)
    for change in changes:
        change.join()
    index.close()
    assert [(row.version, row.invalidated) for row, _ in rows_in(path)] == [(2, True)]


def test_a_closed_index_refuses(path: str) -> None:
    index = DirectoryIndex(path)
    index.close()
    with pytest.raises(StoreUnavailable) as caught:
        index.remove([1])
    assert (caught.value.errno, caught.value.path) == (errno.ESHUTDOWN, path)


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 100, b"x"])
def test_a_damaged_file_is_replaced(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    assert rows_in(path) == []
    index = DirectoryIndex(path)
    add(index, record(1), 1)
    index.close()
    assert rows_in(path) == [(facts_of(record(1)), 1)]


def test_a_damaged_page_is_found_at_the_start(path: str) -> None:
    index = DirectoryIndex(path)
    for version in range(1, 400):
        add(index, record(version, b"/key" * 50), version)
    index.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40_960)
    assert rows_in(path) == []


@pytest.mark.parametrize("layout_version", [2, 99])
def test_another_layout_starts_empty(path: str, layout_version: int) -> None:
    index = DirectoryIndex(path)
    add(index, record(1), 1)
    index.close()
    database = sqlite3.connect(path)
    if layout_version == 2:
        database.execute("ALTER TABLE objects RENAME COLUMN invalidated TO marked")
    database.execute(f"PRAGMA user_version = {layout_version}")
    database.close()
    assert rows_in(path) == []
    index = DirectoryIndex(path)
    add(index, record(2), 1)
    index.close()
    assert rows_in(path) == [(facts_of(record(2)), 1)]


def test_a_place_that_cannot_hold_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="none/index"):
        DirectoryIndex(str(tmp_path / "none" / "index"))
