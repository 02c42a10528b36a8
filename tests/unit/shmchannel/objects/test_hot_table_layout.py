"""The layout of a hot table: its numbers, what fits, and what is refused as no hot table."""

import struct

import pytest

from shmchannel.errors import LayoutMismatch, UsageError
from shmchannel.objects.hot_table_layout import (
    BUCKET_BYTES,
    BUCKET_CELLS,
    CELL,
    CELL_BYTES,
    HOT_TABLE_BYTES_MAX,
    HOT_TABLE_BYTES_MIN,
    HOT_TABLE_HEADER_BYTES,
    LAYOUT_VERSION,
    MAGIC,
    MARKS_PER_BUCKET,
    RECORD_BYTES_MAX,
    FileRef,
    HotTableEntry,
    check_hot_table_bytes,
    check_hot_table_header,
    file_ref,
    geometry,
    header_words,
)

SIZE = 1 << 20


def header(*words: int) -> bytes:
    """A header of these words."""
    return struct.pack("<8Q", *words, *[0] * (8 - len(words)))


def test_numbers_of_the_document() -> None:
    assert (HOT_TABLE_HEADER_BYTES, BUCKET_BYTES, BUCKET_CELLS, CELL_BYTES) == (64, 512, 7, 64)
    assert MAGIC.to_bytes(8, "little") == b"\x01GFSHL1\0"
    assert CELL.size <= CELL_BYTES


@pytest.mark.parametrize(
    ("hot_table_bytes", "expected"),
    [
        (HOT_TABLE_BYTES_MIN, (8, 8192, 12_288)),
        (8 << 20, (1024, 12_288, 536_576)),
        (HOT_TABLE_BYTES_MAX, (131_072, 1_052_672, 68_161_536)),
        (HOT_TABLE_BYTES_MIN + 8191, (8, 8192, 12_288)),
    ],
)
def test_geometry(hot_table_bytes: int, expected: tuple[int, int, int]) -> None:
    """All parts are whole pages, and what is left has room for the largest record twice."""
    places = geometry(hot_table_bytes)
    assert places == expected
    assert places.cell_count == BUCKET_CELLS * places.bucket_count
    assert places.marks_bytes % 4096 == places.buckets_at % 4096 == places.arena_at % 4096 == 0
    assert places.marks_bytes >= MARKS_PER_BUCKET * places.bucket_count
    assert places.arena_at - places.buckets_at >= BUCKET_BYTES * places.bucket_count
    assert hot_table_bytes - places.arena_at >= 2 * RECORD_BYTES_MAX


@pytest.mark.parametrize("hot_table_bytes", [0, -1, HOT_TABLE_BYTES_MIN - 1, HOT_TABLE_BYTES_MAX + 1])
def test_silly_size(hot_table_bytes: int) -> None:
    with pytest.raises(UsageError, match="not between 65536 and 1073741824"):
        check_hot_table_bytes(hot_table_bytes)


@pytest.mark.parametrize("hot_table_bytes", [HOT_TABLE_BYTES_MIN, HOT_TABLE_BYTES_MAX])
def test_usable_size(hot_table_bytes: int) -> None:
    check_hot_table_bytes(hot_table_bytes)


@pytest.mark.parametrize("name", [b"", b"00/name", b"n" * 255])
def test_file_references(name: bytes) -> None:
    reference = FileRef(5, 2**63, 7, 100_000, name)
    assert file_ref(reference.packed, 100_000) == reference


@pytest.mark.parametrize("packed", [b"", bytes(23), bytes(24) + b"a\0b", bytes(24) + b"n" * 256], ids=len)
def test_what_is_no_file_reference(packed: bytes) -> None:
    assert file_ref(packed, 100_000) is None


def test_entries_are_compared_by_what_they_say() -> None:
    """Not by where they were found."""
    one = HotTableEntry(1, b"facts", b"body", None, object(), 64, 2)
    assert one == HotTableEntry(1, b"facts", b"body")
    assert hash(one) == hash(HotTableEntry(1, b"facts", b"body"))
    assert one != HotTableEntry(2, b"facts", b"body")
    assert one != (1, b"facts", b"body", None)


def test_header_that_fits() -> None:
    check_hot_table_header(header(MAGIC, *header_words(SIZE)), SIZE)


@pytest.mark.parametrize(
    ("first", "mapped"),
    [
        (header(MAGIC + 1, *header_words(SIZE)), SIZE),
        (header(MAGIC, LAYOUT_VERSION + 1, *header_words(SIZE)[1:]), SIZE),
        (header(MAGIC, *header_words(SIZE)), SIZE + 4096),
        (header(MAGIC, *header_words(SIZE)), SIZE - 4096),
        (header(MAGIC, LAYOUT_VERSION, SIZE, geometry(SIZE)[0] + 1, *geometry(SIZE)[1:]), SIZE),
        (header(MAGIC, 2, SIZE, 18_432, 56), SIZE),
        (header(MAGIC, *header_words(4096)), 4096),
        (header(MAGIC, *header_words(HOT_TABLE_BYTES_MAX * 2)), HOT_TABLE_BYTES_MAX * 2),
        (b"", 0),
        (b"\x01GFSHL1\0", 8),
    ],
    ids=["magic", "version", "larger", "smaller", "buckets", "the layout before", "tiny", "huge", "empty", "cut"],
)
def test_header_that_does_not_fit(first: bytes, mapped: int) -> None:
    with pytest.raises(LayoutMismatch):
        check_hot_table_header(first, mapped)


def test_header_before_its_magic() -> None:
    with pytest.raises(LayoutMismatch, match="not published"):
        check_hot_table_header(header(0, *header_words(SIZE)), SIZE)
