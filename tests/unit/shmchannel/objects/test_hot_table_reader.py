"""HotTableReader: gives whole copies or nothing, whatever lies in the block and whoever changes it in between."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import posix_ipc
import pytest

from shmchannel.errors import AccessDenied, LayoutMismatch, NameMissing
from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    CELL_BYTES,
    CELLS_AT,
    HOT_TABLE_BYTES_MIN,
    LINE_BYTES,
    MAGIC,
    RECORD_BYTES_MAX,
    VALID_UNTIL_AT,
    FileRef,
    HotTableEntry,
    geometry,
    header_words,
)
from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name
from tests.support.hot_tables import HotTable, entry, open_hot_table

KEY = b"/key"
BODY = bytes(range(256)) * 32
PLACES = geometry(HOT_TABLE_BYTES_MIN)
BUCKET = PLACES.buckets_at + crc32(KEY) % PLACES.bucket_count * 512
FIRST = BUCKET + CELLS_AT
LAST = FIRST + 6 * CELL_BYTES
"""Where two of the cells of the key's bucket begin."""


class Block:
    """An anonymous hot table, whose words a test writes; two records lie in its arena."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, HOT_TABLE_BYTES_MIN)
        self.words(0, MAGIC, *header_words(HOT_TABLE_BYTES_MIN))
        self.marks = bytearray(PLACES.marks_bytes)
        self.reader = HotTableReader(self.memory, self.marks)

    def words(self, at: int, *values: int) -> None:
        """Write 64-bit words from this offset on."""
        self.memory[at : at + 8 * len(values)] = b"".join(value.to_bytes(8, "little") for value in values)

    def cell(self, at: int, *, key: bytes = KEY, metadata: bytes = b"facts", body: bytes = BODY, **head: int) -> None:
        """Fill a cell of the bucket, and its record; fields may be given other values than fit."""
        number = (at - FIRST) // CELL_BYTES
        start = PLACES.arena_at + (number > 0) * LINE_BYTES * 300
        record = key + metadata + body
        fields = {"tag": crc32(key), "sequence": 2, "valid_until": 2**63, "version": 7, "line": start // LINE_BYTES}
        fields |= {"record_bytes": len(record), "key_bytes": len(key), "metadata_bytes": len(metadata)}
        fields |= {"file_bytes": 0} | head
        self.memory[BUCKET + 4 * number : BUCKET + 4 * number + 4] = fields["tag"].to_bytes(4, "little")
        self.words(at, fields["sequence"], fields["valid_until"], fields["version"])
        self.words(at + 24, fields["line"] | fields["record_bytes"] << 32)
        self.words(at + 32, fields["key_bytes"] | fields["metadata_bytes"] << 32, fields["file_bytes"])
        self.memory[start : start + len(record)] = record


@pytest.fixture
def block() -> Iterator[Block]:
    made = Block()
    yield made
    made.reader.close()


@pytest.mark.parametrize("at", [FIRST, LAST], ids=["first", "last"])
def test_whole_entry_of_any_cell(block: Block, at: int) -> None:
    block.cell(at)
    found = block.reader.get(KEY)
    assert found == entry(7, BODY, b"facts")
    assert found is not None
    assert (type(found).__name__, type(found.metadata), type(found.body)) == ("HotTableEntry", bytes, bytes)
    assert (found.block, found.at, found.sequence) == (block.memory, at, 2)


def test_reference_to_a_file(block: Block) -> None:
    """The body is three words then, and a name; if it is shorter it is no reference, and nothing was found."""
    reference = FileRef(number=5, device=7, inode=2**63, size_bytes=10_000_000, name=b"00/name")
    block.cell(FIRST, body=reference.packed, file_bytes=reference.size_bytes)
    found = block.reader.get(KEY)
    assert found == HotTableEntry(7, b"facts", b"", reference)
    assert found is not None
    assert found.size_bytes == 10_000_000
    block.cell(FIRST, body=reference.packed[:23], file_bytes=reference.size_bytes)
    assert block.reader.get(KEY) is None


def test_several_cells(block: Block) -> None:
    one, two, three = (key for key in _same_bucket() if key != KEY)
    block.cell(FIRST, key=one, body=b"1")
    block.cell(LAST, key=two, body=b"2", metadata=b"")
    assert block.reader.get(one) == entry(7, b"1", b"facts")
    assert block.reader.get(two) == entry(7, b"2")
    assert block.reader.get(three) is None


def _same_bucket() -> list[bytes]:
    """Keys whose bucket is that of KEY."""
    keys = [b"/%d" % number for number in range(100)]
    return [key for key in keys if crc32(key) % PLACES.bucket_count == crc32(KEY) % PLACES.bucket_count][:3]


def test_two_keys_of_one_hash(block: Block) -> None:
    """The tag is that of both; the key decides."""
    block.cell(FIRST, key=b"/kez", tag=crc32(KEY))
    block.cell(LAST)
    assert block.reader.get(KEY) == entry(7, BODY, b"facts")


def test_tag_in_the_middle_of_two(block: Block) -> None:
    """Halves of two tags look like the one that is sought."""
    block.cell(LAST)
    block.memory[BUCKET + 2 : BUCKET + 6] = crc32(KEY).to_bytes(4, "little")
    assert block.reader.get(KEY) == entry(7, BODY, b"facts")


def test_use_is_marked(block: Block) -> None:
    block.cell(LAST)
    assert not any(block.marks)
    for _ in range(2):
        assert block.reader.get(KEY) is not None
        assert [number for number, mark in enumerate(block.marks) if mark] == [(BUCKET - PLACES.buckets_at) // 64 + 6]
    block.marks[:] = bytes(len(block.marks))
    assert block.reader.get(b"/other") is None
    assert not any(block.marks)


@pytest.mark.parametrize("key", [KEY, b"", b"/" + b"x" * 5000])
def test_empty_hot_table(block: Block, key: bytes) -> None:
    """All zero: also the key whose hash is 0 is not there."""
    assert block.reader.get(key) is None


@pytest.mark.parametrize(
    "head",
    [
        {"sequence": 3},
        {"valid_until": 0},
        {"valid_until": 1},
        {"key_bytes": 3},
        {"key_bytes": 5},
        {"key_bytes": 2**32 - 1},
        {"metadata_bytes": 2**32 - 1},
        {"metadata_bytes": 5 + len(BODY) + 1},
        {"record_bytes": 0},
        {"record_bytes": 8},
        {"record_bytes": 9 + BODY_BYTES_MAX + 1},
        {"record_bytes": RECORD_BYTES_MAX + 1, "metadata_bytes": 20_000},
        {"record_bytes": 2**32 - 1},
        {"line": 2**32 - 1},
        {"line": HOT_TABLE_BYTES_MIN // LINE_BYTES - 1},
        {"tag": crc32(KEY) ^ 1},
        {"tag": 0},
    ],
    ids=str,
)
def test_head_that_cannot_be_right(block: Block, head: dict[str, int]) -> None:
    block.cell(FIRST, **head)
    assert block.reader.get(KEY) is None


def test_other_key_of_the_same_hash_and_length(block: Block) -> None:
    block.cell(FIRST, key=b"/kez", tag=crc32(KEY))
    assert block.reader.get(KEY) is None


def test_time_passes(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry is good before its time and not from then on."""
    now = [999]
    monkeypatch.setattr("shmchannel.objects.hot_table_reader.monotonic_ns", lambda: now[0])
    block.cell(FIRST, valid_until=1000)
    assert block.reader.get(KEY) is not None
    now[0] = 1000
    assert block.reader.get(KEY) is None


