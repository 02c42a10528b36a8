from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from simplecached.errors import StartupError, StoreUnavailable
from simplecached.stores.directory_index import DirectoryIndex, end_of_prefix
from simplecached.stores.directory_rows import Row
from simplecached.stores.purges import Purge

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "index.sqlite")


def row(version: int, key: bytes = b"/key", tick: int = 0, *, invalidated: int = 0, epoch: int = 0) -> Row:
    return Row(version, key, 10, b"\0meta", tick or version, invalidated, epoch)


def add(index: DirectoryIndex, *rows: Row) -> None:
    with index.writing() as batch:
        batch.add(rows)


def rows_in(path: str) -> list[Row]:
    index = DirectoryIndex(path)
    try:
        return index.oldest((-1, -1), -1)
    finally:
        index.close()


def test_rows_come_back_in_the_order_of_use(path: str) -> None:
    index = DirectoryIndex(path)
    add(index, *(row(version) for version in (1, 2, 3)))
    with index.writing() as batch:
        batch.note_use([(9, 1), (5, 77)])
        batch.remove([2, 88])
    index.close()
    index.close()
    assert rows_in(path) == [row(3), row(1, tick=9)]
    index = DirectoryIndex(path)
    assert (index.last_tick, index.objects_count, index.cost_bytes) == (9, 2, 30)
    assert index.oldest((3, 3), 9) == [row(1, tick=9)]
    assert index.oldest((3, 2), 1) == [row(3)]
    index.close()


def test_many_rows_at_once(path: str) -> None:
    index = DirectoryIndex(path)
    rows = [row(version, b"/%03d" % version) for version in range(1, 300)]
    add(index, *rows)
    add(index, *rows)
    assert index.known([*range(250, 400)]) == set(range(250, 300))
    assert index.of_versions([7, 8, 1000]) == [row(7, b"/007"), row(8, b"/008")]
    assert index.after_version(297, 9) == [row(298, b"/298"), row(299, b"/299")]
    with index.writing() as batch:
        batch.remove(range(1, 200))
    index.close()
    assert len(rows_in(path)) == 100


def test_rows_are_found_by_key_and_by_prefix(path: str) -> None:
    index = DirectoryIndex(path)
    keys = [b"", b"/a", b"/a\0x", b"/ab", b"/b", b"\xff", b"\xff\xff\x01"]
    add(index, *(row(version + 1, key) for version, key in enumerate(keys)), row(9, b"/a"))
    youngest = index.find(b"/a")
    assert youngest is not None
    assert youngest.version == 9
    assert index.find(b"/none") is None
    assert [found.version for found in index.between(b"/a", b"/a\0")] == [2, 9]
    for prefix in (b"", b"/a", b"\xff", b"\xff\xff", b"/none"):
        found = [one.key for one in index.between(prefix, end_of_prefix(prefix))]
        assert found == sorted(key for key in [*keys, b"/a"] if key.startswith(prefix))
        assert index.count_between(prefix, end_of_prefix(prefix)) == len(found)
    assert index.count_between(b"", None, 3) == 3
    index.close()


def test_invalidation_and_other_metadata(path: str) -> None:
    index = DirectoryIndex(path)
    add(index, *(row(version) for version in (1, 2, 3, 4)), row(5, invalidated=1), row(6, epoch=2))
    with index.writing() as batch:
        batch.invalidate([2, 3, 6, 88], 1)
        batch.relabel(row(3)._replace(metadata=b"new", epoch=1))
        batch.relabel(row(4)._replace(metadata=b"other"))
        batch.relabel(row(7)._replace(metadata=b"first"))
    index.close()
    assert [(one.version, one.metadata, one.invalidated, one.epoch) for one in rows_in(path)] == [
        (1, b"\0meta", 0, 0),
        (2, b"\0meta", 1, 1),
        (3, b"new", 0, 1),
        (4, b"other", 0, 0),
        (5, b"\0meta", 1, 0),
        (6, b"\0meta", 0, 2),
        (7, b"first", 0, 0),
    ]
    index = DirectoryIndex(path)
    assert index.cost_bytes == 70 + 5 + 5 + 3 + 5 + 5 + 5 + 5
    index.close()


