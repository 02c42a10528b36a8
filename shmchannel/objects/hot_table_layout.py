"""PURE: the byte layout of a hot table, written once (normative text: docs/protocol.md 6).

    off  size  field             written by the cache
      0     8  magic             LAST: its arrival publishes the hot table
      8     8  layout version
     16     8  hot table size in bytes, this header included
     24     8  number of buckets
     32     8  where the buckets begin
     40     8  where the arena begins
   4096   ...  use marks         8 bytes for each bucket, of which 7 belong to its cells; written by readers
          ...  buckets           each 512 bytes
          ...  arena             records

A bucket is 7 tags of 32 bits, one for each of its cells, padded to 64 bytes, and the cells. A tag is the CRC-32 of the
key whose object the cell has, and 0 if it has none. Each cell:

      0     8  sequence number   odd while the cell changes; otherwise a number that it never had before
      8     8  valid until       CLOCK_MONOTONIC nanoseconds; 0 in an empty cell
     16     8  object version
     24     8  record            where it begins, in units of 64 bytes (low half), and its bytes (high half)
     32     4  key length
     36     4  metadata length
     40     8  file length       0 when the body is the object's; else the object's size, and the body is a FileRef

A record is key, metadata and body, without a gap. A FileRef says which file has the object's bytes:

      0     8  number of a descriptor of the cache
      8     8  device of the file, as fstat(2) has it
     16     8  inode
     24   ...  name of the file below that descriptor, a directory; if there is none, the descriptor is the file's

The bucket of a key is (CRC-32 mod the number of buckets). An object lies in one of its cells or nowhere.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from shmchannel.errors import LayoutMismatch, UsageError

MAGIC = 0x31_4C_48_53_46_47_01  # "\x01GFSHL1" in little-endian order
LAYOUT_VERSION = 3
HOT_TABLE_HEADER_BYTES = 64
MARKS_AT = 4096
"""Where the use marks begin: they are mapped apart from the rest, and mappings begin with a page."""
MARKS_PER_BUCKET = 8
BUCKET_BYTES = 512
BUCKET_CELLS = 7
TAG_BYTES = 4
TAGS_BYTES = BUCKET_CELLS * TAG_BYTES
CELLS_AT = 64
"""Where in a bucket its cells begin."""
CELL_BYTES = 64
LINE_BYTES = 64
"""Records begin at multiples of this."""
BODY_BYTES_MAX = 16 * 1024
RECORD_BYTES_MAX = 24 * 1024
HOT_TABLE_BYTES_MIN = 64 * 1024
HOT_TABLE_BYTES_MAX = 1 << 30
VALID_UNTIL_AT = 8
"""Where in a cell the time is until which it is valid; the sequence number is its first word."""
_PAGE_BYTES = 4096
_BYTES_PER_BUCKET = 8192

# Native order and alignment: each field is one load, never half of an old and half of a new number.
CELL = Struct("@4Q2IQ")
CELL_BEGIN = Struct("@2Q")
"""Up to the time until which the cell is valid."""
SEQUENCE_WORD = Struct("@Q")
TAG = Struct("@I")
_HEADER = Struct("@6Q")
_FILE = Struct("@3Q")
FILE_REF_BYTES = _FILE.size
FILE_NAME_BYTES_MAX = 255

assert CELL.size <= CELL_BYTES
assert CELLS_AT + BUCKET_CELLS * CELL_BYTES == BUCKET_BYTES
assert TAGS_BYTES <= CELLS_AT


class FileRef(NamedTuple):
    """The location of an object's bytes: a descriptor of the cache's, the file, and the size in bytes.

    With a `name` the descriptor is that of the directory in which the file lies, or below which.
    """

    number: int
    device: int
    inode: int
    size_bytes: int
    name: bytes = b""

    @property
    def packed(self) -> bytes:
        """Its encoding in a record, without the size, which has a field of its own."""
        return _FILE.pack(self.number, self.device, self.inode) + self.name


class HotTableEntry(NamedTuple):
    """One object as found in the hot table: version, opaque metadata, and the whole body or the `file` that has it.

    The other fields say in which cell of which mapping it was found. They do not count when two are compared.
    """

    version: int
    metadata: bytes
    body: bytes
    file: FileRef | None = None
    block: object = None
    at: int = 0
    sequence: int = 1

    @property
    def size_bytes(self) -> int:
        """The size of the object's body."""
        return len(self.body) if self.file is None else self.file.size_bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HotTableEntry) and self[:4] == other[:4]

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:4])


def file_ref(packed: bytes, size_bytes: int) -> FileRef | None:
    """The reference of an object of this size; None if these bytes are none."""
    name = packed[FILE_REF_BYTES:]
    if len(packed) < FILE_REF_BYTES or len(name) > FILE_NAME_BYTES_MAX or b"\0" in name:
        return None
    number, device, inode = _FILE.unpack_from(packed)
    return FileRef(number, device, inode, size_bytes, name)


def check_hot_table_bytes(hot_table_bytes: int) -> None:
    """Refuse an invalid size of a hot table.

    Raises:
        UsageError: it is out of range.
    """
    if not HOT_TABLE_BYTES_MIN <= hot_table_bytes <= HOT_TABLE_BYTES_MAX:
        raise UsageError(
            f"hot table size {hot_table_bytes} is not between {HOT_TABLE_BYTES_MIN} and {HOT_TABLE_BYTES_MAX}"
        )


class Geometry(NamedTuple):
    """Where the parts of a hot table are, in bytes from its beginning."""

    bucket_count: int
    buckets_at: int
    arena_at: int

    @property
    def marks_bytes(self) -> int:
        """The size of the use marks: whole pages."""
        return self.buckets_at - MARKS_AT

    @property
    def cell_count(self) -> int:
        """How many objects it can have at most."""
        return self.bucket_count * BUCKET_CELLS


def geometry(hot_table_bytes: int) -> Geometry:
    """The parts of a hot table of this size: a sixteenth are buckets, for objects of about a kilobyte each."""
    bucket_count = hot_table_bytes // _BYTES_PER_BUCKET
    buckets_at = MARKS_AT + _whole_pages(bucket_count * MARKS_PER_BUCKET)
    return Geometry(bucket_count, buckets_at, buckets_at + _whole_pages(bucket_count * BUCKET_BYTES))


def _whole_pages(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def header_words(hot_table_bytes: int) -> tuple[int, ...]:
    """The words of the header after its magic, which is written last."""
    return LAYOUT_VERSION, hot_table_bytes, *geometry(hot_table_bytes)


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