class Interrupted(bytearray):
    """A block that somebody changes just after the reader's slice number `number`."""

    number = -1
    change: Callable[[Interrupted], None]

    def __getitem__(self, place: Any) -> Any:
        part = bytes(super().__getitem__(place))
        self.number -= 1
        if self.number == 0:
            self.change(self)
        return part


def _rewrite(block: Interrupted) -> None:
    """The steps of a publisher that empties the cell and uses the record's place anew, between two of the reader's."""
    start = PLACES.arena_at + len(KEY)
    block[FIRST : FIRST + 8] = (4).to_bytes(8, "little")
    block[start : start + len(BODY)] = bytes(len(BODY))


def _begin_to_rewrite(block: Interrupted) -> None:
    block[FIRST : FIRST + 8] = (3).to_bytes(8, "little")


@pytest.mark.parametrize("change", [_rewrite, _begin_to_rewrite])
@pytest.mark.parametrize("number", [1, 2, 3], ids=["after the key", "after the metadata", "after the body"])
def test_change_while_it_is_read(block: Block, number: int, change: Callable[[Interrupted], None]) -> None:
    """Between any two steps: nothing comes of it, though every byte may look well."""
    block.cell(FIRST, metadata=b"")
    memory = Interrupted(block.memory[:])
    reader = HotTableReader(cast("mmap.mmap", memory))
    assert reader.get(KEY) == entry(7, BODY), "nothing changes"
    memory.change = change
    memory.number = number
    assert reader.get(KEY) is None


def test_more_time_while_it_is_read_changes_nothing(block: Block) -> None:
    block.cell(FIRST)
    block.words(FIRST + VALID_UNTIL_AT, 2**62)
    assert block.reader.get(KEY) == entry(7, BODY, b"facts")
    block.words(FIRST, 5)
    assert block.reader.get(KEY) is None


def always() -> bool:
    return True


@pytest.mark.parametrize("at", [FIRST, LAST], ids=["first", "last"])
def test_watch(block: Block, at: int) -> None:
    """More time changes nothing; an end of time, another content, or a cache that is not ready do."""
    block.cell(at)
    ready = [True]
    watch = block.reader.watch(KEY, entry(7, BODY, b"facts"), lambda: ready[0])
    assert watch is not None
    assert watch.holds()
    ready[0] = False
    assert not watch.holds()
    ready[0] = True
    block.words(at + VALID_UNTIL_AT, 1)
    assert not watch.holds()
    block.words(at + VALID_UNTIL_AT, 2**62)
    assert watch.holds()
    block.words(at, 3)
    assert not watch.holds()
    block.words(at, 4)
    assert not watch.holds()


