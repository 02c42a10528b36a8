"""HotTableReader: reads another process's hot table without a lock, a message or a system call.

What it returns is a consistent copy: the cell's sequence number was even before and the same after. This relies on the
processor's order of loads and stores (hot_table_writer.py). Whether the process that wrote it still lives is the user's
business. All that a reader writes is the use mark of the cell, in a mapping of its own: the rest it cannot write.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from time import monotonic_ns
from typing import Self, TypeAlias
from zlib import crc32

import posix_ipc

from shmchannel.errors import AccessDenied, os_errors
from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    BUCKET_BYTES,
    CELL,
    CELL_BEGIN,
    CELL_BYTES,
    CELLS_AT,
    HOT_TABLE_HEADER_BYTES,
    LINE_BYTES,
    MARKS_AT,
    MARKS_PER_BUCKET,
    RECORD_BYTES_MAX,
    SEQUENCE_WORD,
    TAG,
    TAG_BYTES,
    TAGS_BYTES,
    FileRef,
    HotTableEntry,
    check_hot_table_header,
    file_ref,
    geometry,
)
from shmchannel.process.naming import hot_table_name

_read_cell = CELL.unpack_from
_read_begin = CELL_BEGIN.unpack_from
_read_sequence = SEQUENCE_WORD.unpack_from
_tag_of = TAG.pack
_new_entry = tuple.__new__  # what a NamedTuple's own constructor calls in the end, in a third of its time

Marks: TypeAlias = mmap.mmap | bytearray
"""Where readers say what is used."""
_NO_MARKS = bytearray(1)


class EntryVersion:
    """Tells whether an object is still there as it was found, in a fraction of the time of HotTableReader.get().

    It is while its writer is ready, the 64-bit word of `block` at `at` equals `sequence`, and the word VALID_UNTIL_AT
    bytes behind it is greater than the CLOCK_MONOTONIC nanoseconds of now.
    """

    __slots__ = ("at", "block", "body_at", "file", "is_ready", "mark_at", "marks", "pid", "sequence", "version")

    def __init__(
        self,
        block: mmap.mmap,
        at: int,
        sequence: int,
        is_ready: Callable[[], bool],
        body_at: int = 0,
        marks: Marks = _NO_MARKS,
        mark_at: int = 0,
        file: FileRef | None = None,
        pid: int = 0,
        version: int = 0,
    ) -> None:
        self.version = version
        """Of the object."""
        self.block = block
        self.at = at
        self.sequence = sequence
        self.is_ready = is_ready
        self.body_at = body_at
        """Where in the block the body is, or the reference to its file."""
        self.file = file
        """That reference."""
        self.pid = pid
        """The process whose descriptor it names, if that is known."""
        self.marks = marks
        """Has a byte, at `mark_at`, that is set when the object is used."""
        self.mark_at = mark_at

    def holds(self) -> bool:
        """True while get() would return the same object and its writer is ready. Never blocks, never raises."""
        try:
            sequence, valid_until_ns = _read_begin(self.block, self.at)
        except ValueError:  # the hot table was closed
            return False
        return sequence == self.sequence and valid_until_ns > monotonic_ns() and self.is_ready()


class HotTableReader:
    """Thread-safe; close() may be called while others read."""

    __slots__ = ("_block", "_block_bytes", "_bucket_count", "_buckets_at", "_marks")

    def __init__(self, block: mmap.mmap, marks: Marks | None = None) -> None:
        """Take over a mapped hot table after checking its header, and a mapping of its use marks, if they are wanted.

        Raises:
            LayoutMismatch: its header does not fit.
        """
        check_hot_table_header(block[:HOT_TABLE_HEADER_BYTES], len(block))
        places = geometry(len(block))
        self._block = block
        self._block_bytes = len(block)
        self._bucket_count = places.bucket_count
        self._buckets_at = places.buckets_at
        self._marks = bytearray(places.marks_bytes) if marks is None else marks

    @classmethod
    def attach(cls, queue_name: str) -> Self:
        """Map the hot table of the cache on this queue: for reading only, but for the use marks.

        Raises:
            NameMissing, AccessDenied: there is none, or it is another user's.
            LayoutMismatch: its header does not fit; nothing stays mapped.
        """
        name = hot_table_name(queue_name)
        with os_errors(f"attach hot table {name}"):
            memory = posix_ipc.SharedMemory(name)
            try:
                status = os.fstat(memory.fd)
                if status.st_uid != os.geteuid():
                    raise AccessDenied(f"hot table {name} belongs to uid {status.st_uid}", errno.EACCES)
                check_hot_table_header(os.pread(memory.fd, HOT_TABLE_HEADER_BYTES, 0), status.st_size)
                marks = mmap.mmap(memory.fd, geometry(status.st_size).marks_bytes, offset=MARKS_AT)
                block = mmap.mmap(memory.fd, status.st_size, prot=mmap.PROT_READ)
            finally:
                memory.close_fd()
        return cls(block, marks)

    def get(self, key: bytes) -> HotTableEntry | None:
        """A copy of the object that the table has under this key now, or None. Never blocks, never raises."""
        block = self._block
        key_hash = crc32(key)
        bucket = key_hash % self._bucket_count
        tags_at = self._buckets_at + bucket * BUCKET_BYTES
        tags_end = tags_at + TAGS_BYTES
        tag = _tag_of(key_hash)
        try:
            tag_at = block.find(tag, tags_at, tags_end)
            while tag_at >= 0:
                offset = tag_at - tags_at
                if not offset % TAG_BYTES:  # halves of two tags can look like one
                    number = offset // TAG_BYTES
                    entry = self._read(tags_at + CELLS_AT + number * CELL_BYTES, key)
                    if entry is not None:
                        mark = bucket * MARKS_PER_BUCKET + number
                        if not self._marks[mark]:  # else its cache line would go from one reader to the next
                            self._marks[mark] = 1
                        return entry
                tag_at = block.find(tag, tag_at + 1, tags_end)
        except ValueError:  # another thread has closed it
            pass
        return None

    def _read(self, at: int, key: bytes) -> HotTableEntry | None:
        """What the cell here has, if it has this key; raises ValueError when the table was closed."""
        block = self._block
        sequence, valid_until_ns, version, place, key_bytes, metadata_bytes, file_bytes = _read_cell(block, at)
        start = (place & 0xFFFFFFFF) * LINE_BYTES
        middle = start + key_bytes
        body_at = middle + metadata_bytes
        end = start + (place >> 32)
        # The numbers are another process's, and perhaps of two entries: they are held against each other before use.
        # That of the record is one word: whatever the others are, nothing outside of some record is read.
        if (
            sequence & 1
            or valid_until_ns <= monotonic_ns()
            or key_bytes != len(key)
            or not 0 <= end - body_at <= BODY_BYTES_MAX
            or not end - start <= RECORD_BYTES_MAX
            or end > self._block_bytes
            or block[start:middle] != key
        ):
            return None
        metadata, body = block[middle:body_at], block[body_at:end]
        if _read_sequence(block, at)[0] != sequence:
            return None
        if not file_bytes:
            return _new_entry(HotTableEntry, (version, metadata, body, None, block, at, sequence))
        file = file_ref(body, file_bytes)
        return None if file is None else HotTableEntry(version, metadata, b"", file, block, at, sequence)

    def watch(
        self, key: bytes, entry: HotTableEntry, is_ready: Callable[[], bool], pid: int = 0
    ) -> EntryVersion | None:
        """Watch an object that get() has returned; None when it is gone.

        `is_ready` tells whether its writer is, the process `pid`.
        """
        block = self._block
        if entry.block is not block:  # of another table, or made otherwise
            found = self.get(key)
            if found is None or found != entry:
                return None
            entry = found
        at = entry.at
        try:
            _, _, version, place, key_bytes, metadata_bytes, file_bytes = _read_cell(block, at)
            start = (place & 0xFFFFFFFF) * LINE_BYTES
            body_at = start + key_bytes + metadata_bytes
            file = file_ref(block[body_at : start + (place >> 32)], file_bytes) if file_bytes else None
        except ValueError:  # another thread has closed it
            return None
        bucket, offset = divmod(at - self._buckets_at, BUCKET_BYTES)
        mark_at = bucket * MARKS_PER_BUCKET + (offset - CELLS_AT) // CELL_BYTES
        watch = EntryVersion(block, at, entry.sequence, is_ready, body_at, self._marks, mark_at, file, pid, version)
        return watch if watch.holds() else None  # afterwards: what was read here belongs to this sequence number

    def close(self) -> None:
        """Unmap; may be called twice."""
        self._block.close()
        if isinstance(self._marks, mmap.mmap):
            self._marks.close()