def test_numbers_are_remembered_after_their_rows_are_gone(path: str) -> None:
    index = DirectoryIndex(path)
    assert (index.last_version, index.last_purge) == (0, 0)
    with index.writing() as batch:
        batch.note_version(5)
        batch.add([row(2**62)])
        batch.note_version(7)
        batch.remove([2**62])
        first = batch.add_purge(b"/a", invalidates=False)
        second = batch.add_purge(b"/b", invalidates=True)
        batch.remove_purge(second)
    index.close()
    index = DirectoryIndex(path)
    index.close()
    assert (index.last_version, index.last_purge) == (2**62, second)
    assert index.purges == (Purge(first, b"/a", invalidates=False),)


def test_a_refused_write_leaves_no_half(path: str) -> None:
    index = DirectoryIndex(path)

    def write() -> None:
        with index.writing() as batch:
            batch.add([row(1)])
            batch.relabel(row(2)._replace(key=None))  # type: ignore[arg-type]

    with pytest.raises(StoreUnavailable):
        write()
    add(index, row(3))
    index.close()
    assert [one.version for one in rows_in(path)] == [3]


def test_what_is_not_committed_is_not_read(path: str) -> None:
    index = DirectoryIndex(path)
    with index.writing() as batch:
        batch.add([row(1)])
        assert index.find(b"/key") is None
    assert index.find(b"/key") == row(1)
    index.close()


def test_a_long_journal_is_written_back(path: str) -> None:
    index = DirectoryIndex(path)
    for number in range(1, 40):
        add(index, Row(number, b"%d" % number, 0, bytes(1 << 19), number, 0, 0))
        index.checkpoint()
    assert os.stat(path + "-wal").st_size < 20 << 20
    index.close()
    assert len(rows_in(path)) == 39


def test_a_closed_index_refuses(path: str) -> None:
    index = DirectoryIndex(path)
    index.close()
    index.checkpoint()
    with pytest.raises(StoreUnavailable) as caught:
        add(index, row(1))
    assert (caught.value.errno, caught.value.path) == (errno.ESHUTDOWN, path)
    with pytest.raises(StoreUnavailable):
        index.find(b"/key")


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be looked at" * 100, b"x"])
def test_a_damaged_file_is_replaced(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    assert rows_in(path) == []
    index = DirectoryIndex(path)
    add(index, row(1))
    index.close()
    assert rows_in(path) == [row(1)]


def test_a_damaged_page_is_found_when_it_is_read_and_the_next_start_is_empty(path: str) -> None:
    index = DirectoryIndex(path)
    add(index, *(row(version, b"/key%d" % version * 50) for version in range(1, 400)))
    index.close()
    with open(path, "r+b") as file:
        file.seek(102_400)
        file.write(b"\xff" * 204_800)
    index = DirectoryIndex(path)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            index.oldest((-1, -1), -1)
    index.close()
    assert rows_in(path) == []
    index = DirectoryIndex(path)
    add(index, row(1))
    index.close()
    assert rows_in(path) == [row(1)]


_FORMER_SCHEMA = """
CREATE TABLE objects (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL,
    size_bytes INTEGER NOT NULL,
    metadata BLOB NOT NULL,
    used_tick INTEGER NOT NULL,
    invalidated INTEGER NOT NULL
)
"""


@pytest.mark.parametrize("was_new_before", [False, True])
def test_the_former_layout_is_taken_over(path: str, was_new_before: bool) -> None:
    """Also one that the former release has made of an index of this one: it drops the table of objects alone."""
    if was_new_before:
        index = DirectoryIndex(path)
        add(index, row(50))
        index.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE IF EXISTS objects")
        database.execute(_FORMER_SCHEMA)
        database.execute("PRAGMA user_version = 3")
        database.execute("INSERT INTO objects VALUES (7, x'2f61', 10, x'6d', 3, 1)")
        database.execute("INSERT INTO objects VALUES (9, x'2f62', 20, x'', 2, 0)")
        database.commit()
    for _ in range(2):
        index = DirectoryIndex(path)
        assert index.oldest((-1, -1), 9) == [Row(9, b"/b", 20, b"", 2, 0, 0), Row(7, b"/a", 10, b"m", 3, 1, 0)]
        assert (index.last_version, index.last_tick, index.objects_count, index.cost_bytes) == (9, 3, 2, 31)
        index.close()


@pytest.mark.parametrize("layout_version", [2, 99])
def test_another_layout_starts_empty(path: str, layout_version: int) -> None:
    index = DirectoryIndex(path)
    add(index, row(1))
    index.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {layout_version}")
    assert rows_in(path) == []
    index = DirectoryIndex(path)
    add(index, row(2))
    index.close()
    assert rows_in(path) == [row(2)]


def test_a_place_that_cannot_hold_an_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="none/index"):
        DirectoryIndex(str(tmp_path / "none" / "index"))
