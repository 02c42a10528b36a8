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
    CELL_HEAD_BYTES,
    CELL_ROOM_BYTES,
    HOT_TABLE_BYTES_MIN,
    HOT_TABLE_HEADER_BYTES,
    MAGIC,
    SEQUENCE,
    VALID_UNTIL,
    FileRef,
    HotTableEntry,
    header_words,
)
from shmchannel.objects.hot_table_reader import HotTableReader
from shmchannel.process.naming import SHM_DIRECTORY, hot_table_name
from tests.support.hot_tables import HotTable, entry, open_hot_table

KEY = b"/key"
BODY = bytes(range(256)) * 32
FIRST = HOT_TABLE_HEADER_BYTES
SECOND = FIRST + CELL_BYTES
"""Where the two cells of the only set begin."""


class Block:
    """An anonymous hot table of one set, whose words a test writes."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, HOT_TABLE_BYTES_MIN)
        self.words(0, MAGIC, *header_words(HOT_TABLE_BYTES_MIN))
        self.reader = HotTableReader(self.memory)

    def words(self, at: int, *values: int) -> None:
        """Write 64-bit words from this offset on."""
        self.memory[at : at + 8 * len(values)] = b"".join(value.to_bytes(8, "little") for value in values)

    def cell(self, at: int, *, key: bytes = KEY, metadata: bytes = b"facts", body: bytes = BODY, **head: int) -> None:
        """Fill a cell; fields of the head may be given other values than fit."""
        fields = {"sequence": 2, "key_hash": crc32(key), "valid_until": 2**63, "version": 7, "key_bytes": len(key)}
        fields |= {"metadata_bytes": len(metadata), "body_bytes": len(body), "file_bytes": 0} | head
        self.words(at, *fields.values())
        room = key + metadata + body
        self.memory[at + CELL_HEAD_BYTES : at + CELL_HEAD_BYTES + len(room)] = room


@pytest.fixture
def block() -> Iterator[Block]:
    made = Block()
    yield made
    made.reader.close()


@pytest.mark.parametrize("at", [FIRST, SECOND], ids=["first", "second"])
def test_whole_entry_of_either_cell(block: Block, at: int) -> None:
    block.cell(at)
    found = block.reader.get(KEY)
    assert found == entry(7, BODY, b"facts")
    assert found is not None
    assert (type(found).__name__, type(found.metadata), type(found.body)) == ("HotTableEntry", bytes, bytes)


def test_reference_to_a_file(block: Block) -> None:
    """The body is three words then; of any other length it is no reference, and nothing was found."""
    reference = FileRef(number=5, device=7, inode=2**63, size_bytes=10_000_000)
    block.cell(FIRST, body=reference.packed, file_bytes=reference.size_bytes)
    found = block.reader.get(KEY)
    assert found == HotTableEntry(7, b"facts", b"", reference)
    assert found is not None
    assert found.size_bytes == 10_000_000
    block.cell(FIRST, body=reference.packed + b"x", file_bytes=reference.size_bytes)
    assert block.reader.get(KEY) is None


def test_both_cells(block: Block) -> None:
    block.cell(FIRST, key=b"/one", body=b"1")
    block.cell(SECOND, key=b"/two", body=b"2", metadata=b"")
    assert block.reader.get(b"/one") == entry(7, b"1", b"facts")
    assert block.reader.get(b"/two") == entry(7, b"2")
    assert block.reader.get(b"/three") is None


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
        {"key_bytes": 2**64 - 1},
        {"body_bytes": BODY_BYTES_MAX + 1},
        {"body_bytes": 2**64 - 1},
        {"metadata_bytes": 2**64 - 1},
        {"metadata_bytes": CELL_ROOM_BYTES},
        {"key_hash": crc32(KEY) ^ 1},
        {"key_hash": crc32(KEY) | 1 << 32},
    ],
    ids=str,
)
def test_head_that_cannot_be_right(block: Block, head: dict[str, int]) -> None:
    block.cell(FIRST, **head)
    assert block.reader.get(KEY) is None


def test_other_key_of_the_same_hash_and_length(block: Block) -> None:
    block.cell(FIRST, key=b"/kez", key_hash=crc32(KEY))
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
    """The steps of a publisher that puts a whole new entry there between two of the reader's steps."""
    start = FIRST + CELL_HEAD_BYTES + len(KEY)
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
    block.words(FIRST + 8 * VALID_UNTIL, 2**62)
    assert block.reader.get(KEY) == entry(7, BODY, b"facts")
    block.words(FIRST + 8 * SEQUENCE, 5)
    assert block.reader.get(KEY) is None


def always() -> bool:
    return True


@pytest.mark.parametrize("at", [FIRST, SECOND], ids=["first", "second"])
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
    block.words(at + 8 * VALID_UNTIL, 1)
    assert not watch.holds()
    block.words(at + 8 * VALID_UNTIL, 2**62)
    assert watch.holds()
    block.words(at + 8 * SEQUENCE, 3)
    assert not watch.holds()
    block.words(at + 8 * SEQUENCE, 4)
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
    """Its mapping, the other one of this process, is not writable."""
    path = SHM_DIRECTORY + hot_table_name(hot_table.queue_name)
    rights = [line.split()[1] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path)]
    assert sorted(rights) == ["r--s", "rw-s"]


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
