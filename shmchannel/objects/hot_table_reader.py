"""HotTableReader: reads another process's hot table without a lock, a message or a system call.

What it returns is a consistent copy: the cell's sequence number was even before and the same after. This relies on the
processor's order of loads and stores (hot_table_writer.py). Whether the process that wrote it still lives is the user's
business.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from time import monotonic_ns
from typing import Self
from zlib import crc32

import posix_ipc

from shmchannel.errors import AccessDenied, os_errors
from shmchannel.objects.hot_table_layout import (
    BODY_BYTES_MAX,
    CELL_BEGIN,
    CELL_BYTES,
    CELL_HEAD,
    CELL_HEAD_BYTES,
    CELL_ROOM_BYTES,
    HOT_TABLE_HEADER_BYTES,
    KEY_HASH,
    SEQUENCE,
    SEQUENCE_WORD,
    SET_BYTES,
    HotTableEntry,
    cells_in,
    check_hot_table_header,
    file_entry,
)
from shmchannel.process.naming import hot_table_name

_read_head = CELL_HEAD.unpack_from
_read_begin = CELL_BEGIN.unpack_from
_read_sequence = SEQUENCE_WORD.unpack_from
_new_entry = tuple.__new__  # what a NamedTuple's own constructor calls in the end, in a third of its time


class EntryVersion:
    """Tells whether an object is still there as it was found, in a fraction of the time of HotTableReader.get()."""

    __slots__ = ("_at", "_block", "_is_ready", "_sequence")

    def __init__(self, block: mmap.mmap, at: int, sequence: int, is_ready: Callable[[], bool]) -> None:
        self._block = block
        self._at = at
        self._sequence = sequence
        self._is_ready = is_ready

    def holds(self) -> bool:
        """True while get() would return the same object and its writer is ready. Never blocks, never raises."""
        try:
            sequence, _, valid_until_ns = _read_begin(self._block, self._at)
        except ValueError:  # the hot table was closed
            return False
        return sequence == self._sequence and valid_until_ns > monotonic_ns() and self._is_ready()


class HotTableReader:
    """Thread-safe; close() may be called while others read."""

    __slots__ = ("_block", "_set_count")

    def __init__(self, block: mmap.mmap) -> None:
        """Take over a mapped hot table after checking its header; raises LayoutMismatch."""
        check_hot_table_header(block[:HOT_TABLE_HEADER_BYTES], len(block))
        self._block = block
        self._set_count = cells_in(len(block)) // 2

    @classmethod
    def attach(cls, queue_name: str) -> Self:
        """Map the hot table of the cache on this queue, for reading only.

        Raises:
            NameMissing, AccessDenied: there is none, or it is another user's.
            LayoutMismatch: its header does not fit; nothing stays mapped.
        """
        name = hot_table_name(queue_name)
        with os_errors(f"attach hot table {name}"):
            memory = posix_ipc.SharedMemory(name, read_only=True)
            try:
                status = os.fstat(memory.fd)
                if status.st_uid != os.geteuid():
                    raise AccessDenied(f"hot table {name} belongs to uid {status.st_uid}", errno.EACCES)
                check_hot_table_header(os.pread(memory.fd, HOT_TABLE_HEADER_BYTES, 0), status.st_size)
                block = mmap.mmap(memory.fd, status.st_size, prot=mmap.PROT_READ)
            finally:
                memory.close_fd()
        return cls(block)

    def get(self, key: bytes) -> HotTableEntry | None:
        """A copy of the object that the table has under this key now, or None. Never blocks, never raises."""
        block = self._block
        key_hash = crc32(key)
        at = HOT_TABLE_HEADER_BYTES + key_hash % self._set_count * SET_BYTES
        try:
            head = _read_head(block, at)
            if head[KEY_HASH] != key_hash:
                at += CELL_BYTES
                head = _read_head(block, at)
                if head[KEY_HASH] != key_hash:
                    return None
            sequence, _, valid_until_ns, version, key_bytes, metadata_bytes, body_bytes, file_bytes = head
            # The lengths are another process's, and perhaps of two entries: they are held against the cell before use.
            if (
                sequence & 1
                or valid_until_ns <= monotonic_ns()
                or key_bytes != len(key)
                or body_bytes > BODY_BYTES_MAX
                or key_bytes + metadata_bytes + body_bytes > CELL_ROOM_BYTES
            ):
                return None
            start = at + CELL_HEAD_BYTES
            middle = start + key_bytes
            body_at = middle + metadata_bytes
            if block[start:middle] != key:
                return None
            metadata, body = block[middle:body_at], block[body_at : body_at + body_bytes]
            if _read_sequence(block, at)[0] != sequence:
                return None
            if file_bytes:
                return file_entry(version, metadata, body, file_bytes)
            return _new_entry(HotTableEntry, (version, metadata, body, None))
        except ValueError:  # another thread has closed it
            return None

    def watch(self, key: bytes, entry: HotTableEntry, is_ready: Callable[[], bool]) -> EntryVersion | None:
        """Watch an object that get() has returned; None when it is gone. `is_ready` tells whether its writer is."""
        block = self._block
        key_hash = crc32(key)
        first = HOT_TABLE_HEADER_BYTES + key_hash % self._set_count * SET_BYTES
        try:
            for at in (first, first + CELL_BYTES):
                head = _read_head(block, at)
                if head[KEY_HASH] == key_hash and not head[SEQUENCE] & 1 and self.get(key) == entry:
                    watch = EntryVersion(block, at, head[SEQUENCE], is_ready)
                    return watch if watch.holds() else None
        except ValueError:
            pass
        return None

    def close(self) -> None:
        """Unmap; may be called twice."""
        self._block.close()
