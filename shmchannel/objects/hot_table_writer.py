"""HotTableWriter: publishes objects in a hot table, where other processes read them without asking, and withdraws them.

Theory of operation. The table is a hash table in shared memory: sets of two cells, each under a sequence number (a
seqlock). One process writes, any number read; readers never wait and never write.

    free ── publish ──▶ busy (odd sequence number, bytes change) ──▶ valid until its time ──▶ free
                                                                       ├── lengthened: same version, only more time
                                                                       └── dropped ──▶ free, for all readers at once

* A reader looks at the sequence number before and after it copies. If it was odd or has changed, it has read nothing.
* Publishing races with purging. begin() notes how many drops there have been before the object is looked up; when that
  number has changed by the time the cell is complete, the object may be the one that was dropped, and is not shown.
* The lock is not held while a body is read into a cell: the cell is busy meanwhile, and nobody else takes it.
* A cell is reused only when its time is over: otherwise three hot keys of one set would evict each other all the time.
* Small objects are stored whole. A large object in an immutable file is stored as a reference to a descriptor, which
  stays open for as long as the reference can be read; readers open it anew (hot_table_files.py).
* Readers must see stores in the order in which they were made. x86-64 guarantees that; other processors do not, and
  Python has no barrier: see is_supported().
* Invariant: when drop() returns, no reader that looks afterwards finds the object, and none finds it later.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import monotonic_ns
from typing import NamedTuple, Self
from zlib import crc32

from shmchannel import faults
from shmchannel.objects.hot_table_layout import (
    CELL_BYTES,
    CELL_HEAD_BYTES,
    FILE_REF_BYTES,
    HOT_TABLE_HEADER_BYTES,
    KEY_HASH,
    MAGIC,
    SEQUENCE,
    VALID_UNTIL,
    FileRef,
    cells_in,
    check_hot_table_bytes,
    fits_cell,
    header_words,
)
from shmchannel.process.block import create_block
from shmchannel.process.memory import require_memory
from shmchannel.process.naming import hot_table_name
from shmchannel.process.reaper import unlink_memory
from shmchannel.stats import HotTableStats

_ORDERED_MACHINES = ("x86_64",)
FILES_MAX = 64
"""Most references by default: each holds a descriptor, and keeps its object even after it has left the store."""


def require_room(hot_table_bytes: int) -> None:
    """Refuse a hot table for which there is no room in /dev/shm or in memory, before a page of it is touched.

    Raises:
        LimitReached: with the numbers.
    """
    hint = "take a smaller one (--hot-table-bytes, 0 for none), or give /dev/shm more room"
    require_memory("a hot table", hot_table_bytes, hint=hint)


def is_supported() -> bool:
    """Whether other processes see the stores of one process in order on this processor."""
    return os.uname().machine in _ORDERED_MACHINES


class HotTableToken(NamedTuple):
    """The state seen by begin(): the number of removals so far, and the time in CLOCK_MONOTONIC nanoseconds."""

    drops: int
    begun_ns: int


class _Cell:
    """What the writer knows about a cell; shared memory is written from it and never read back."""

    __slots__ = ("at", "busy", "file_fd", "key", "published_ns", "sequence", "valid_until_ns", "version", "word")

    def __init__(self, number: int) -> None:
        self.at = HOT_TABLE_HEADER_BYTES + number * CELL_BYTES
        self.word = self.at // 8
        self.key: bytes | None = None
        self.version = self.sequence = self.valid_until_ns = self.published_ns = 0
        self.busy = False
        self.file_fd = -1


class HotTableWriter:
    """The writing end; thread-safe."""

    def __init__(self, name: str, mapping: mmap.mmap, files_max: int = FILES_MAX) -> None:
        self.name = name
        self._files_max = files_max
        self._mapping = mapping
        self._octets = memoryview(mapping)
        self._words = self._octets.cast("Q")
        self._cells = [_Cell(number) for number in range(cells_in(len(mapping)))]
        self._lock = threading.Lock()
        self._file_count = 0
        self._drops = 0
        self._published_total = self._dropped_total = 0
        self._closed = False

    @classmethod
    def create(cls, queue_name: str, hot_table_bytes: int, files_max: int = FILES_MAX) -> Self:
        """Make the hot table of the cache that holds this queue's guard; mode 0600. Close it before the queue.

        Raises:
            UsageError: the size is out of range.
            NameTaken, LimitReached, AccessDenied: the system refused; nothing is left behind.
        """
        check_hot_table_bytes(hot_table_bytes)
        require_room(hot_table_bytes)
        name = hot_table_name(queue_name)
        with ExitStack() as undo:
            mapping = create_block(f"hot table {name} of {hot_table_bytes} bytes", name, hot_table_bytes, undo)
            hot_table = cls(name, mapping, files_max)
            for number, word in enumerate(header_words(hot_table_bytes), start=1):
                hot_table._words[number] = word
            hot_table._words[0] = MAGIC
            undo.pop_all()
            return hot_table

    @property
    def cell_count(self) -> int:
        """How many objects fit."""
        return len(self._cells)

    def begin(self) -> HotTableToken:
        """The token for a later publish(); taken before the object is looked up."""
        return HotTableToken(self._drops, monotonic_ns())

    def publish(
        self,
        token: HotTableToken,
        key: bytes,
        version: int,
        metadata: bytes,
        body_bytes: int,
        read_into: Callable[[Sequence[memoryview], int], int],
        *,
        life_ns: int,
        is_unchanged: Callable[[], bool] | None = None,
    ) -> bool:
        """Put an object into the hot table until `life_ns` nanoseconds after its token; returns whether it is there.

        It does not when anything was dropped since the token (what was looked up may be what was dropped), when it is
        too large or its cells are in use, when `read_into` (as os.preadv for a file) comes short, or when
        `is_unchanged`, asked after the body was read, says no. Without `is_unchanged` the bytes of a version never
        change (and its metadata not without a drop), and one that lies there already is only given more time. Errors
        of `read_into` are raised.
        """
        if not fits_cell(len(key), len(metadata), body_bytes):
            return False
        valid_until_ns = token.begun_ns + life_ns
        with self._lock:
            cell = self._take_cell(token, key, valid_until_ns)
            if cell is None:
                return False
            if is_unchanged is None and self._lengthen(cell, key, version, valid_until_ns):
                return True
            old_file = self._open(cell)
        self._close_files(old_file)
        whole = False
        try:
            self._write_head(cell, valid_until_ns, version, key, metadata, body_bytes)
            if faults.ARMED:
                faults.reach("cache.publishing")
            whole = self._read_body(cell, len(key) + len(metadata), body_bytes, read_into)
            whole = whole and (is_unchanged is None or is_unchanged())
        finally:
            with self._lock:
                cell.busy = False
                whole = whole and token.drops == self._drops
                if whole:
                    self._fill(cell, key, version, valid_until_ns)
                if not self._closed:
                    self._shut(cell, filled=whole)
        return whole

    def publish_file(
        self, token: HotTableToken, key: bytes, version: int, metadata: bytes, fd: int, size_bytes: int, *, life_ns: int
    ) -> bool:
        """As publish(), for an object whose bytes are those of a file that does not change: a reference goes there.

        The descriptor stays the caller's; a duplicate is kept while the reference is in the table. Returns False
        when `files_max` lie there, or there is no descriptor left.
        """
        if not size_bytes or not fits_cell(len(key), len(metadata), FILE_REF_BYTES):
            return False
        valid_until_ns = token.begun_ns + life_ns
        with self._lock:
            cell = self._take_cell(token, key, valid_until_ns)
            if cell is None:
                return False
            if self._lengthen(cell, key, version, valid_until_ns):
                return True
            if self._file_count >= self._files_max and cell.file_fd < 0:
                return False
            try:
                status = os.fstat(fd)
                file_fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
            except OSError:
                return False
            old_file = self._open(cell)
            reference = FileRef(file_fd, status.st_dev, status.st_ino, size_bytes).packed
            self._write_head(cell, valid_until_ns, version, key, metadata, FILE_REF_BYTES, size_bytes)
            start = cell.at + CELL_HEAD_BYTES + len(key) + len(metadata)
            self._octets[start : start + FILE_REF_BYTES] = reference
            self._file_count += 1
            cell.file_fd = file_fd
            self._fill(cell, key, version, valid_until_ns)
            cell.busy = False
            self._shut(cell, filled=True)
        self._close_files(old_file)
        return True

    def _take_cell(self, token: HotTableToken, key: bytes, valid_until_ns: int) -> _Cell | None:
        """The cell to write; None when the object must not or need not be published. The lock is held."""
        if self._closed or token.drops != self._drops or valid_until_ns <= monotonic_ns():
            return None
        cell = self._cell_for(key)
        if cell is None or (cell.key == key and cell.published_ns > token.begun_ns):
            return None  # no room, or another thread is at it or has just done it
        return cell

    def _lengthen(self, cell: _Cell, key: bytes, version: int, valid_until_ns: int) -> bool:
        """Give an object that is already there more time; the lock is held."""
        if cell.key != key or cell.version != version:
            return False
        self._words[cell.word + VALID_UNTIL] = cell.valid_until_ns = max(cell.valid_until_ns, valid_until_ns)
        return True

    def _fill(self, cell: _Cell, key: bytes, version: int, valid_until_ns: int) -> None:
        """Record what a cell has now; the lock is held."""
        cell.key, cell.version, cell.valid_until_ns = key, version, valid_until_ns
        cell.published_ns = monotonic_ns()
        self._published_total += 1

    def _set_of(self, key: bytes) -> list[_Cell]:
        first = crc32(key) % (len(self._cells) // 2) * 2
        return self._cells[first : first + 2]

    def _cell_for(self, key: bytes) -> _Cell | None:
        """The cell with the key, or one whose time is over; None if there is neither, or one of them is busy."""
        cells = self._set_of(key)
        if any(cell.busy for cell in cells):
            return None
        for cell in cells:
            if cell.key == key:
                return cell
        # Valid entries stay: three hot keys of one set would otherwise push each other out all the time.
        now = monotonic_ns()
        return next((cell for cell in cells if cell.valid_until_ns <= now), None)

    def _open(self, cell: _Cell) -> int:
        """Begin to change a cell; returns the descriptor of its reference, which may be closed now."""
        cell.busy = True
        cell.key = None
        cell.sequence += 1
        self._words[cell.word + SEQUENCE] = cell.sequence
        file_fd, cell.file_fd = cell.file_fd, -1
        self._file_count -= file_fd >= 0
        return file_fd

    @staticmethod
    def _close_files(*fds: int) -> None:
        for fd in fds:  # without the lock: the last one that has a large object open frees it
            if fd >= 0:
                os.close(fd)

    def _shut(self, cell: _Cell, *, filled: bool) -> None:
        if not filled:
            self._words[cell.word + VALID_UNTIL] = self._words[cell.word + KEY_HASH] = 0
            cell.valid_until_ns = 0
        cell.sequence += 1
        self._words[cell.word + SEQUENCE] = cell.sequence

    def _write_head(
        self, cell: _Cell, valid_until_ns: int, version: int, key: bytes, metadata: bytes, body_bytes: int,
        file_bytes: int = 0,
    ) -> None:  # fmt: skip
        head = (crc32(key), valid_until_ns, version, len(key), len(metadata), body_bytes, file_bytes)
        for number, value in enumerate(head, start=cell.word + KEY_HASH):
            self._words[number] = value
        middle = cell.at + CELL_HEAD_BYTES + len(key)
        self._octets[middle - len(key) : middle] = key
        self._octets[middle : middle + len(metadata)] = metadata

    def _read_body(
        self, cell: _Cell, start: int, body_bytes: int, read_into: Callable[[Sequence[memoryview], int], int]
    ) -> bool:
        start += cell.at + CELL_HEAD_BYTES
        with self._octets[start : start + body_bytes] as room:
            done = 0
            while done < body_bytes:
                with room[done:] as rest:
                    count = read_into((rest,), done)
                if not count:
                    return False
                done += count
        return True

    def drop(self, key: bytes) -> None:
        """Withdraw an object, for all readers at once; no lookup that is under way is published, whatever its key."""
        self._drop(self._set_of(key), lambda found: found == key)

    def drop_prefix(self, prefix: bytes) -> None:
        """Withdraw all objects whose keys begin with the prefix; otherwise as drop()."""
        self._drop(self._cells, lambda found: found.startswith(prefix))

    def _drop(self, cells: Sequence[_Cell], is_meant: Callable[[bytes], bool]) -> None:
        with self._lock:
            self._drops += 1  # whoever fills a busy cell looks at this before it is shown
            if self._closed:
                return
            meant = [cell for cell in cells if cell.key is not None and is_meant(cell.key)]
            files = [self._empty(cell) for cell in meant]
            self._dropped_total += len(meant)
        self._close_files(*files)

    def _empty(self, cell: _Cell) -> int:
        """Withdraw what a cell has; returns as _open(). The lock is held."""
        file_fd = self._open(cell)
        cell.busy = False
        self._shut(cell, filled=False)
        return file_fd

    def expire(self) -> None:
        """Close the files behind references whose time is over; to be called about once a second."""
        now = monotonic_ns()
        with self._lock:
            over = [cell for cell in self._cells if cell.file_fd >= 0 and cell.valid_until_ns <= now]
            files = [self._empty(cell) for cell in over]
        self._close_files(*files)

    def stats(self) -> HotTableStats:
        """A snapshot."""
        return HotTableStats(published_total=self._published_total, dropped_total=self._dropped_total)

    def close(self) -> None:
        """Withdraw everything and remove the name; may be called twice. The queue's guard is still held."""
        self.drop_prefix(b"")
        with self._lock:
            if self._closed:
                return
            self._closed = True
            busy = any(cell.busy for cell in self._cells)
        unlink_memory(self.name)
        if not busy:  # else a thread that did not end in time still writes: the memory goes with the process
            self._words.release()
            self._octets.release()
            self._mapping.close()
