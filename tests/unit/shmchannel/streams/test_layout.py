"""The byte layout: the numbers of docs/protocol.md 3, and who writes which cache line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shmchannel.errors import LayoutMismatch
from shmchannel.process.identity import ProcessIdentity
from shmchannel.streams.layout import (
    CACHE_LINE_BYTES,
    DATA_AVAILABLE_OFFSET,
    HEADER_BYTES,
    LAYOUT_VERSION,
    MAGIC,
    SEGMENT_BYTES_MIN,
    SPACE_AVAILABLE_OFFSET,
    SegmentHeader,
)

SIZE = 4096
IDENTITY = ProcessIdentity(4711, 123_456, 0x0123456789ABCDEF_FEDCBA9876543210)


class Memory:
    """The first bytes of a segment, and the header over them."""

    def __init__(self, fill: int = 0) -> None:
        self.bytes = bytearray([fill]) * HEADER_BYTES
        self.header = SegmentHeader(memoryview(self.bytes).cast("Q"))

    def word(self, offset: int) -> int:
        return int.from_bytes(self.bytes[offset : offset + 8], "little")


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def published(memory: Memory) -> Memory:
    memory.header.initialise(SIZE, IDENTITY)
    memory.header.publish()
    return memory


def test_constants() -> None:
    assert (HEADER_BYTES, CACHE_LINE_BYTES, SEGMENT_BYTES_MIN) == (384, 64, 512)
    assert (DATA_AVAILABLE_OFFSET, SPACE_AVAILABLE_OFFSET) == (128, 160)
    assert MAGIC.to_bytes(8, "little") == b"\x01GFSEGM1"


def test_offsets_of_the_owner(published: Memory) -> None:
    assert published.bytes[:8] == b"\x01GFSEGM1"
    assert [published.word(offset) for offset in (8, 16, 24)] == [LAYOUT_VERSION, SIZE, SIZE - 384]
    assert published.header.prepare() == 1
    assert [published.word(offset) for offset in (64, 72, 80)] == [1, 4711, 123_456]
    assert int.from_bytes(published.bytes[88:104], "little") == IDENTITY.boot_id


def test_offsets_of_the_producer(memory: Memory) -> None:
    memory.header.write_chunk(11, 12, 13, 14)
    assert [memory.word(offset) for offset in (192, 200, 208, 216)] == [11, 12, 13, 14]
    assert memory.header.read_chunk() == [11, 12, 13, 14]
    memory.header.write_object(2**64 - 1, 22, 23, IDENTITY)
    assert [memory.word(offset) for offset in (256, 264, 272, 280, 288)] == [2**64 - 1, 22, 23, 4711, 123_456]
    assert memory.header.read_object() == (2**64 - 1, 22, 23)


def test_offset_of_the_consumer(memory: Memory) -> None:
    memory.header.write_request(3)
    assert memory.word(320) == memory.header.read_request() == 3


def write_as_owner(header: SegmentHeader) -> None:
    header.initialise(SIZE, IDENTITY)
    header.publish()


def write_as_producer(header: SegmentHeader) -> None:
    header.write_chunk(1, 1, 1, 1)
    header.write_object(1, 1, 1, IDENTITY)


def write_as_consumer(header: SegmentHeader) -> None:
    header.write_request(1)


SIDES: dict[str, Callable[[SegmentHeader], None]] = {
    "owner": write_as_owner,
    "producer": write_as_producer,
    "consumer": write_as_consumer,
}


def test_each_line_is_written_by_one_side() -> None:
    """Written over zeros and over ones, so that no store is missed that leaves a byte as it was."""
    lines: dict[str, set[int]] = {}
    for side, write in SIDES.items():
        lines[side] = set()
        for fill in (0, 0xFF):
            memory = Memory(fill)
            write(memory.header)
            lines[side] |= {offset // CACHE_LINE_BYTES for offset, byte in enumerate(memory.bytes) if byte != fill}
    assert lines == {"owner": {0, 1}, "producer": {3, 4}, "consumer": {5}}
    assert not any(DATA_AVAILABLE_OFFSET // CACHE_LINE_BYTES in written for written in lines.values())


def test_prepare_clears_both_sides_and_nothing_else(published: Memory) -> None:
    header = published.header
    header.write_chunk(1, 2, 3, 4)
    header.write_object(1, 2, 3, IDENTITY)
    header.write_request(1)
    before = bytes(published.bytes[:64])
    assert [header.prepare(), header.prepare(), header.generation] == [1, 2, 2]
    assert header.read_chunk() == [0, 0, 0, 0]
    assert header.read_object() == (0, 0, 0)
    assert header.read_request() == 0
    assert bytes(published.bytes[:64]) == before
    header.check(SIZE)


def test_check(published: Memory, memory: Memory) -> None:
    published.header.check(SIZE)
    with pytest.raises(LayoutMismatch, match="not published"):
        Memory().header.check(SIZE)


def test_unpublished_until_the_magic() -> None:
    memory = Memory()
    memory.header.initialise(SIZE, IDENTITY)
    with pytest.raises(LayoutMismatch, match="not published"):
        memory.header.check(SIZE)
    memory.header.publish()
    memory.header.check(SIZE)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, 1), (0, MAGIC + 1), (8, 0), (8, LAYOUT_VERSION + 1), (16, SIZE + 1), (16, 0), (24, SIZE), (24, 2**64 - 1)],
)
def test_mismatch(published: Memory, offset: int, value: int) -> None:
    published.bytes[offset : offset + 8] = value.to_bytes(8, "little")
    with pytest.raises(LayoutMismatch):
        published.header.check(SIZE)


@pytest.mark.parametrize("mapped_bytes", [SIZE - 1, SIZE + 1, 0])
def test_mismatch_with_the_block(published: Memory, mapped_bytes: int) -> None:
    with pytest.raises(LayoutMismatch):
        published.header.check(mapped_bytes)
