"""PURE: the byte layout of a stats page, written once (normative text: docs/protocol.md 10).

    off  size  field                                               written by
      0     8  magic                                               owner, LAST: its arrival publishes the page
      8     8  layout version
     16     8  page size in bytes, this header included
     24     8  offset of the schema
     32     8  length of the schema in bytes
     40     8  CRC-32 of the schema
     48     8  offset of the cells
     56     8  number of cells
     64     8  owner pid                                           owner
     72     8  owner start time (field 22 of /proc/PID/stat)
     80    16  boot id
     96    16  role of the writer: proxy, cache, ...               (text)
    112     8  slot: the number of the writer among those of its owner
    120     8  offset of the names of rows
    128   128  instance: what tells this owner from others         (text)
    256     8  writer pid                                          writer
    264     8  writer start time
    272     8  started: CLOCK_MONOTONIC nanoseconds
    280     8  heartbeat: CLOCK_MONOTONIC nanoseconds
    288     8  writers so far
    320   ...  schema, names of rows, cells; each begins a new cache line

The name of a row has 256 bytes: its length in a word, written last, and the text. Texts are UTF-8 and padded with NUL.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from shmchannel.errors import LayoutMismatch, UsageError
from shmchannel.stats_pages.schema import CELLS_MAX, Schema

MAGIC = 0x31_41_54_53_46_47_01  # "\x01GFSTA1" in little-endian order
LAYOUT_VERSION = 1
HEADER_BYTES = 320
ROLE_OFFSET, ROLE_BYTES = 96, 16
INSTANCE_OFFSET, INSTANCE_BYTES = 128, 128
ROW_NAME_BYTES = 256
ROW_TEXT_BYTES = ROW_NAME_BYTES - 8
SCHEMA_BYTES_MAX = 1 << 20
PAGE_BYTES_MAX = 1 << 24

# Indices of 64-bit words.
MAGIC_WORD, VERSION_WORD, SIZE_WORD, SCHEMA_WORD, SCHEMA_BYTES_WORD, SCHEMA_CRC_WORD, CELLS_WORD, COUNT_WORD = range(8)
OWNER_PID, OWNER_START, BOOT_LOW, BOOT_HIGH = range(8, 12)
SLOT_WORD, NAMES_WORD = 14, 15
WRITER_PID, WRITER_START, STARTED, HEARTBEAT, WRITER_COUNT = range(32, 37)


class Places(NamedTuple):
    """Where the parts of a page lie, in bytes from its beginning."""

    schema: int
    schema_bytes: int
    names: int
    cells: int
    cell_count: int
    page_bytes: int


def _line(offset: int) -> int:
    return (offset + 63) & ~63


def places_for(schema: Schema) -> Places:
    """The places in a page with this schema.

    Raises:
        UsageError: the schema's text or the page would be too large.
    """
    length = len(schema.encoded)
    names = _line(HEADER_BYTES + length)
    cells = _line(names + ROW_NAME_BYTES * schema.name_count)
    page_bytes = cells + 8 * schema.cell_count
    if length > SCHEMA_BYTES_MAX or page_bytes > PAGE_BYTES_MAX:
        raise UsageError(f"a schema of {length} bytes and a page of {page_bytes} bytes are too large")
    return Places(HEADER_BYTES, length, names, cells, schema.cell_count, page_bytes)


def header_words(schema: Schema) -> dict[int, int]:
    """The words that describe the layout, by index; the magic is not among them, as it is written last."""
    places = places_for(schema)
    return {
        VERSION_WORD: LAYOUT_VERSION,
        SIZE_WORD: places.page_bytes,
        SCHEMA_WORD: places.schema,
        SCHEMA_BYTES_WORD: places.schema_bytes,
        SCHEMA_CRC_WORD: crc32(schema.encoded),
        CELLS_WORD: places.cells,
        COUNT_WORD: places.cell_count,
        NAMES_WORD: places.names,
    }


def check_header(words: Sequence[int], page_bytes: int) -> Places:
    """Check the words of a published page of this version against its size; returns where its parts lie.

    Raises:
        LayoutMismatch: a number does not fit.
    """
    places = Places(
        words[SCHEMA_WORD],
        words[SCHEMA_BYTES_WORD],
        words[NAMES_WORD],
        words[CELLS_WORD],
        words[COUNT_WORD],
        words[SIZE_WORD],
    )
    if not (
        places.page_bytes == page_bytes
        and places.schema >= HEADER_BYTES
        and places.schema_bytes <= SCHEMA_BYTES_MAX
        and places.schema + places.schema_bytes <= places.names <= places.cells
        and places.cells % 8 == places.names % 8 == 0
        and places.cell_count <= CELLS_MAX
        and places.cells + 8 * places.cell_count <= page_bytes
    ):
        raise LayoutMismatch(f"the header of a stats page of {page_bytes} bytes does not fit it: {places}")
    return places


def padded(text: str, room: int) -> bytes:
    """A text as UTF-8, cut at a whole character, and filled up with NUL."""
    return _cut(text, room).ljust(room, b"\0")


def row_name(text: str) -> bytes:
    """The text of a row's name, as long as there is room for it; `?` for none, since a length of 0 means no row."""
    return _cut(text, ROW_TEXT_BYTES) or b"?"


def _cut(text: str, room: int) -> bytes:
    data = text.encode(errors="replace")
    return data if len(data) <= room else data[:room].decode(errors="ignore").encode()


def text_of(data: bytes) -> str:
    """The text in a padded room."""
    return data.rstrip(b"\0").decode(errors="replace")