@pytest.mark.parametrize(
    "seen",
    [entry(8, BODY, b"facts"), entry(7, BODY[1:], b"facts"), entry(7, BODY)],
    ids=["version", "body", "metadata"],
)
def test_watch_of_what_is_not_there_any_more(block: Block, seen: HotTableEntry) -> None:
    block.cell(FIRST)
    assert block.reader.watch(KEY, seen, always) is None
    assert block.reader.watch(b"/other", entry(7, BODY, b"facts"), always) is None


def test_what_a_watch_looks_at(block: Block) -> None:
    """Compiled code may look at the same two words."""
    block.cell(FIRST)
    found = block.reader.get(KEY)
    assert found is not None
    watch = block.reader.watch(KEY, found, always)
    assert watch is not None
    assert (watch.block, watch.at, watch.sequence) == (block.memory, FIRST, 2)


def test_watch_of_another_tables_entry(block: Block) -> None:
    """Where it was found there is nothing, or something else, here."""
    block.cell(FIRST)
    other = Block()
    other.cell(FIRST, version=8)
    seen = other.reader.get(KEY)
    assert seen is not None
    assert block.reader.watch(KEY, seen, always) is None
    assert other.reader.watch(KEY, seen, always) is not None
    other.reader.close()


def test_watch_of_a_cell_that_changes(block: Block) -> None:
    block.cell(FIRST, sequence=3)
    assert block.reader.watch(KEY, entry(7, BODY, b"facts"), always) is None


def test_watch_ends_with_its_reader(block: Block) -> None:
    block.cell(FIRST)
    watch = block.reader.watch(KEY, entry(7, BODY, b"facts"), always)
    assert watch is not None
    block.reader.close()
    assert not watch.holds()
    assert block.reader.watch(KEY, entry(7, BODY, b"facts"), always) is None


@pytest.fixture
def hot_table() -> Iterator[HotTable]:
    with open_hot_table() as made:
        yield made


def test_closed_reader(hot_table: HotTable) -> None:
    assert hot_table.put(KEY, 1, BODY)
    hot_table.reader.close()
    hot_table.reader.close()
    assert hot_table.reader.get(KEY) is None


def test_reader_outlives_the_hot_table(hot_table: HotTable) -> None:
    """A close takes everything off, for who has it mapped still."""
    assert hot_table.put(KEY, 1, BODY)
    hot_table.publisher.close()
    assert hot_table.reader.get(KEY) is None
    with pytest.raises(NameMissing):
        HotTableReader.attach(hot_table.queue_name)


def test_reader_cannot_write(hot_table: HotTable) -> None:
    """Nothing but the use marks, which are mapped apart, as the publisher has mapped the whole."""
    path = SHM_DIRECTORY + hot_table_name(hot_table.queue_name)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path)]
    parts = {(rights, int(offset, 16)): _length(addresses) for addresses, rights, offset, *_ in lines}
    assert parts == {
        ("r--s", 0): HOT_TABLE_BYTES_MIN,
        ("rw-s", 0): HOT_TABLE_BYTES_MIN,
        ("rw-s", 4096): PLACES.marks_bytes,
    }


def _length(addresses: str) -> int:
    start, _, end = addresses.partition("-")
    return int(end, 16) - int(start, 16)


def test_another_users(hot_table: HotTable, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)
    with pytest.raises(AccessDenied, match=f"belongs to uid {uid}"):
        HotTableReader.attach(hot_table.queue_name)


@pytest.mark.parametrize(
    ("size", "word", "value", "error"),
    [
        (None, 0, 0, LayoutMismatch),
        (None, 0, MAGIC + 1, LayoutMismatch),
        (None, 1, 99, LayoutMismatch),
        (None, 4, 10**6, LayoutMismatch),
        (0, 0, 0, LayoutMismatch),
        (7, 0, 0, LayoutMismatch),
        (1 << 31, 0, 0, LayoutMismatch),
    ],
    ids=str,
)
def test_block_that_is_no_hot_table(
    hot_table: HotTable, size: int | None, word: int, value: int, error: type[Exception]
) -> None:
    """Nothing is mapped that does not fit its own header."""
    memory = posix_ipc.SharedMemory(hot_table_name(hot_table.queue_name))
    if size is None:
        os.pwrite(memory.fd, value.to_bytes(8, "little"), 8 * word)
    else:
        hot_table.reader.close()
        os.ftruncate(memory.fd, size)
    with pytest.raises(error):
        HotTableReader.attach(hot_table.queue_name)
    if size is not None:
        os.ftruncate(memory.fd, HOT_TABLE_BYTES_MIN)  # the publisher takes off what lies there at its end
    memory.close_fd()
