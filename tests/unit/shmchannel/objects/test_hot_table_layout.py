"""The layout of a hot table: its numbers, what fits, and what is refused as no hot table."""

import struct

import pytest

from shmchannel.errors import LayoutMismatch, UsageError
from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    CELL_BYTES,
    CELL_HEAD,
    CELL_HEAD_BYTES,
    CELL_ROOM_BYTES,
    HOT_TABLE_BYTES_MAX,
    HOT_TABLE_BYTES_MIN,
    HOT_TABLE_HEADER_BYTES,
    LAYOUT_VERSION,
    MAGIC,
    SET_BYTES,
    cells_in,
    check_hot_table_bytes,
    check_hot_table_header,
    fits_cell,
    header_words,
)

SIZE = 1 << 20


def header(*words: int) -> bytes:
    """A header of these words."""
    return struct.pack("<8Q", *words, *[0] * (8 - len(words)))


def test_numbers_of_the_document() -> None:
    assert (HOT_TABLE_HEADER_BYTES, CELL_BYTES, CELL_HEAD_BYTES, CELL_ROOM_BYTES) == (64, 18_432, 64, 18_368)
    assert MAGIC.to_bytes(8, "little") == b"\x01GFSHL1\0"
    assert CELL_HEAD.size == CELL_HEAD_BYTES == 64


@pytest.mark.parametrize(
    ("hot_table_bytes", "cells"),
    [(HOT_TABLE_BYTES_MIN, 2), (64 + 2 * SET_BYTES - 1, 2), (64 + 2 * SET_BYTES, 4), (8 << 20, 454)],
)
def test_cells(hot_table_bytes: int, cells: int) -> None:
    """Whole sets of two, and the last one ends within the block."""
    assert cells_in(hot_table_bytes) == cells
    assert HOT_TABLE_HEADER_BYTES + cells * CELL_BYTES <= hot_table_bytes


@pytest.mark.parametrize("hot_table_bytes", [0, -1, HOT_TABLE_BYTES_MIN - 1, HOT_TABLE_BYTES_MAX + 1])
def test_silly_size(hot_table_bytes: int) -> None:
    with pytest.raises(UsageError, match="not between 65536 and 1073741824"):
        check_hot_table_bytes(hot_table_bytes)


@pytest.mark.parametrize("hot_table_bytes", [HOT_TABLE_BYTES_MIN, HOT_TABLE_BYTES_MAX])
def test_usable_size(hot_table_bytes: int) -> None:
    check_hot_table_bytes(hot_table_bytes)


@pytest.mark.parametrize(
    ("lengths", "fits"),
    [
        ((1, 0, 0), True),
        ((1984, 0, BODY_BYTES_MAX), True),
        ((1985, 0, BODY_BYTES_MAX), False),
        ((1000, 984, BODY_BYTES_MAX), True),
        ((1000, 985, BODY_BYTES_MAX), False),
        ((1, 0, BODY_BYTES_MAX + 1), False),
        ((1, 65_536, 0), False),
        ((1, CELL_ROOM_BYTES - 1, 0), True),
    ],
    ids=str,
)
def test_what_fits(lengths: tuple[int, int, int], *, fits: bool) -> None:
    assert fits_cell(*lengths) is fits


def test_header_that_fits() -> None:
    check_hot_table_header(header(MAGIC, *header_words(SIZE)), SIZE)


@pytest.mark.parametrize(
    ("first", "mapped"),
    [
        (header(MAGIC + 1, *header_words(SIZE)), SIZE),
        (header(MAGIC, LAYOUT_VERSION + 1, *header_words(SIZE)[1:]), SIZE),
        (header(MAGIC, *header_words(SIZE)), SIZE + 4096),
        (header(MAGIC, *header_words(SIZE)), SIZE - 4096),
        (header(MAGIC, LAYOUT_VERSION, SIZE, CELL_BYTES + 64, cells_in(SIZE)), SIZE),
        (header(MAGIC, LAYOUT_VERSION, SIZE, CELL_BYTES, cells_in(SIZE) + 2), SIZE),
        (header(MAGIC, *header_words(4096)), 4096),
        (header(MAGIC, *header_words(HOT_TABLE_BYTES_MAX * 2)), HOT_TABLE_BYTES_MAX * 2),
        (b"", 0),
        (b"\x01GFSHL1\0", 8),
    ],
    ids=["magic", "version", "larger", "smaller", "cells", "count", "tiny", "huge", "empty", "cut"],
)
def test_header_that_does_not_fit(first: bytes, mapped: int) -> None:
    with pytest.raises(LayoutMismatch):
        check_hot_table_header(first, mapped)


def test_header_before_its_magic() -> None:
    with pytest.raises(LayoutMismatch, match="not published"):
        check_hot_table_header(header(0, *header_words(SIZE)), SIZE)
