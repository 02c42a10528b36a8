"""PURE: the byte layout of a hot table, written once (normative text: docs/protocol.md 6).

    off  size  field             written by the cache
      0     8  magic             LAST: its arrival publishes the hot table
      8     8  layout version
     16     8  hot table size in bytes, this header included
     24     8  cell size in bytes
     32     8  number of cells, an even one
     64   ...  cells

and each cell:

      0     8  sequence number   odd while the cell changes, one more at each step
      8     8  hash of the key   CRC-32, as zlib has it
     16     8  valid until       CLOCK_MONOTONIC nanoseconds; 0 in an empty cell
     24     8  object version
     32     8  key length
     40     8  metadata length
     48     8  body length
     56     8  file length       0 when the body is the object's; else the object's size, and the body is a FileRef
     64   ...  key, metadata, body, without a gap

A FileRef says which of the cache's descriptors has the object's bytes, and which file that is:

      0     8  number of the descriptor
      8     8  device of the file, as fstat(2) has it
     16     8  inode

Two cells next to each other are the set of a key: (hash mod half the number of cells), doubled. An object lies in
either of them or nowhere.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from shmchannel.errors import LayoutMismatch, UsageError

MAGIC = 0x31_4C_48_53_46_47_01  # "\x01GFSHL1" in little-endian order
LAYOUT_VERSION = 2
HOT_TABLE_HEADER_BYTES = 64
CELL_BYTES = 18 * 1024
CELL_HEAD_BYTES = 64
CELL_ROOM_BYTES = CELL_BYTES - CELL_HEAD_BYTES
SET_BYTES = 2 * CELL_BYTES
BODY_BYTES_MAX = 16 * 1024
HOT_TABLE_BYTES_MIN = 64 * 1024
HOT_TABLE_BYTES_MAX = 1 << 30

# Indices of the 64-bit words of a cell's head.
SEQUENCE, KEY_HASH, VALID_UNTIL, VERSION, KEY_BYTES, METADATA_BYTES, BODY_BYTES, FILE_BYTES = range(8)

# Native order and alignment: each field is one 64-bit load, never half of an old and half of a new number.
CELL_HEAD = Struct("@8Q")
CELL_BEGIN = Struct("@3Q")
"""Up to the time until which the cell is valid."""
SEQUENCE_WORD = Struct("@Q")
_HEADER = Struct("@5Q")
_FILE = Struct("@3Q")
FILE_REF_BYTES = _FILE.size

assert CELL_HEAD.size <= CELL_HEAD_BYTES
assert CELL_BYTES % 64 == 0


class FileRef(NamedTuple):
    """The location of a large object's bytes: a descriptor of the cache's, its file, and the size in bytes."""

    number: int
    device: int
    inode: int
    size_bytes: int

    @property
    def packed(self) -> bytes:
        """Its encoding in a cell, without the size, which has a field of its own."""
        return _FILE.pack(self.number, self.device, self.inode)


class HotTableEntry(NamedTuple):
    """One object as found in the hot table: version, opaque metadata, and the whole body or the `file` that has it."""

    version: int
    metadata: bytes
    body: bytes
    file: FileRef | None = None

    @property
    def size_bytes(self) -> int:
        """The size of the object's body."""
        return len(self.body) if self.file is None else self.file.size_bytes


def file_entry(version: int, metadata: bytes, packed: bytes, size_bytes: int) -> HotTableEntry | None:
    """The entry of an object that is in a file; None if the cell's body is not a FileRef."""
    if len(packed) != FILE_REF_BYTES:
        return None
    number, device, inode = _FILE.unpack(packed)
    return HotTableEntry(version, metadata, b"", FileRef(number, device, inode, size_bytes))


def check_hot_table_bytes(hot_table_bytes: int) -> None:
    """Refuse an invalid size of a hot table.

    Raises:
        UsageError: it is out of range.
    """
    if not HOT_TABLE_BYTES_MIN <= hot_table_bytes <= HOT_TABLE_BYTES_MAX:
        raise UsageError(
            f"hot table size {hot_table_bytes} is not between {HOT_TABLE_BYTES_MIN} and {HOT_TABLE_BYTES_MAX}"
        )


def cells_in(hot_table_bytes: int) -> int:
    """The number of cells in a hot table of `hot_table_bytes` bytes: as many whole sets as fit after the header."""
    return (hot_table_bytes - HOT_TABLE_HEADER_BYTES) // SET_BYTES * 2


def fits_cell(key_bytes: int, metadata_bytes: int, body_bytes: int) -> bool:
    """Whether an object of these lengths fits a cell."""
    return body_bytes <= BODY_BYTES_MAX and key_bytes + metadata_bytes + body_bytes <= CELL_ROOM_BYTES


def header_words(hot_table_bytes: int) -> tuple[int, ...]:
    """The words of the header after its magic, which is written last."""
    return LAYOUT_VERSION, hot_table_bytes, CELL_BYTES, cells_in(hot_table_bytes)


def check_hot_table_header(header: bytes, mapped_bytes: int) -> None:
    """Check the first bytes of a block against the layout and the size of the block.

    Raises:
        LayoutMismatch: not published yet, another layout, or not a hot table.
    """
    if len(header) < _HEADER.size or not HOT_TABLE_BYTES_MIN <= mapped_bytes <= HOT_TABLE_BYTES_MAX:
        raise LayoutMismatch(f"a block of {mapped_bytes} bytes is not a hot table")
    magic, *rest = _HEADER.unpack_from(header)
    if magic == 0:
        raise LayoutMismatch("the hot table is not published yet")
    if magic != MAGIC or tuple(rest) != header_words(mapped_bytes):
        raise LayoutMismatch(f"a hot table of magic {magic:#x} and {rest} does not fit a block of {mapped_bytes} bytes")
